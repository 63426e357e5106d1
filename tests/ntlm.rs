//! Logins that hold for a connection (NTLM, Negotiate): nobody may ever be taken for somebody else.
//!
//! The server here names, in each answer, the user of the connection and the connection's number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::certificates::Identity;
use crate::support::client::{Client, Reply, connect, with_body};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::websocket::WebSocket;
use crate::support::{empty, eventually, full, read_head, route, soon, with_services};

const URL: &str = "http://a.example/";

/// A server that authenticates connections.
struct Domain {
    backend: Backend,
    log: Log,
}

#[derive(Clone, Default)]
struct Log {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    ended: Arc<Mutex<Vec<usize>>>,
}

/// A request: on which connection, from whom, with which credentials.
#[derive(Clone, Debug, PartialEq)]
struct Arrived {
    connection: usize,
    client: String,
    credentials: String,
}

/// What a connection has proved so far.
enum Login {
    Nobody,
    /// It was given the server's half of NTLM's handshake.
    Challenged,
    User(String),
}

impl Domain {
    async fn start() -> Self {
        let log = Log::default();
        let kept = log.clone();
        let backend = Backend::raw(move |stream, number| {
            let log = log.clone();
            async move {
                serve(stream, number, &log).await;
                log.ended.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
        });
        Self { backend: backend.await, log: kept }
    }

    async fn behind_proxy() -> (Self, Proxy) {
        let domain = Self::start().await;
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &domain.backend.url()))]).await;
        (domain, proxy)
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.log.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_ended(&self, connection: usize) -> bool {
        self.log.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(&connection)
    }

    /// Each connection with a login must have had one client, from its first credentials on.
    fn assert_nobody_shared(&self) {
        let mut owners = HashMap::<usize, String>::new();
        for Arrived { connection, client, credentials } in self.arrived() {
            let owner = owners.get(&connection).cloned();
            assert!(owner.as_ref().is_none_or(|owner| *owner == client), "{client} came on {owner:?}'s {connection}");
            if !credentials.is_empty() {
                owners.insert(connection, client);
            }
        }
    }
}

async fn serve(mut stream: TcpStream, number: usize, log: &Log) {
    let mut login = Login::Nobody;
    loop {
        let head = read_head(&mut stream).await;
        if head.is_empty() {
            return;
        }
        let length = field(&head, "content-length").parse().unwrap_or(0);
        let mut body = vec![0; length];
        soon("a body", stream.read_exact(&mut body)).await.expect("a whole body");
        let credentials = field(&head, "authorization").to_owned();
        let client = field(&head, "x-client").to_owned();
        let arrived = Arrived { connection: number, client, credentials: credentials.clone() };
        log.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
        login = login.after(&credentials);
        if field(&head, "x-server") == "hangs up" {
            return;
        }
        let answer = match &login {
            Login::User(user) if field(&head, "upgrade") == "websocket" => {
                return socket(stream, &format!("{user} on {number}")).await;
            }
            Login::User(user) => answer("200 OK", "Persistent-Auth: true\r\n", &format!("{user} on {number}")),
            Login::Challenged => answer("401 Unauthorized", "WWW-Authenticate: NTLM TYPE2\r\n", "prove it"),
            Login::Nobody => {
                let schemes = "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n";
                answer("401 Unauthorized", schemes, &format!("who on {number}"))
            }
        };
        drop(stream.write_all(answer.as_bytes()).await);
    }
}

impl Login {
    fn after(self, credentials: &str) -> Self {
        match (credentials, self) {
            ("", Self::User(user)) => Self::User(user),
            ("NTLM TYPE1", _) => Self::Challenged,
            (proof, Self::Challenged) if proof.starts_with("NTLM TYPE3 ") => Self::User(proof[11..].to_owned()),
            (token, _) if token.starts_with("Negotiate ") => Self::User(token[10..].to_owned()),
            _ => Self::Nobody,
        }
    }
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

async fn socket(stream: TcpStream, greeting: &str) {
    let mut socket = WebSocket::agree(stream).await;
    socket.send(greeting).await;
    while let Some(text) = socket.receive().await {
        socket.send(&text).await;
    }
}

/// Of a head, without regard to case; empty if it is not there.
fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
}

/// Somebody with a connection of their own.
struct Person {
    name: &'static str,
    client: Client,
}

impl Person {
    async fn on(proxy: &Proxy, name: &'static str) -> Self {
        Self { name, client: proxy.client("web").await }
    }

