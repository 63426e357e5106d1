// Rewrites HTML bodies by a list of rules: what is replaced, and what is put before or behind something.

import * as message from "weir:plugin/message@0.1.0";
import { about, always, bytes, editResponse, invalidConfig, pass, plan, remove, text } from "../../../templates/js/weir.js";
import { rewrite } from "./rewrite.js";

const rule = {
  type: "object",
  properties: {
    replace: { type: "string", description: "text that is replaced wherever it is" },
    before: { type: "string", description: "text before whose first place something is put" },
    after: { type: "string", description: "text behind whose first place something is put" },
    with: { type: "string", description: "what is put there" },
  },
  required: ["with"],
  additionalProperties: false,
};

const schema = {
  type: "object",
  properties: {
    rules: { type: "array", items: rule, description: "one after the other" },
    contentTypes: { type: "array", items: { type: "string" }, description: "by default text/html" },
    maxBytes: { type: "integer", minimum: 1, default: 524288, description: "of the largest body" },
    askForPlain: { type: "boolean", default: false, description: "asks the server for bodies that are not compressed" },
  },
  required: ["rules"],
  additionalProperties: false,
};

const maxBytesAtMost = 1048576;

// What no longer holds of a body that has changed.
const ofTheOldBody = ["etag", "content-md5", "content-digest", "digest", "repr-digest", "accept-ranges"];

// Of this instance. The host makes several, and calls each for one request at a time.
let rules;
let contentTypes;

export const description = {
  describe: () => about("htmlRewrite", "0.1.0", "Rewrites HTML bodies by a list of rules", schema),
};

export const middleware = {
  init(config) {
    const options = JSON.parse(config);
    rules = options.rules.map(readRule);
    contentTypes = (options.contentTypes ?? ["text/html"]).map((type) => type.toLowerCase());
    const maxBytes = options.maxBytes ?? 524288;
    if (maxBytes > maxBytesAtMost) {
      throw invalidConfig(`buffer \`maxBytes\` of ${maxBytes}: at most ${maxBytesAtMost} are`);
    }
    return plan({
      phases: { response: true },
      requestEdits: options.askForPlain ? [always(remove("accept-encoding"))] : [],
      responseHeaders: ["content-type", "content-encoding"],
      responseBody: { tag: "buffered", val: maxBytes },
    });
  },

  onRequest(head) {
    throw new Error("the plan does not ask for it");
  },

  onResponse(state, head) {
    const [contentType, contentEncoding] = head.headers;
    // A part of a body is not searched: what is looked for may begin in the one before.
    if (head.status === 206 || !isRewritten(contentType) || isEncoded(contentEncoding)) {
      return pass;
    }
    const body = message.body();
    const rewritten = rewrite(body, rules);
    if (rewritten === body) {
      return pass;
    }
    return editResponse({}, { headers: ofTheOldBody.map(remove), body: rewritten });
  },
};

function readRule({ replace, before, after, with: put }) {
  const named = Object.entries({ replace, before, after }).filter(([, what]) => what !== undefined);
  if (named.length !== 1) {
    throw invalidConfig("use a rule of `rules`: it has exactly one of `replace`, `before` and `after`");
  }
  const [[kind, what]] = named;
  if (what === "") {
    throw invalidConfig(`use a rule of \`rules\`: \`${kind}\` is empty`);
  }
  return { kind, what: bytes(what), put: bytes(put) };
}

function isRewritten(contentType) {
  const type = text(contentType ?? []).split(";")[0].trim().toLowerCase();
  return contentTypes.includes(type);
}

function isEncoded(contentEncoding) {
  const coding = text(contentEncoding ?? []).trim().toLowerCase();
  return coding !== "" && coding !== "identity";
}
