// What makes a plugin in JavaScript short: the records of wit/weir-plugin.wit with their defaults filled in, and text
// and bytes, since QuickJS has no TextEncoder.

/** What `describe` answers, for a plugin that asks for no files, addresses or variables. */
export function about(name, version, summary, schema) {
  const configSchema = JSON.stringify(schema);
  return { name, version, summary, configSchema, files: [], urls: [], variables: [], origins: [], guards: false };
}

/** Nothing to call and nothing to do, but for what `wishes` say: `{phases: {request: true}}`. */
export function plan(wishes) {
  return {
    phases: { request: false, response: false, ...wishes.phases },
    requestEdits: [],
    responseEdits: [],
    requestHeaders: wishes.requestHeaders ?? [],
    responseHeaders: wishes.responseHeaders ?? [],
    requestBody: wishes.requestBody ?? { tag: "none" },
    responseBody: wishes.responseBody ?? { tag: "none" },
  };
}

/** For `throw` in `init`. Lower case, no full stop, and what to write instead; it reads after "failed to". */
export function invalidConfig(message) {
  return { kind: "invalid-config", message, retryAfterMs: null };
}

/** The message goes on as it is. */
export const pass = { tag: "pass" };

/** The request goes on with these headers set. Names are lower case, values are text. */
export function editRequest(headers) {
  const edits = Object.entries(headers).map(([name, value]) => ({ tag: "set", val: [name, bytes(value)] }));
  const edit = { method: null, authority: null, pathWithQuery: null, headers: edits, body: null, filter: null, delayMs: 0 };
  return { tag: "edit", val: edit };
}

/** Whether HTTP allows it as the value of a header: no control characters but the tab. */
export function isHeaderValue(text) {
  return !/[\0-\x08\x0a-\x1f\x7f]/.test(text);
}

/** Text as UTF-8. */
export function bytes(text) {
  const octets = unescape(encodeURIComponent(text.toWellFormed()));
  return Uint8Array.from(octets, (octet) => octet.charCodeAt(0));
}

/** The text of bytes, each as one character: right for ASCII, and for what is only compared. */
export function text(octets) {
  return Array.from(octets, (octet) => String.fromCharCode(octet)).join("");
}
