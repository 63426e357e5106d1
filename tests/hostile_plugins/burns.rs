//! Guests that take more than they may have: time, memory, stack, room for headers, and what a client sends.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{Hostile, routes};
use crate::support::backend::Backend;
use crate::support::client::{Client, connect, raw};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::Program;
use crate::support::proxy::INSTALL;
use crate::support::{eventually, read_head};

/// Middlewares that do the same: each fails five times before it is no longer called.
const MANY: usize = 10;

/// A proxy with `MANY` of them.
async fn with_many(how: &str) -> Hostile {
    Hostile::start("burns", &[&*format!("how: {how}"); MANY], "").await
}

impl Hostile {
    /// Asks for all routes, two at a time; no answer is a good one.
    async fn ask_all(&self) {
        for number in (0..MANY).step_by(2) {
            let (one, other) = tokio::join!(self.ask(number), self.ask(number + 1));
            assert!(matches!((one.status, other.status), (500 | 503, 500 | 503)), "{one:?} {other:?}");
        }
    }

    /// Failures of that cause, of all routes together.
    async fn failures(&self, cause: &str) -> u64 {
        let plugin = self.listed().await;
        let uses = plugin["uses"].as_array().expect("a list");
        uses.iter().filter_map(|of| of["failures"][cause].as_u64()).sum()
    }

