// Searching and replacing in bytes, which need not be text. Nothing is done byte by byte in JavaScript: QuickJS would take
// long for it.

/** The body after all rules, or the same array where none of them finds anything. */
export function rewrite(body, rules) {
  for (const { kind, what, put } of rules) {
    const places = kind === "replace" ? all(body, what) : all(body, what, 1);
    if (places.length === 0) {
      continue;
    }
    const skipped = kind === "before" ? 0 : what.length;
    const kept = kind === "replace" ? 0 : skipped;
    body = spliced(body, places, kept, skipped, put);
  }
  return body;
}

/** Where `what` is in the body, from left to right, without overlap. */
function all(body, what, atMost = Infinity) {
  const places = [];
  let at = find(body, what, 0);
  while (at !== -1 && places.length < atMost) {
    places.push(at);
    at = find(body, what, at + what.length);
  }
  return places;
}

function find(body, what, from) {
  const last = body.length - what.length;
  for (let at = body.indexOf(what[0], from); at !== -1 && at <= last; at = body.indexOf(what[0], at + 1)) {
    let same = 1;
    while (same < what.length && body[at + same] === what[same]) {
      same++;
    }
    if (same === what.length) {
      return at;
    }
  }
  return -1;
}

/** At each place the first `kept` bytes stay, then comes `put`, and the body goes on `skipped` bytes behind the place. */
function spliced(body, places, kept, skipped, put) {
  const result = new Uint8Array(body.length + places.length * (kept + put.length - skipped));
  let from = 0;
  let into = 0;
  const copy = (part) => {
    result.set(part, into);
    into += part.length;
  };
  for (const place of places) {
    copy(body.subarray(from, place + kept));
    copy(put);
    from = place + skipped;
  }
  copy(body.subarray(from));
  return result;
}
