//! The rows: what a server sends, and what must come of it.

/// One exchange.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Where it is written, or whose lesson it is.
    pub(super) section: &'static str,
    pub(super) method: &'static str,
    pub(super) answer: Vec<u8>,
    /// The server ends the connection after its answer.
    pub(super) closes: bool,
    pub(super) outcome: Outcome,
    /// Whole lines that the client gets.
    pub(super) has: &'static [&'static str],
    /// Names of fields that it does not get, in lower case.
    pub(super) lacks: &'static [&'static str],
}

#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// The proxy answers 502 itself, and ends the connection to the server.
    Refused,
    /// The answer goes to the client with this status and body, and the connection is used again.
    Passes(u16, &'static str),
    /// The same, but the connection is not used again.
    Once(u16, &'static str),
    /// The client sees an answer that breaks off.
    Cut,
}

use Outcome::{Cut, Once, Passes, Refused};

pub(super) fn all() -> Vec<Row> {
    [status_lines(), fields(), lengths(), codings(), chunks(), interim(), bodies(), leftovers(), hop_by_hop(), limits()]
        .concat()
}

fn row(name: &'static str, section: &'static str, answer: impl AsRef<[u8]>, outcome: Outcome) -> Row {
    let answer = answer.as_ref().to_vec();
    Row { name, section, method: "GET", answer, closes: false, outcome, has: &[], lacks: &[] }
}

impl Row {
    fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn closes(self) -> Self {
        Self { closes: true, ..self }
    }

    fn has(self, has: &'static [&'static str]) -> Self {
        Self { has, ..self }
    }

    fn lacks(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }
}