    fn assert_nothing_came_through(&self) {
        let seen = self.backend.seen();
        assert!(seen.iter().all(|seen| seen.header("host") == "plain.example"), "a request came through");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_work_is_ended_after_its_time() {
    for how in ["loops", "fills", "copies"] {
        let hostile = with_many(how).await;
        let begun = Instant::now();
        assert_eq!(hostile.ask(0).await.status, 500, "{how}");
        // Measured in steps of 5 ms. A busy machine takes longer, as it does not always run the guest.
        assert!(begun.elapsed() >= Duration::from_millis(40), "{how}: {:?}", begun.elapsed());
        assert_eq!(hostile.failures("time").await, 1, "{how}");
        hostile.beside(how, async || hostile.ask_all().await).await;
        assert!(hostile.failures("time").await > 5, "{how}: it has run");
        hostile.assert_nothing_came_through();
    }
}

/// Each call ends before its time is over, and one follows the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_burn_has_its_share_and_no_more() {
    const SHARE: f64 = 0.02;
    const CALL: f64 = 0.03;

    let install = format!("plugins: {{settings: {{burns: {{limits: {{share: {SHARE}}}}}}}}}\n");
    let hostile = Hostile::start("burns", &["how: slow"], &install).await;
    let (mut served, mut refused) = (0_u32, 0_u32);
    let begun = Instant::now();
    hostile
        .beside("slow", async || match hostile.ask(0).await.status {
            200 => served += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        })
        .await;
    // What it had saved up for a second is its own too. Its clock goes on where the machine runs others.
    let may = (SHARE + SHARE * begun.elapsed().as_secs_f64()) / CALL;
    assert!(served > 0 && f64::from(served) <= may * 3.0, "{served} calls, of {may}");
    assert!(refused > 0, "{served} and {refused}");
    assert_eq!(hostile.failures("busy").await, u64::from(refused));
    eventually("its turn", async || hostile.ask(0).await.status == 200).await;
}

/// Each piece of a body ends before its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_takes_long_holds_nobody_up() {
    let hostile = Hostile::start("bodies", &["responseFilter: takesLong"], "").await;
    hostile
        .beside("a filter", async || assert!(matches!(hostile.ask(0).await.said(), (200, "hello") | (503, _))))
        .await;
    eventually("its turn", async || hostile.ask(0).await.said() == (200, "hello")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let hostile = Hostile::start("burns", &["how: grows"], "").await;
    hostile
        .beside("grows", async || {
            assert_eq!(hostile.ask(0).await.status, 200);
        })
        .await;
    let asked = |host: &str| hostile.backend.seen().into_iter().filter(|seen| seen.header("host") == host).collect();
    let seen: Vec<crate::support::backend::Seen> = asked("a0.example");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.header("x-got") == "false"), "4 GiB are not to be had");

    // Time is not what it should run out of, however busy the machine is.
    let install = "plugins: {settings: {burns: {limits: {cpu: 2s}}}}\n";
    let hostile = Hostile::start("burns", &["how: hoards"; MANY], install).await;
    hostile.beside("hoards", async || hostile.ask_all().await).await;
    assert!(hostile.failures("memory").await > 5);
    hostile.assert_nothing_came_through();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_overflows_is_a_trap() {
    let hostile = with_many("recurses").await;
    hostile.beside("recurses", async || hostile.ask_all().await).await;
    assert!(hostile.failures("trap").await > 5);
    hostile.assert_nothing_came_through();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_all_measure_are_not_sent() {
    for how in ["manyHeaders", "longHeader", "manyHeadersInReply", "longHeaderInReply"] {
        let hostile = with_many(how).await;
        let reply = hostile.ask(0).await;
        assert_eq!(reply.said(), (500, "Internal Server Error"), "{how}");
        assert_eq!((reply.header("x-many"), reply.header("x-long")), ("", ""), "{how}");
        hostile.beside(how, async || hostile.ask_all().await).await;
        hostile.assert_nothing_came_through();
    }
}

/// What a client sends after an early answer is never taken for another request.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_is_no_request() {
    let hostile = Hostile::start("burns", &["how: refuses"], "").await;
    let address = hostile.proxy.address("web");
    let refuses = async || {
        let inner = "GET /smuggled HTTP/1.1\r\nHost: plain.example\r\n\r\n";
        let outer = format!("POST / HTTP/1.1\r\nHost: a0.example\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        let last = "GET / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n";
        let answers = raw(address, &format!("{outer}{last}")).await;
        assert!(answers.starts_with("HTTP/1.1 403 "), "{answers}");
        // The second one, unless the connection was closed after the first.
        assert!(answers.matches("HTTP/1.1 ").count() <= 2, "{answers}");
        assert!(answers.contains("HTTP/1.1 200 ") || !answers.contains("hello"), "{answers}");

        let mut stream = connect(address).await;
        let head = format!("POST / HTTP/1.1\r\nHost: a0.example\r\nContent-Length: {}\r\n\r\n", 1_u64 << 30);
        stream.write_all(head.as_bytes()).await.expect("the proxy reads");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 403 "), "at once");
        // Nobody reads the whole of it: the client is told to stop.
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {
            sent += 1 << 16;
        }
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    };
    // As much is sent to a route without a plugin.
    let posts = async || {
        let request = "GET / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n";
        assert!(raw(address, request).await.ends_with("hello"));
        let body = "x".repeat(256 << 10);
        let head = "POST / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        assert!(raw(address, &request).await.ends_with("hello"));
    };
    hostile.beside_as("refuses", posts, refuses).await;
    assert!(hostile.backend.seen().iter().all(|seen| seen.target == "/"), "nothing was smuggled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_left_out_where_that_is_asked_for() {
    let install = "plugins: {settings: {burns: {onFailure: bypass}}}\n";
    for how in ["loops", "hoards", "traps", "manyHeaders", "longHeaderInReply"] {
        let hostile = Hostile::start("burns", &[&format!("how: {how}")], install).await;
        // Those after the fifth do not call it any more.
        for _ in 0..8 {
            assert_eq!(hostile.ask(0).await.said(), (200, "hello"), "{how}");
        }
        let seen = hostile.backend.seen();
        assert!(seen.iter().all(|seen| seen.header("x-many").is_empty()), "{how}: nothing of it is applied");
        assert_eq!((seen.len(), hostile.listed().await["failures"].as_u64()), (8, Some(8)), "{how}");
    }
}

/// In a process of its own, since others of this one take memory too.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_guests_took_is_given_back() {
    /// What attacks may leave: pages of instances that are kept, and of the allocator.
    const SLACK: usize = 4 << 20;

    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    folder.write("plugins/burns.wasm", guest("burns").await);
    folder.write("install.yaml", INSTALL);
    let hows = ["how: hoards", "how: recurses", "how: manyHeaders", "how: longHeader"];
    let options: Vec<&str> = hows.into_iter().cycle().take(60).collect();
    folder
        .write("routing/all.yaml", routes("burns", &options, &backend.url()).replace("api@internal", "ping@internal"));
    let mut program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    let ask =
        async |number: usize| Client::plain(address).await.get(&format!("http://a{number}.example/")).await.status;
    let attack = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            for _ in 0..4 {
                let (one, other) = tokio::join!(ask(number), ask(number));
                assert!(matches!((one, other), (500 | 503, 500 | 503)), "{one} {other}");
            }
        }
    };
    attack(0..12).await;
    let before = program.resident();
    attack(12..60).await;
    let mut after = 0;
    eventually("the memory", async || {
        after = program.resident();
        after <= before + SLACK
    })
    .await;
    assert!(program.is_running());
    assert_eq!(Client::plain(address).await.get("http://plain.example/").await.said(), (200, "hello"));
}
