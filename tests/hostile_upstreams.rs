//! Answers that no server should give, byte for byte: what the client gets, and what becomes of the server's connection.
//!
//! Each row is one exchange with a server that sends what the row says. A second request on the client's connection, if
//! that is still open, must get its own answer: nothing of the first may be left over.

mod http2;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use self::rows::{Outcome, Row};
use crate::support::backend::Backend;
use crate::support::client::{connect, raw};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, read_head, route, soon, with_services};

/// What the server got after its answer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fate {
    /// Requests on the first connection.
    requests: usize,
    /// The first connection has ended.
    ended: bool,
}

type Shared = Arc<Mutex<Fate>>;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_one_meaning() {
    let rows = rows::all();
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut exchanges = Vec::new();
    for row in rows {
        let fate = Shared::default();
        let backend = serve(row.clone(), Arc::clone(&fate)).await;
        exchanges.push((row, fate, backend));
    }
    let services: Vec<(String, String)> =
        exchanges.iter().enumerate().map(|(number, (.., backend))| (format!("r{number}"), backend.url())).collect();
    let routers: String = services
        .iter()
        .map(|(name, _)| format!("    {name}: {{rule: \"Host(`{name}.example`)\", service: {name}}}\n"))
        .collect();
    let services: Vec<(&str, String)> = services.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &with_services(&routers, &services))]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    let mut failures = Vec::new();
    for (number, (row, fate, _backend)) in exchanges.into_iter().enumerate() {
        let (name, section) = (row.name, row.section);
        let client = Client { stream: connect(proxy.address("web")).await, host: format!("r{number}.example") };
        let local = LocalSet::new();
        let exchange = local.spawn_local(holds(row, fate, client));
        if let Err(error) = local.run_until(exchange).await {
            failures.push(format!("{name} ({section}): {error}"));
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

/// A connection of a client to the proxy.
struct Client {
    stream: TcpStream,
    host: String,
}

async fn holds(row: Row, fate: Shared, mut client: Client) {
    let answer = client.exchange(row.method, "/first").await;
    let seen = || fate.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(seen().requests, 1, "the request arrives once");
    match row.outcome {
        Outcome::Refused => {
            let answer = answer.expect("an answer");
            let body = if row.method == "HEAD" { "" } else { "Bad Gateway" };
            assert_eq!((answer.status, answer.body.as_str()), (502, body));
        }
        Outcome::Passes(status, body) | Outcome::Once(status, body) => {
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, answer.body.as_str()), (status, body), "{}", answer.head);
            let lines: Vec<String> = answer.head.lines().map(str::to_lowercase).collect();
            for field in row.has {
                assert!(lines.contains(&field.to_lowercase()), "`{field}` is not in {}", answer.head);
            }
            for name in row.lacks {
                assert!(!lines.iter().any(|line| line.starts_with(&format!("{name}:"))), "`{name}` in {}", answer.head);
            }
        }
        Outcome::Cut => {
            assert!(answer.is_err(), "the client must see that something is missing: {answer:?}");
        }
    }
    if matches!(row.outcome, Outcome::Cut) {
        drop(client);
    } else {
        let expected = if matches!(row.outcome, Outcome::Passes(..)) { "used again" } else { "a new one" };
        let again = client.exchange("GET", "/again").await.expect("an answer of its own");
        assert_eq!((again.status, again.body.as_str()), (200, expected));
    }
    if !matches!(row.outcome, Outcome::Passes(..)) {
        eventually("the end of the server's connection", async || seen().ended).await;
        assert_eq!(seen().requests, 1);
    }
}

/// Gives the row's answer on the first connection, and plain ones on others.
async fn serve(row: Row, fate: Shared) -> Backend {
    Backend::raw(move |mut stream, number| {
        let (row, fate) = (row.clone(), Arc::clone(&fate));
        async move {
            if number > 1 {
                while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                    drop(stream.write_all(&plain("a new one")).await);
                }
                return;
            }
            let update = |change: fn(&mut Fate)| change(&mut fate.lock().unwrap_or_else(PoisonError::into_inner));
            read_head(&mut stream).await;
            update(|fate| fate.requests += 1);
            drop(stream.write_all(&row.answer).await);
            if row.closes {
                drop(stream.shutdown().await);
            }
            while read_head_or_end(&mut stream).await {
                update(|fate| fate.requests += 1);
                drop(stream.write_all(&plain("used again")).await);
            }
            update(|fate| fate.ended = true);
        }
    })
    .await
}