    fn request(&self, credentials: &str) -> http::request::Builder {
        let request = Request::get(URL).header("x-client", self.name);
        if credentials.is_empty() { request } else { request.header("authorization", credentials) }
    }

    async fn asks(&mut self) -> Reply {
        self.client.send(self.request("")).await
    }

    async fn asks_with(&mut self, credentials: &str) -> Reply {
        self.client.send(self.request(credentials)).await
    }

    /// The handshake of NTLM; answers with the number of the connection.
    async fn logs_in(&mut self) -> usize {
        let first = self.asks_with("NTLM TYPE1").await;
        assert_eq!((first.status, first.header("www-authenticate")), (401, "NTLM TYPE2"), "{}", self.name);
        let proof = format!("NTLM TYPE3 {}", self.name);
        let reply = self.asks_with(&proof).await;
        self.is_known_in(&reply)
    }

    /// Whom the server takes it for must be this person.
    fn is_known_in(&self, reply: &Reply) -> usize {
        let (user, connection) = reply.text().split_once(" on ").expect("a user and a connection");
        assert_eq!((reply.status, user), (200, self.name));
        connection.parse().expect("a number")
    }
}

/// Answers with the number of the connection.
fn is_anonymous(reply: &Reply) -> usize {
    assert_eq!(reply.status, 401, "{reply:?}");
    assert!(reply.headers.get_all("www-authenticate").iter().eq(["Negotiate", "NTLM"]), "{reply:?}");
    reply.text().trim_start_matches("who on ").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_holds_for_its_client_alone() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = Person::on(&proxy, "alice").await;
    let mut bob = Person::on(&proxy, "bob").await;
    let asked = is_anonymous(&alice.asks().await);
    is_anonymous(&bob.asks().await);
    let of_alice = alice.logs_in().await;
    assert_eq!(of_alice, asked, "the connection that was challenged is the one to go on with");
    is_anonymous(&bob.asks().await);
    is_anonymous(&Person::on(&proxy, "carol").await.asks().await);
    let of_bob = bob.logs_in().await;
    for _ in 0..3 {
        let reply = alice.asks().await;
        assert_eq!(alice.is_known_in(&reply), of_alice);
        assert_eq!(reply.header("persistent-auth"), "true");
        let reply = bob.asks().await;
        assert_eq!(bob.is_known_in(&reply), of_bob);
    }
    is_anonymous(&Person::on(&proxy, "dave").await.asks().await);
    domain.assert_nobody_shared();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_first_request() {
    for credentials in ["Negotiate alice", "negotiate alice", "NTLM TYPE1"] {
        let (domain, proxy) = Domain::behind_proxy().await;
        let idle = is_anonymous(&Person::on(&proxy, "anybody").await.asks().await);
        let mut alice = Person::on(&proxy, "alice").await;
        alice.asks_with(credentials).await;
        let mut bob = Person::on(&proxy, "bob").await;
        is_anonymous(&bob.asks().await);
        drop(alice);
        is_anonymous(&Person::on(&proxy, "carol").await.asks().await);
        domain.assert_nobody_shared();
        let used = domain.arrived().iter().find(|arrived| arrived.client == "alice").map(|arrived| arrived.connection);
        assert_ne!(used, Some(idle), "{credentials}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once() {
    const NAMES: [&str; 8] = ["ann", "ben", "cat", "dan", "eve", "fay", "gus", "hal"];

    let (domain, proxy) = Domain::behind_proxy().await;
    let proxy = Arc::new(proxy);
    let mut people = tokio::task::JoinSet::new();
    for name in NAMES {
        let proxy = Arc::clone(&proxy);
        people.spawn(async move {
            for round in 0..10 {
                let mut person = Person::on(&proxy, name).await;
                if round % 3 == 0 {
                    is_anonymous(&person.asks().await);
                }
                person.logs_in().await;
                for _ in 0..round {
                    let reply = person.asks().await;
                    person.is_known_in(&reply);
                }
            }
        });
    }
    people.join_all().await;
    domain.assert_nobody_shared();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_lives_through_reloads() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = Person::on(&proxy, "alice").await;
    let connection = alice.logs_in().await;
    proxy.write("b.yaml", &route("b", &domain.backend.url()));
    proxy.reload().await;
    let reply = alice.asks().await;
    assert_eq!(alice.is_known_in(&reply), connection);
    is_anonymous(&Person::on(&proxy, "bob").await.asks().await);
    assert_eq!(alice.asks_with("NTLM TYPE1").await.status, 401);
    proxy.folder.remove("routing/b.yaml");
    proxy.reload().await;
    let reply = alice.asks_with("NTLM TYPE3 alice").await;
    assert_eq!(alice.is_known_in(&reply), connection, "a reload in the middle of a handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_means_a_new_login_on_a_new_connection() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut bob = Person::on(&proxy, "bob").await;
    let mut alice = Person::on(&proxy, "alice").await;
    let hangs_up = |person: &Person, credentials| person.request(credentials).header("x-server", "hangs up");
    let lost = alice.logs_in().await;
    let reply = alice.client.send(Request::post(URL).header("x-client", "alice").header("x-server", "hangs up")).await;
    assert_eq!(reply.status, 502);
    let fresh = is_anonymous(&alice.asks().await);
    assert!(fresh > lost, "{fresh}");
    assert_eq!(alice.logs_in().await, fresh);

    // In the middle of a handshake: the proof must not meet a connection that knows nothing of it, or another's.
    let lost = bob.logs_in().await;
    assert_eq!(bob.asks_with("NTLM TYPE1").await.header("www-authenticate"), "NTLM TYPE2");
    assert_eq!(bob.client.send(hangs_up(&bob, "NTLM TYPE1").method("POST")).await.status, 502);
    let fresh = is_anonymous(&bob.asks_with("NTLM TYPE3 bob").await);
    assert!(fresh > lost, "{fresh}");
    assert_eq!(bob.logs_in().await, fresh);
    domain.assert_nobody_shared();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_without_waiting() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = connect(proxy.address("web")).await;
    let request =
        |credentials: &str| format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Client: alice\r\n{credentials}\r\n");
    let all = [
        request("Authorization: NTLM TYPE1\r\n"),
        request("Authorization: NTLM TYPE3 alice\r\n"),
        request(""),
        request("Connection: close\r\n"),
    ];
    alice.write_all(all.concat().as_bytes()).await.expect("the proxy listens");
    let mut answers = String::new();
    soon("four answers", alice.read_to_string(&mut answers)).await.expect("answers in UTF-8");
    assert_eq!(answers.matches("HTTP/1.1 401 ").count(), 1, "{answers}");
    assert_eq!(answers.matches("\r\n\r\nalice on 1").count(), 3, "{answers}");
    domain.assert_nobody_shared();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_connection_ends_with_the_clients() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = Person::on(&proxy, "alice").await;
    let connection = alice.logs_in().await;
    let mut bob = Person::on(&proxy, "bob").await;
    let challenged = is_anonymous(&bob.asks().await);
    assert!(!domain.has_ended(connection) && !domain.has_ended(challenged));
    drop(alice);
    eventually("the end of alice's connection", async || domain.has_ended(connection)).await;
    drop(bob);
    eventually("the end of bob's connection", async || domain.has_ended(challenged)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_stays_with_its_server() {
    let (one, two) = (Domain::start().await, Domain::start().await);
    let servers = format!("[{{url: \"{}\"}}, {{url: \"{}\"}}]", one.backend.url(), two.backend.url());
    let text = route("a", "http://none").replace("[{url: \"http://none\"}]", &servers);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let mut alice = Person::on(&proxy, "alice").await;
    let mut bob = Person::on(&proxy, "bob").await;
    alice.logs_in().await;
    bob.logs_in().await;
    for _ in 0..5 {
        let reply = alice.asks().await;
        alice.is_known_in(&reply);
        let reply = bob.asks().await;
        bob.is_known_in(&reply);
    }
    let met = |domain: &Domain| domain.arrived().iter().map(|arrived| arrived.client.clone()).collect::<Vec<_>>();
    let (of_one, of_two) = (met(&one), met(&two));
    assert!(!of_one.is_empty() && !of_two.is_empty(), "others are still spread: {of_one:?} {of_two:?}");
    assert_ne!(of_one[0], of_two[0]);
    assert!(of_one.iter().all(|client| *client == of_one[0]) && of_two.iter().all(|client| *client == of_two[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_are_two_logins() {
    let (one, two) = (Domain::start().await, Domain::start().await);
    let routers = "
    a: {rule: \"Host(`a.example`) && !PathPrefix(`/two`)\", service: one}
    two: {rule: \"Host(`a.example`) && PathPrefix(`/two`)\", service: two}
";
    let text = with_services(routers, &[("one", one.backend.url()), ("two", two.backend.url())]);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let mut alice = Person::on(&proxy, "alice").await;
    alice.logs_in().await;
    let at_two = Request::get("http://a.example/two").header("x-client", "alice");
    is_anonymous(&alice.client.send(at_two).await);
    let reply = alice.asks().await;
    alice.is_known_in(&reply);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_http2_wait_for_one_another() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = Person { name: "alice", client: Client::h2c(proxy.address("web")).await };
    let mut bob = Person { name: "bob", client: Client::h2c(proxy.address("web")).await };
    let connection = alice.logs_in().await;
    is_anonymous(&bob.asks().await);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut stream = Person { name: "alice", client: alice.client.another() };
        streams.spawn(async move {
            let reply = stream.asks().await;
            stream.is_known_in(&reply)
        });
    }
    assert_eq!(streams.join_all().await, [connection; 20]);
    bob.logs_in().await;
    drop(alice);
    is_anonymous(&Person::on(&proxy, "carol").await.asks().await);
    domain.assert_nobody_shared();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_goes_along_with_a_login() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = Person::on(&proxy, "alice").await;
    let post = |credentials: &str| Request::post(URL).header("x-client", "alice").header("authorization", credentials);
    assert_eq!(alice.client.send_request(with_body(post("NTLM TYPE1"), "")).await.status, 401);
    let body = vec![b'x'; 1 << 20];
    let reply = alice.client.send_request(with_body(post("NTLM TYPE3 alice"), body)).await;
    assert_eq!(alice.is_known_in(&reply), 1);
    domain.assert_nobody_shared();
}

/// The handshake in requests for a websocket, as browsers do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_opened_with_a_login_and_uses_the_connection_up() {
    let (domain, proxy) = Domain::behind_proxy().await;
    let mut alice = connect(proxy.address("web")).await;
    let request = |credentials: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nX-Client: alice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{credentials}\r\n"
        )
    };
    for (credentials, challenge, length) in
        [("", "NTLM\r\n", "who on 1".len()), ("Authorization: NTLM TYPE1\r\n", "NTLM TYPE2\r\n", "prove it".len())]
    {
        alice.write_all(request(credentials).as_bytes()).await.expect("the proxy listens");
        let head = read_head(&mut alice).await;
        assert!(head.starts_with("HTTP/1.1 401 ") && head.contains(challenge), "{head}");
        let mut body = vec![0; length];
        soon("a body", alice.read_exact(&mut body)).await.expect("a whole body");
    }
    alice.write_all(request("Authorization: NTLM TYPE3 alice\r\n").as_bytes()).await.expect("the proxy listens");
    let head = read_head(&mut alice).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut socket = WebSocket::agreed(alice);
    assert_eq!(socket.receive().await.as_deref(), Some("alice on 1"));
    assert_eq!(socket.echo("hello").await.as_deref(), Some("hello"));
    is_anonymous(&Person::on(&proxy, "bob").await.asks().await);
    assert_eq!(domain.arrived().iter().filter(|arrived| arrived.connection == 1).count(), 3);
}

/// Such logins need HTTP/1.1, also where the server offers HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_leaves_http2() {
    let identity = Identity::self_signed(&["localhost"]);
    let backend = Backend::over_tls(&identity, &["h2", "http/1.1"], async |seen| {
        if seen.headers.contains_key("authorization") || seen.version == Version::HTTP_11 {
            return Response::new(full(format!("{:?}", seen.version)));
        }
        Response::builder().status(401).header("www-authenticate", "Negotiate").body(empty()).expect("a good response")
    })
    .await;
    let text = route("a", &backend.url()).replace("{loadBalancer: {", "{loadBalancer: {serversTransport: any, ")
        + "  serversTransports: {any: {insecureSkipVerify: true}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let mut alice = Person::on(&proxy, "alice").await;
    assert_eq!(alice.asks().await.header("www-authenticate"), "Negotiate");
    assert_eq!(backend.last().version, Version::HTTP_2);
    assert_eq!(alice.asks_with("Negotiate alice").await.said(), (200, "HTTP/1.1"));
    assert_eq!(alice.asks().await.said(), (200, "HTTP/1.1"));
    let mut bob = Person::on(&proxy, "bob").await;
    assert_eq!(bob.asks_with("Negotiate bob").await.said(), (200, "HTTP/1.1"));
    assert_eq!(Person::on(&proxy, "carol").await.asks().await.status, 401);
    assert_eq!(backend.last().version, Version::HTTP_2);
}
