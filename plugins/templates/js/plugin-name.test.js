import assert from "node:assert/strict";
import { test } from "node:test";

import { description, middleware } from "./plugin-name.js";

const request = {
  method: "GET",
  tls: false,
  pathWithQuery: "/",
  headers: [],
};

test("says what it is", () => {
  const about = description.describe();
  assert.equal(about.name, "pluginName");
  assert.deepEqual(JSON.parse(about.configSchema).required, ["text"]);
});

test("puts the text into the header", () => {
  middleware.init('{"text": "grüezi"}');
  const [verdict] = middleware.onRequest(request);
  const [edit] = verdict.val.headers;
  assert.deepEqual(edit, { tag: "set", val: ["x-plugin-name", new TextEncoder().encode("grüezi")] });
});

test("refuses a text that is no header", () => {
  assert.throws(() => middleware.init('{"text": "a\\nb"}'), { kind: "invalid-config" });
});
