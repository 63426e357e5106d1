// Puts a header of its own on every request: `x-plugin-name`, with the text of the configuration.

import { about, editRequest, invalidConfig, isHeaderValue, plan } from "./weir.js";

const schema = {
  type: "object",
  properties: { text: { type: "string", description: "what the header says" } },
  required: ["text"],
  additionalProperties: false,
};

// Of this instance. The host makes several, and calls each for one request at a time.
let text;

export const description = {
  describe: () => about("pluginName", "0.1.0", "Puts a header on every request", schema),
};

export const middleware = {
  init(config) {
    text = JSON.parse(config).text;
    if (!isHeaderValue(text)) {
      throw invalidConfig("use `text` as a header: it has a line break or control character");
    }
    return plan({ phases: { request: true } });
  },

  onRequest(head) {
    return [editRequest({ "x-plugin-name": text }), []];
  },

  onResponse(state, head) {
    throw new Error("the plan does not ask for it");
  },
};
