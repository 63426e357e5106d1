// What makes a plugin in JavaScript short: the records of wit/weir-plugin.wit with their defaults filled in, and text
// and bytes, since QuickJS has no TextEncoder.

/** What `describe` answers, for a plugin that asks for no files, addresses or variables. */
export function about(name, version, summary, schema) {
  const configSchema = JSON.stringify(schema);
  return { name, version, summary, configSchema, files: [], urls: [], variables: [], origins: [], guards: false };
}

/** Nothing to call and nothing to do, but for what `wishes` say: `{phases: {request: true}, requestEdits: [always(remove("x-user"))]}`. */
export function plan(wishes) {
  return {
    phases: { request: false, response: false, ...wishes.phases },
    requestEdits: wishes.requestEdits ?? [],
    responseEdits: wishes.responseEdits ?? [],
    requestHeaders: wishes.requestHeaders ?? [],
    responseHeaders: wishes.responseHeaders ?? [],
    requestBody: wishes.requestBody ?? { tag: "none" },
    responseBody: wishes.responseBody ?? { tag: "none" },
  };
}

/** One change to headers. The name is lower case, the value text or bytes. */
export const set = (name, value) => ({ tag: "set", val: [name, octetsOf(value)] });
export const append = (name, value) => ({ tag: "append", val: [name, octetsOf(value)] });
export const remove = (name) => ({ tag: "remove", val: name });

/** For a plan: a change that the host makes by itself, whatever the client came by. */
export const always = (edit) => ({ edit, on: "any" });

/** For `throw` in `init`. Lower case, no full stop, and what to write instead; it reads after "failed to". */
export function invalidConfig(message) {
  return { kind: "invalid-config", message, retryAfterMs: null };
}

/** The message goes on as it is. */
export const pass = { tag: "pass" };

/** The request goes on with these headers set, and with what `more` says: `{delayMs: 100}`. Names are lower case. */
export function editRequest(headers, more = {}) {
  const none = { method: null, authority: null, pathWithQuery: null, body: null, filter: null, delayMs: 0 };
  return { tag: "edit", val: { ...none, headers: setAll(headers), ...more } };
}

/** The response goes on with these headers set, and with what `more` says: `{status: 404, filter: new Uint8Array()}`. */
export function editResponse(headers, more = {}) {
  return { tag: "edit", val: { status: null, body: null, filter: null, headers: setAll(headers), ...more } };
}

/** An answer in place of the server's. The body is text or bytes. */
export function reply(status, headers, body) {
  return { tag: "reply", val: { status, headers: lines(headers), body: octetsOf(body) } };
}

/** For `send` of `weir:plugin/fetch`: an answer of at most 64 KiB within the usual time, but for what `more` says. */
export function fetchRequest(method, url, headers = {}, more = {}) {
  return { method, url, headers: lines(headers), body: new Uint8Array(), timeoutMs: 0, maxBody: 65536, tls: null, ...more };
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
  let characters = "";
  for (let at = 0; at < octets.length; at += 4096) {
    characters += String.fromCharCode(...octets.subarray(at, at + 4096));
  }
  return characters;
}

/** The text of bytes that are UTF-8. What is none throws a URIError. */
export function utf8(octets) {
  return decodeURIComponent(escape(text(octets)));
}

const lines = (headers) => Object.entries(headers).map(([name, value]) => [name, octetsOf(value)]);

const setAll = (headers) => Object.entries(headers).map(([name, value]) => set(name, value));

const octetsOf = (value) => (typeof value === "string" ? bytes(value) : value);