fn plain(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

/// Whether a request has come, however long it takes.
async fn read_head_or_end(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// An answer as a strict client understands it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Client {
    async fn exchange(&mut self, method: &str, path: &str) -> Result<Answer, String> {
        let client = &mut self.stream;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        client.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let head = read_text_head(client).await?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no status line: {head}"))?;
        let values = |name: &str| -> Vec<String> {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
        };
        let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            _ if method == "HEAD" || status == 204 || status == 304 => Vec::new(),
            ([length], []) => read_exactly(client, length.parse().map_err(|_| format!("a length: {length}"))?).await?,
            ([], [coding]) if coding == "chunked" => read_chunks(client).await?,
            framing => return Err(format!("framed twice or not at all: {framing:?}")),
        };
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

async fn read_text_head(client: &mut TcpStream) -> Result<String, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(client, 1).await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn read_exactly(client: &mut TcpStream, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; length];
    soon("the rest of an answer", client.read_exact(&mut bytes)).await.map_err(|error| error.to_string())?;
    Ok(bytes)
}

async fn read_chunks(client: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let size = read_line(client).await?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| format!("a chunk's size: {size}"))?;
        body.extend(read_exactly(client, size).await?);
        if size > 0 {
            read_line(client).await?;
            continue;
        }
        while !read_line(client).await?.is_empty() {}
        return Ok(body);
    }
}

async fn read_line(client: &mut TcpStream) -> Result<String, String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(read_exactly(client, 1).await?);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(|error| error.to_string())
}

/// A server that answers before it has read the request leaves a connection in doubt, on which somebody else's request
/// would wait for the rest of this one.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_request() {
    let backend = Backend::raw(async |mut stream, number| {
        while read_head_or_end(&mut stream).await {
            drop(stream.write_all(&plain(&number.to_string())).await);
        }
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut slow = connect(proxy.address("web")).await;
    slow.write_all(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\nhello").await.expect("a proxy");
    let head = read_text_head(&mut slow).await.expect("an early answer");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for _ in 0..8 {
        let stream = connect(proxy.address("web")).await;
        let answer = Client { stream, host: "a.example".to_owned() }.exchange("GET", "/").await.expect("an answer");
        assert_ne!((answer.status, answer.body.as_str()), (200, "1"));
    }
}

/// The trailers of both directions go on, but for what only a head may say.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_say_nothing_that_belongs_in_a_head() {
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Set-Cookie, Content-Length, Connection\r\n\
                  Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=1\r\n\
                  Content-Length: 9\r\nConnection: X-Sum\r\n\r\n";
    let backend = Backend::raw(async |mut stream, _| {
        read_head(&mut stream).await;
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
    let answer = raw(proxy.address("web"), request).await;
    let (_, trailers) = answer.split_once("\r\n0\r\n").expect("chunks");
    assert_eq!(trailers, "X-Sum: 1\r\n\r\n", "{answer}");
}

/// Only what is TLS goes to a server with TLS, and nothing comes from one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_clear_text_answer_before_the_handshake() {
    let backend = Backend::raw(async |mut stream, _| {
        drop(stream.write_all(&plain("not from the server")).await);
        let mut hello = Vec::new();
        drop(stream.read_to_end(&mut hello).await);
        assert!(!String::from_utf8_lossy(&hello).contains("GET"), "nothing is sent in clear text");
    })
    .await;
    for options in ["{}", "{insecureSkipVerify: true}"] {
        let text = route("a", &backend.url().replace("http:", "https:"))
            .replace("{loadBalancer: {", "{loadBalancer: {serversTransport: t, ")
            + &format!("  serversTransports: {{t: {options}}}\n");
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
        assert_eq!(proxy.get("http://a.example/").await.said(), (502, "Bad Gateway"), "{options}");
    }
}
