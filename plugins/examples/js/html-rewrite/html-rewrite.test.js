import assert from "node:assert/strict";
import { register } from "node:module";
import { test } from "node:test";

// The proxy's part of it: `weir:plugin/message`, whose body is that of the test.
register(
  `data:text/javascript,${encodeURIComponent(`
    export async function resolve(name, context, next) {
      return name.startsWith("weir:") ? { url: "data:text/javascript,export const body = () => globalThis.body", shortCircuit: true } : next(name, context);
    }`)}`,
);
const { description, middleware } = await import("./html-rewrite.js");

const encode = (text) => new TextEncoder().encode(text);
const html = "text/html; charset=utf-8";

function respond(options, body, { type = html, encoding = null, status = 200 } = {}) {
  middleware.init(JSON.stringify(options));
  globalThis.body = typeof body === "string" ? encode(body) : body;
  return middleware.onResponse([], { status, headers: [type && encode(type), encoding && encode(encoding)] });
}

const rewritten = (options, body) => new TextDecoder().decode(respond(options, body).val.body);

test("replaces wherever it is", () => {
  const rules = [{ replace: "http://", with: "https://" }];
  assert.equal(rewritten({ rules }, "<a href=http://a><a href=http://b>"), "<a href=https://a><a href=https://b>");
  assert.equal(rewritten({ rules: [{ replace: "aa", with: "" }] }, "aaaaa"), "a");
});

test("puts something before or behind the first place", () => {
  const body = "<head></head><body></head>";
  assert.equal(rewritten({ rules: [{ before: "</head>", with: "<x>" }] }, body), "<head><x></head><body></head>");
  assert.equal(rewritten({ rules: [{ after: "<head>", with: "<x>" }] }, body), "<head><x></head><body></head>");
});

test("rules see what those before them have made", () => {
  const rules = [{ replace: "a", with: "b" }, { after: "b", with: "ü" }];
  assert.equal(rewritten({ rules }, "ca"), "cbü");
});

test("bytes that are no text stay as they are", () => {
  const body = Uint8Array.of(0xff, 0x61, 0x80, 0x61);
  const edit = respond({ rules: [{ replace: "a", with: "é" }] }, body).val;
  assert.deepEqual([...edit.body], [0xff, 0xc3, 0xa9, 0x80, 0xc3, 0xa9]);
});

test("other types, encoded bodies and parts pass", () => {
  const rules = [{ replace: "a", with: "b" }];
  for (const response of [{ type: "image/png" }, { type: null }, { encoding: "br" }, { status: 206 }]) {
    assert.equal(respond({ rules }, "a", response).tag, "pass", JSON.stringify(response));
  }
  assert.equal(respond({ rules }, "a", { encoding: "identity" }).tag, "edit");
  assert.equal(respond({ rules, contentTypes: ["Text/Plain"] }, "a", { type: "text/plain" }).tag, "edit");
  assert.equal(respond({ rules }, "x").tag, "pass");
});

test("what no longer holds of the body is removed", () => {
  const { headers } = respond({ rules: [{ replace: "a", with: "b" }] }, "a").val;
  assert.ok(headers.some(({ tag, val }) => tag === "remove" && val === "etag"));
});

test("asks for the whole body, and for a plain one if told to", () => {
  const rules = [{ replace: "a", with: "b" }];
  const plan = middleware.init(JSON.stringify({ rules, maxBytes: 1000, askForPlain: true }));
  assert.deepEqual(plan.responseBody, { tag: "buffered", val: 1000 });
  assert.deepEqual(plan.requestEdits[0].edit, { tag: "remove", val: "accept-encoding" });
});

test("refuses rules that cannot be meant", () => {
  for (const options of [
    { rules: [{ with: "x" }] },
    { rules: [{ replace: "a", before: "b", with: "x" }] },
    { rules: [{ replace: "", with: "x" }] },
    { rules: [], maxBytes: 10000000 },
  ]) {
    assert.throws(() => middleware.init(JSON.stringify(options)), { kind: "invalid-config" });
  }
});

test("half a character in a rule is no trap", () => {
  assert.equal(rewritten({ rules: [{ replace: "a", with: "\ud800" }] }, "a"), "\ufffd");
});

test("its schema names its options", () => {
  assert.deepEqual(JSON.parse(description.describe().configSchema).required, ["rules"]);
});
