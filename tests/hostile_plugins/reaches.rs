//! Guests that reach out: for what does not answer, too often, to where they may not, and to the proxy itself.

use std::future::{pending, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Hostile, routes};
use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::{empty, full};

/// Each middleware may reach the address that it is configured with.
fn options(url: &str, times: u32) -> String {
    format!("url: \"{url}\", times: {times}")
}

fn limits(limits: &str) -> String {
    format!("plugins: {{settings: {{reaches: {{limits: {{{limits}}}}}}}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_given_up() {
    let silent = Backend::start(|_| pending()).await;
    let hostile = Hostile::start("reaches", &[&options(&silent.url(), 2)], &limits("fetch: 200ms")).await;
    hostile
        .beside("silent", async || {
            let reply = hostile.ask(0).await;
            let mut outcomes = reply.text().lines();
            assert!(outcomes.all(|outcome| outcome.contains("Timeout")), "{}", reply.text());
        })
        .await;
}

/// Whatever else it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_goes_on_waiting_is_answered_with_504() {
    let silent = Backend::start(|_| pending()).await;
    let hostile = Hostile::start("reaches", &[&options(&silent.url(), 16)], "").await;
    let address = hostile.proxy.address("web");
    let mut calls = 0;
    hostile
        .beside("patient", async || {
            calls += 1;
            let mut stream = connect(address).await;
            let request = b"GET / HTTP/1.1\r\nHost: a0.example\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.expect("the proxy reads");
            let begun = Instant::now();
            let mut answer = String::new();
            let whole = timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await;
            whole.expect("an answer within three times its time").expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
            assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
        })
        .await;
    assert_eq!(silent.connections(), calls * 2, "two of 5 s each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_reaches_out_so_often_and_no_more() {
    let server = Backend::saying("there").await;
    let hostile = Hostile::start("reaches", &[&options(&server.url(), 100)], "").await;
    hostile
        .beside("often", async || {
            server.take();
            let reply = hostile.ask(0).await;
            let good = reply.text().lines().filter(|outcome| *outcome == "200 there").count();
            let refused = reply.text().lines().filter(|outcome| outcome.contains("RateLimited")).count();
            assert_eq!((good, refused, server.seen().len()), (16, 84, 16), "{}", reply.text());
        })
        .await;
}

/// A guest has 50 ms, and this one waits for more than 300 ms, 16 times.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_is_not_charged_for_it() {
    let slow = Backend::start(|_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(full("there"))
    })
    .await;
    let hostile = Hostile::start("reaches", &[&options(&slow.url(), 16)], "").await;
    let reply = hostile.ask(0).await;
    assert_eq!(reply.text().lines().filter(|outcome| *outcome == "200 there").count(), 16, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_reaches_out_so_often_at_once() {
    const AT_MOST: usize = 256;
    /// Each may have 64 calls on each worker.
    const MIDDLEWARES: usize = 5;
    const ASKED: usize = 300;

    let silent = Backend::start(|_| pending()).await;
    let options = options(&silent.url(), 1);
    let hostile = Hostile::start("reaches", &[&*options; MIDDLEWARES], &limits("fetch: 8s")).await;
    hostile
        .beside("at once", async || {
            let before = silent.connections();
            let mut asking = JoinSet::new();
            for number in 0..ASKED {
                let mut client = hostile.proxy.client("web").await;
                let url = format!("http://a{}.example/", number % MIDDLEWARES);
                asking.spawn(async move { client.get(&url).await.text().to_owned() });
            }
            let answers = asking.join_all().await;
            let refused = answers.iter().filter(|answer| answer.contains("RateLimited")).count();
            assert_eq!((refused, silent.connections() - before), (ASKED - AT_MOST, AT_MOST), "{answers:?}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_that_nobody_has_named() {
    let other = Backend::saying("the other").await;
    let redirect = format!("{}/elsewhere", other.url());
    let server = Backend::start(move |_| {
        let answer = Response::builder().status(StatusCode::FOUND).header("location", &redirect).body(empty());
        ready(answer.expect("a good response"))
    })
    .await;
    let hostile = Hostile::start("reaches", &[&options(&server.url(), 1)], "").await;
    let (port, named) = (other.address.port(), server.address);
    let mut urls: Vec<String> = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0.0.0.0",
        "0",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "127.0.0.1.",
    ]
    .iter()
    .map(|host| format!("http://{host}:{port}/"))
    .collect();
    urls.extend([
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/latest/meta-data/".to_owned(),
        format!("http://{named}@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#@{named}/"),
        format!("http://127.0.0.1:{port}\\@{named}/"),
        format!("https://{named}/"),
        format!("http://localhost:{}/", named.port()),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
    ]);
    hostile
        .beside("elsewhere", async || {
            let mut client = hostile.proxy.client("web").await;
            for url in &urls {
                let reply = client.send(Request::get("http://a0.example/").header("x-url", url)).await;
                let is_refused = reply.text().contains("Denied") || reply.text().contains("Internal");
                assert!(is_refused && reply.status == 200, "{url}: {reply:?}");
            }
            assert_eq!(client.get("http://a0.example/").await.said(), (200, "302 "), "nobody follows it");
        })
        .await;
    assert_eq!(other.connections(), 0);
}

/// Nor do calls nest for ever: each waits for the one that it has led to.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_to_the_proxy_ends_after_ten_turns() {
    let hostile = Hostile::start("reaches", &[&options("http://127.0.0.1:1", 1)], "").await;
    let own = format!("http://{}", hostile.proxy.address("web"));
    let rule = "Host(`a0.example`) || Host(`127.0.0.1`)";
    let text = routes("reaches", &[&options(&own, 1)], &hostile.backend.url()).replace("Host(`a0.example`)", rule);
    hostile.proxy.write("all.yaml", &text);
    hostile.proxy.reload().await;
    assert_eq!(hostile.proxy.problems(), [""; 0]);
    hostile
        .beside("loop", async || {
            let reply = hostile.ask(0).await;
            let turns = "200 ".repeat(10);
            assert!(reply.text().starts_with(&format!("{turns}508 ")), "{}", reply.text());
        })
        .await;
}