fn status_lines() -> Vec<Row> {
    const STATUS_LINE: &str = "RFC 9112, 4";
    let refused =
        |name, line: &[u8]| row(name, STATUS_LINE, [line, b"\r\nContent-Length: 2\r\n\r\nok"].concat(), Refused);
    vec![
        row("a good answer", STATUS_LINE, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Passes(200, "ok")),
        row("no reason phrase", STATUS_LINE, "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Passes(200, "ok")),
        row("a reason of its own", STATUS_LINE, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Passes(200, "ok")),
        refused("two digits", b"HTTP/1.1 20 OK"),
        refused("four digits", b"HTTP/1.1 2000 OK"),
        refused("a letter in the status", b"HTTP/1.1 2x0 OK"),
        refused("a sign in the status", b"HTTP/1.1 +20 OK"),
        refused("a status below 100", b"HTTP/1.1 099 Odd"),
        refused("status zero", b"HTTP/1.1 000 Odd"),
        refused("no status", b"HTTP/1.1"),
        refused("no status but a space", b"HTTP/1.1 "),
        refused("HTTP/2.0 in text", b"HTTP/2.0 200 OK"),
        refused("HTTP/1.2", b"HTTP/1.2 200 OK"),
        refused("HTTP/0.9 in a status line", b"HTTP/0.9 200 OK"),
        refused("lower case", b"http/1.1 200 OK"),
        refused("another protocol", b"ICY 200 OK"),
        refused("no space after the version", b"HTTP/1.1200 OK"),
        refused("two spaces after the version", b"HTTP/1.1  200 OK"),
        refused("a tab after the version", b"HTTP/1.1\t200 OK"),
        refused("a space before the version", b" HTTP/1.1 200 OK"),
        refused("NUL in the reason", b"HTTP/1.1 200 O\0K"),
        refused("a bare CR in the reason", b"HTTP/1.1 200 O\rK"),
        refused("a request instead of an answer", b"GET / HTTP/1.1"),
        row("HTTP/0.9", "RFC 9112, appendix C.1", "hello", Refused).closes(),
        row("nothing", "RFC 9112, 8", "", Refused).closes(),
        row("half a status line", "RFC 9112, 8", "HTTP/1.1 20", Refused).closes(),
        row("half a head", "RFC 9112, 8", "HTTP/1.1 200 OK\r\nContent-Le", Refused).closes(),
        row("a greeting of another protocol", STATUS_LINE, "220 mail.example ESMTP\r\n\r\n", Refused),
        row("a record of TLS", STATUS_LINE, b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n", Refused),
        row("frames of HTTP/2", "RFC 9113, 3.4", b"\0\0\0\x04\0\0\0\0\0\r\n\r\n", Refused),
        row("bytes without sense", STATUS_LINE, b"\xff\xfe\xfd\xfc\r\n\r\n", Refused),
    ]
}

fn fields() -> Vec<Row> {
    const FIELDS: &str = "RFC 9112, 5";
    let refused = |name, section, line: &[u8]| {
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", line, b"\r\n\r\nok"].concat();
        row(name, section, answer, Refused)
    };
    vec![
        refused("a bare CR in a value", "RFC 9112, 2.2", b"X-A: a\rX-B: b"),
        refused("NUL in a value", "RFC 9110, 5.5", b"X-A: a\0b"),
        refused("NUL in a name", "RFC 9110, 5.1", b"X-\0A: a"),
        refused("a control character in a value", "RFC 9110, 5.5", b"X-A: a\x01b"),
        refused("a space before the colon", "RFC 9112, 5.1", b"X-A : a"),
        refused("a tab before the colon", "RFC 9112, 5.1", b"X-A\t: a"),
        refused("a name with a space", FIELDS, b"X A: a"),
        refused("an empty name", FIELDS, b": a"),
        refused("a line without a colon", FIELDS, b"X-A"),
        refused("a name in quotes", FIELDS, b"\"X-A\": a"),
        refused("a name with high bytes", FIELDS, b"X-\xc3\xa4: a"),
        refused("a folded line", "RFC 9112, 5.2", b"X-A: a\r\n b"),
        refused("a line folded with a tab", "RFC 9112, 5.2", b"X-A: a\r\n\tb"),
        refused("a fold that hides a length", "RFC 9112, 5.2", b"X-A: a\r\n Content-Length: 9"),
        row(
            "a space before the first field",
            FIELDS,
            "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok",
            Refused,
        ),
        row(
            "lines that end in LF",
            "RFC 9112, 2.2",
            "HTTP/1.1 200 OK\nX-A: a\nContent-Length: 2\n\nok",
            Passes(200, "ok"),
        )
        .has(&["x-a: a"]),
        row(
            "cookies stay apart",
            "RFC 6265, 3",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT\r\nSet-Cookie: b=2\r\n\
             Content-Length: 2\r\n\r\nok",
            Passes(200, "ok"),
        )
        .has(&["Set-Cookie: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT", "Set-Cookie: b=2"]),
    ]
}

fn lengths() -> Vec<Row> {
    const LENGTH: &str = "RFC 9112, 6.3";
    let with = |name, lines: &str, outcome| row(name, LENGTH, format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nok"), outcome);
    vec![
        with("two lengths", "Content-Length: 2\r\nContent-Length: 3", Refused),
        with("two lengths in a list", "Content-Length: 2, 3", Refused),
        with("the same length twice", "Content-Length: 2\r\nContent-Length: 2", Passes(200, "ok")),
        with("the same length twice in a list", "Content-Length: 2, 2", Passes(200, "ok")).has(&["content-length: 2"]),
        with("a length with zeros before it", "Content-Length: 002", Passes(200, "ok")).has(&["content-length: 2"]),
        with("an empty length", "Content-Length:", Refused),
        with("a length with a plus", "Content-Length: +2", Refused),
        with("a length below zero", "Content-Length: -2", Refused),
        with("a length in hexadecimal", "Content-Length: 0x2", Refused),
        with("a length with a fraction", "Content-Length: 2.0", Refused),
        with("a length and a word", "Content-Length: 2 bytes", Refused),
        with("a length and an empty element", "Content-Length: 2,", Refused),
        with("a length past 64 bits", "Content-Length: 18446744073709551618", Refused),
        with("length and coding", "Content-Length: 2\r\nTransfer-Encoding: chunked", Refused),
        row(
            "length and coding for HEAD",
            LENGTH,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refused,
        )
        .to("HEAD"),
        row(
            "two lengths for HEAD",
            LENGTH,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            Refused,
        )
        .to("HEAD"),
        row("a length that is none for HEAD", LENGTH, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Refused)
            .to("HEAD"),
    ]
}

fn codings() -> Vec<Row> {
    const CODING: &str = "RFC 9112, 6.1";
    let with = |name, lines: &str, outcome| {
        row(name, CODING, format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n"), outcome)
    };
    vec![
        with("chunked", "Transfer-Encoding: chunked", Passes(200, "ok")),
        with("chunked in capitals", "Transfer-Encoding: CHUNKED", Passes(200, "ok")),
        with("chunked twice", "Transfer-Encoding: chunked, chunked", Refused),
        with("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refused),
        with("chunked first", "Transfer-Encoding: chunked, gzip", Refused),
        with("gzip below chunked", "Transfer-Encoding: gzip, chunked", Refused),
        with("identity", "Transfer-Encoding: identity", Refused),
        with("another word", "Transfer-Encoding: xchunked", Refused),
        with("an empty coding", "Transfer-Encoding:", Refused),
        with("an element that is empty", "Transfer-Encoding: , chunked", Refused),
        with("a parameter", "Transfer-Encoding: chunked;q=1", Refused),
        with("quotes", "Transfer-Encoding: \"chunked\"", Refused),
        row(
            "chunked in HTTP/1.0",
            CODING,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Refused,
        )
        .closes(),
    ]
}

fn chunks() -> Vec<Row> {
    const CHUNKS: &str = "RFC 9112, 7.1";
    let of = |name, chunks: &[u8], outcome| {
        let answer = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks].concat();
        row(name, CHUNKS, answer, outcome)
    };
    vec![
        of("an extension", b"2;a=b\r\nok\r\n0\r\n\r\n", Passes(200, "ok")),
        of("a size that is no number", b"zz\r\nok\r\n0\r\n\r\n", Cut),
        of("an empty size", b"\r\nok\r\n0\r\n\r\n", Cut),
        of("a size with a sign", b"+2\r\nok\r\n0\r\n\r\n", Cut),
        of("a size below zero", b"-2\r\nok\r\n0\r\n\r\n", Cut),
        of("a size with 0x", b"0x2\r\nok\r\n0\r\n\r\n", Cut),
        of("a size past 64 bits", b"10000000000000002\r\nok\r\n0\r\n\r\n", Cut),
        of("no line after a chunk", b"2\r\nok0\r\n\r\n", Cut),
        of("a chunk longer than its size", b"2\r\nokay\r\n0\r\n\r\n", Cut),
        of("no last chunk", b"2\r\nok\r\n", Cut).closes(),
        of("half a chunk", b"5\r\nok", Cut).closes(),
        of("no line at the end", b"2\r\nok\r\n0\r\n", Cut).closes(),
        of("a bad trailer", b"2\r\nok\r\n0\r\nX A: 1\r\n\r\n", Cut),
        of("trailers that nobody announced", b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", Passes(200, "ok")).lacks(&["x-sum"]),
    ]
}

fn interim() -> Vec<Row> {
    const INTERIM: &str = "RFC 9110, 15.2";
    let before = |name, interim: &str, outcome| {
        row(name, INTERIM, format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), outcome)
    };
    let switched = |name, fields: &str| {
        row(name, "RFC 9110, 15.2.2", format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nsecret"), Refused)
    };
    vec![
        before("100 before the answer", "HTTP/1.1 100 Continue\r\n\r\n", Passes(200, "ok")),
        before("102 before the answer", "HTTP/1.1 102 Processing\r\n\r\n", Passes(200, "ok")),
        before("103 before the answer", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Passes(200, "ok"))
            .lacks(&["link"]),
        before("an unknown one", "HTTP/1.1 199 Odd\r\n\r\n", Passes(200, "ok")),
        before(
            "an interim answer with a length",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
            Passes(200, "ok"),
        )
        .has(&["content-length: 2"]),
        before("many of them", &"HTTP/1.1 102 Processing\r\n\r\n".repeat(100), Passes(200, "ok")),
        row("no end of them", INTERIM, "HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000), Refused),
        row("only an interim answer", INTERIM, "HTTP/1.1 100 Continue\r\n\r\n", Refused).closes(),
        switched("101 that nobody asked for", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        switched("101 to h2c", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        switched("101 without fields", ""),
        switched("101 with a length", "Content-Length: 6\r\n"),
    ]
}

fn bodies() -> Vec<Row> {
    let no_body = "RFC 9110, 6.4.1";
    vec![
        row("204", "RFC 9110, 15.3.5", "HTTP/1.1 204 No Content\r\n\r\n", Passes(204, "")).lacks(&["content-length"]),
        row(
            "204 with a length",
            "RFC 9110, 8.6",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Passes(204, ""),
        )
        .lacks(&["content-length"]),
        row("204 with a body", no_body, "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", Once(204, ""))
            .lacks(&["content-length"]),
        row("304", "RFC 9110, 15.4.5", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", Passes(304, "")),
        row("304 with a body", no_body, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", Once(304, "")),
        row("HEAD", "RFC 9110, 9.3.2", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Passes(200, ""))
            .to("HEAD")
            .has(&["content-length: 2"]),
        row("HEAD with a body", no_body, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Once(200, "")).to("HEAD"),
        row(
            "204 with chunks",
            no_body,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Once(204, ""),
        )
        .lacks(&["transfer-encoding"]),
        row("a short body", "RFC 9112, 8", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Cut).closes(),
        row("a body to the end", "RFC 9112, 6.3", "HTTP/1.1 200 OK\r\n\r\nok", Once(200, "ok")).closes(),
        row("HTTP/1.0", "RFC 9112, 9.3", "HTTP/1.0 200 OK\r\n\r\nok", Once(200, "ok")).closes(),
        row(
            "HTTP/1.0 with a length",
            "RFC 9112, 9.3",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Once(200, "ok"),
        ),
        row(
            "the server wants to close",
            "RFC 9112, 9.6",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            Once(200, "ok"),
        ),
        row(
            "the server wants to close, and not",
            "RFC 9112, 9.6",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            Once(200, "ok"),
        ),
        row("a redirect without a body", "RFC 9112, 6.3", "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Once(302, ""))
            .closes(),
    ]
}

/// Bytes after an answer would be the answer to somebody else's request (CVE-2026-71324).
fn leftovers() -> Vec<Row> {
    const UNREAD: &str = "RFC 9112, 9.2";
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    vec![
        row("a second answer", UNREAD, format!("{good}{}", good.replace("ok", "no")), Once(200, "ok")),
        row("more than the length", UNREAD, format!("{good}ay"), Once(200, "ok")),
        row("an empty line", UNREAD, format!("{good}\r\n"), Once(200, "ok")),
        row(
            "a second answer after chunks",
            UNREAD,
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{good}"),
            Once(200, "ok"),
        ),
        row("a second answer after none", UNREAD, format!("HTTP/1.1 204 No Content\r\n\r\n{good}"), Once(204, "")),
        row(
            "408 after the answer",
            UNREAD,
            format!("{good}HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n"),
            Once(200, "ok"),
        )
        .closes(),
    ]
}

fn hop_by_hop() -> Vec<Row> {
    const HOP: &str = "RFC 9110, 7.6.1";
    let with = |name, lines: &str| {
        let lines = lines.replace('\n', "\r\n");
        row(name, HOP, format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 2\r\n\r\nok"), Passes(200, "ok"))
    };
    vec![
        with("Keep-Alive", "Keep-Alive: timeout=5\nConnection: keep-alive").lacks(&["keep-alive", "connection"]),
        with("Proxy-Connection", "Proxy-Connection: close").lacks(&["proxy-connection"]),
        with("Proxy-Authenticate", "Proxy-Authenticate: Basic").lacks(&["proxy-authenticate"]),
        with("TE", "TE: trailers").lacks(&["te"]),
        with("Upgrade", "Upgrade: h2c\nConnection: Upgrade").lacks(&["upgrade", "connection"]),
        with("a named field", "Connection: X-Private\nX-Private: 1").lacks(&["x-private"]),
        with("named in capitals", "CONNECTION: X-PRIVATE\nx-private: 1").lacks(&["x-private"]),
        with("named twice", "Connection: X-A,X-A\nX-A: 1\nX-A: 2").lacks(&["x-a"]),
        with("named on another line", "Connection: keep-alive\nX-A: 1\nConnection: X-A").lacks(&["x-a"]),
        with("named among empty elements", "Connection: ,, X-A ,\t,\nX-A: 1").lacks(&["x-a"]),
        with("named, and no name", "Connection: X A, X-A\nX-A: 1").lacks(&["x-a"]),
        with("a name of ours", "Connection: X-Forwarded-Host\nX-Forwarded-Host: a").lacks(&["x-forwarded-host"]),
        with("the length is named", "Connection: Content-Length").has(&["content-length: 2"]),
    ]
}

fn limits() -> Vec<Row> {
    const LIMITS: &str = "RFC 9110, 5.4";
    let of = |name, lines: String, outcome| {
        row(name, LIMITS, format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok"), outcome)
    };
    vec![
        of("many fields", "X-A: 1\r\n".repeat(90), Passes(200, "ok")),
        of("too many fields", "X-A: 1\r\n".repeat(1000), Refused),
        of("a long field", format!("X-A: {}\r\n", "a".repeat(100_000)), Passes(200, "ok")),
        of("a field without an end", format!("X-A: {}\r\n", "a".repeat(1_000_000)), Refused),
        row("a reason without an end", LIMITS, format!("HTTP/1.1 200 {}", "a".repeat(1_000_000)), Refused),
        row("nothing but empty lines", LIMITS, "\r\n".repeat(1_000_000), Refused),
    ]
}
