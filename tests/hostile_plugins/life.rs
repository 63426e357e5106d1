//! The life of plugins that mean harm: how they come, what they keep, what they wait for, and what they leave behind.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use weir::snapshot::Middleware;

use super::{Hostile, LATE, is_quiet};
use crate::support::client::{Client, connect};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::Program;
use crate::support::proxy::INSTALL;
use crate::support::{eventually, route};

const GRANT: &str = "plugins: {settings: {hoards: {allow: {shared: true}}}}\n";
/// How long the host may take until it gives up a plugin that does not begin, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

async fn hoarding(options: &[&str]) -> Hostile {
    let hostile = Hostile::start("hoards", options, GRANT).await;
    assert_eq!(hostile.proxy.problems(), [""; 0]);
    hostile
}

/// The instances of the middleware of that number, and the bytes of their memory.
fn instances(hostile: &Hostile, number: usize) -> (usize, usize) {
    let snapshot = hostile.proxy.snapshot();
    match &snapshot.items.middlewares[&format!("m{number}")].serves {
        Some(Middleware::Plugin(configured)) => configured.instances(),
        _ => panic!("it is no plugin"),
    }
}

/// Waits until none is left of that middleware's instances: they are dropped aside, some time after the answer.
async fn gone(hostile: &Hostile, number: usize) {
    eventually("the end of its instances", async || instances(hostile, number) == (0, 0)).await;
}

/// A proxy with a good plugin, whose file is then replaced: the version before must go on for as long as the new one is looked
/// at, and for ever where it is no good.
async fn replaced(options: &str) -> Hostile {
    let install = "plugins: {settings: {good: {allow: {shared: true}}}}\n";
    let hostile = Hostile::with("good", &guest("stamps").await, &[options], install).await;
    assert_eq!(hostile.proxy.problems(), [""; 0]);
    hostile
}

/// Has the host judge a file that `put` puts in the place of the good one, again and again, and with it back in between.
async fn is_refused<T>(hostile: &Hostile, reason: &str, put: impl Fn() -> T) {
    let good = guest("stamps").await;
    let judged = async |is_over: &dyn Fn(&[String]) -> bool| {
        let deadline = Instant::now() + LONG;
        loop {
            let problems = hostile.proxy.problems();
            assert_eq!(hostile.ask(0).await.header("x-stamp"), "1.0.0", "{reason}");
            if is_over(&problems) {
                return;
            }
            assert!(Instant::now() < deadline, "{reason}: {problems:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let attack = async || {
        put();
        judged(&|problems| problems.iter().any(|problem| problem.contains(reason))).await;
        hostile.proxy.folder.write("plugins/good.wasm", &good);
        judged(&|problems| problems.is_empty()).await;
    };
    hostile.beside(reason, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_that_are_kept_go_with_their_instance() {
    let hostile = hoarding(&["how: keepsHandles, amount: 50", "how: keepsHandles, amount: 5000"]).await;
    let mut client = hostile.proxy.client("web").await;
    for round in 0..10 {
        for calls in ["1", "2", "3"] {
            let reply = client.get("http://a0.example/").await;
            assert_eq!(reply.said(), (200, calls), "{round}: each leaves 100 handles, and 256 are kept");
        }
    }
    hostile
        .beside("handles", async || {
            assert_eq!(hostile.ask(0).await.status, 200);
            let status = hostile.ask(1).await.status;
            assert!(matches!(status, 500 | 503), "an instance cannot have as many: {status}");
        })
        .await;
    gone(&hostile, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_kept_goes_with_its_instance() {
    let hostile = hoarding(&["how: keepsMemory, amount: 300000"]).await;
    let mut calls_of_one = 0;
    hostile
        .beside("memory", async || {
            let reply = hostile.ask(0).await;
            calls_of_one = calls_of_one.max(reply.text().parse().expect("a number"));
            let (instances, bytes) = instances(&hostile, 0);
            assert!(bytes <= instances * (2 << 20), "{instances} have {bytes} bytes");
        })
        .await;
    assert!((2..8).contains(&calls_of_one), "{calls_of_one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_cannot_start_is_tried_again() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis();
    // For as long as the neighbour is measured.
    let lasts = if is_quiet() { 30_000 } else { 4_000 };
    let (from, to) = (now + 10_000, now + 10_000 + lasts);
    let install = "plugins: {settings: {hoards: {allow: {shared: true}, isolation: request}}}\n";
    let options = format!("how: trapsInInit, from: {from}, to: {to}");
    let hostile = Hostile::start("hoards", &[&options], install).await;
    assert_eq!(hostile.ask(0).await.said(), (200, "1"));
    eventually("an instance that traps", async || hostile.ask(0).await.status == 500).await;
    let begun = Instant::now();
    eventually("no more instances", async || hostile.ask(0).await.status == 503).await;
    gone(&hostile, 0).await;
    let mut tried = 0;
    let ask = async || match hostile.ask(0).await.status {
        503 => {}
        500 => tried += 1,
        status => panic!("{status}"),
    };
    hostile.beside("instances that cannot start", ask).await;
    assert!(tried <= begun.elapsed().as_secs() / 5, "{tried} times, and not before 5 s have passed");
    eventually("a good one", async || hostile.ask(0).await.said() == (200, "1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_made_for_a_call_is_paid_from_the_share() {
    let settings = "{allow: {shared: true}, isolation: request, limits: {share: 0.02}}";
    let install = format!("plugins: {{settings: {{hoards: {settings}}}}}\n");
    let hostile = Hostile::start("hoards", &["how: worksInInit, amount: 5"], &install).await;
    assert_eq!(hostile.ask(0).await.said(), (200, "1"));
    eventually("a share that is used up", async || hostile.ask(0).await.status == 503).await;
    assert!(hostile.listed().await["uses"][0]["failures"]["busy"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_without_end_leaves_the_version_before() {
    for (options, reason) in [
        ("how: loopsInInit", "`init` failed: it used up its CPU time for one call"),
        ("how: sleepsInInit, amount: 30000", "`init` failed: it took more than 10 s"),
    ] {
        let hostile = replaced(options).await;
        let hoards = guest("hoards").await;
        is_refused(&hostile, reason, || hostile.proxy.folder.write("plugins/good.wasm", &hoards)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_much_to_compile_leaves_the_version_before() {
    let hostile = replaced("").await;
    let huge = || {
        let file = hostile.proxy.folder.path("huge");
        File::create(&file).and_then(|file| file.set_len(65 << 20)).expect("a file with a hole");
        std::fs::rename(file, hostile.proxy.folder.path("plugins/good.wasm")).expect("a file can be renamed");
    };
    is_refused(&hostile, "68157440 bytes are too many: at most 67108864 are accepted", huge).await;
    let bomb = bomb();
    let put = || hostile.proxy.folder.write("plugins/good.wasm", &bomb);
    is_refused(&hostile, "compiling it took more than", put).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_compiled_holds_up_no_other_change() {
    const COMPILED: &str = "it is being compiled";

    let hostile = replaced("").await;
    let said = async || hostile.listed().await["problems"][0]["message"].clone();
    hostile.proxy.folder.write("plugins/good.wasm", bomb());
    eventually("a compilation", async || said().await == COMPILED).await;
    hostile.proxy.write("more.yaml", &route("more", &hostile.backend.url()));
    hostile.proxy.reload().await;
    assert_eq!(hostile.proxy.get("http://more.example/").await.said(), (200, "hello"));
    assert_eq!(said().await, COMPILED, "nobody has waited for it");
    assert_eq!(hostile.ask(0).await.header("x-stamp"), "1.0.0");
    assert_eq!(hostile.proxy.problems(), [""; 0]);

    // A middleware that is made of what is not there yet.
    hostile.proxy.folder.write("plugins/late.wasm", [bomb(), vec![0, 2, 1, b'x']].concat());
    let late = route("late", &hostile.backend.url()).replace("service: late}", "service: late, middlewares: [late]}");
    let late = late.replace("  services:", "  middlewares:\n    late: {plugin: {late: {}}}\n  services:");
    hostile.proxy.write("late.yaml", &late);
    let has = async |words: &str| hostile.proxy.problems().iter().any(|problem| problem.contains(words));
    eventually("its coming", async || has("the plugin `late` is being compiled").await).await;
    assert_eq!(hostile.proxy.status("http://late.example/").await, 503);
    hostile.proxy.folder.write("plugins/late.wasm", guest("stamps").await);
    eventually("its coming", async || hostile.proxy.status("http://late.example/").await == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plugin_leaves_the_version_before() {
    let hostile = replaced("").await;
    let stamps = guest("stamps").await;
    let empty_component = b"\0asm\x0d\0\x01\0".to_vec();
    // An import of a type by the name of `shell`.
    let import = b"\x0a\x0a\x01\x00\x05shell\x03\x01";
    for (bytes, reason) in [
        (empty_component, "it exports neither a middleware nor a DNS provider of `weir:plugin`"),
        ([&stamps[..], import].concat(), "it imports `shell`, which no plugin may use"),
        (in_place_of(&stamps, "@0.1.0", "@0.9.0"), "it was built for version 0.9.0 of weir:plugin"),
        (in_place_of(&stamps, "weir:plugin/middleware", "weir:plugin/middlemare"), "it exports neither a middleware"),
        (in_place_of(&stamps, "on-response", "on-responce"), "it is no middleware of `weir:plugin@0.1`"),
        (guest("oversteps").await, "the plugin `good` is a DNS provider and no middleware"),
    ] {
        is_refused(&hostile, reason, || hostile.proxy.folder.write("plugins/good.wasm", &bytes)).await;
    }
    hostile.proxy.folder.write("plugins/good.wasm", guest("stamps-again").await);
    eventually("the good one", async || hostile.ask(0).await.header("x-stamp") == "2.0.0").await;
    assert_eq!(hostile.proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_lose_nothing() {
    let hostile = replaced("").await;
    let versions = [guest("stamps").await, guest("stamps-again").await];
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for _ in 0..8 {
        let (mut client, stop) = (hostile.proxy.client("web").await, Arc::clone(&stop));
        asking.push(tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                let reply = client.get("http://a0.example/x").await;
                assert_eq!((reply.said(), reply.header("x-stamped-path")), ((200, "hello"), "/x"));
                assert!(matches!(reply.header("x-stamp"), "1.0.0" | "2.0.0"), "{reply:?}");
                count += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            count
        }));
    }
    let mut swaps = 0;
    hostile
        .beside("swaps", async || {
            while swaps < 30 {
                swaps += 1;
                hostile.proxy.folder.write("plugins/good.wasm", &versions[swaps % 2]);
                let version = ["1.0.0", "2.0.0"][swaps % 2];
                eventually(version, async || hostile.ask(0).await.header("x-stamp") == version).await;
            }
        })
        .await;
    stop.store(true, Ordering::SeqCst);
    let mut count = 0;
    for asking in asking {
        count += asking.await.expect("no request was lost");
    }
    assert!(count > 100, "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_free_costs_those_who_wait() {
    let hostile = hoarding(&[
        "how: keepsLock",
        "how: spinsForLock",
        "how: sleepsForLock, amount: 100",
        "how: sleepsForLock, amount: 60000",
    ])
    .await;
    assert_eq!(hostile.ask(0).await.status, 200);
    hostile
        .beside("spinning for a lock", async || {
            let status = hostile.ask(1).await.status;
            assert!(matches!(status, 500 | 503), "{status}");
        })
        .await;
    // Sleep is no CPU time, be it for long or again and again.
    let address = hostile.proxy.address("web");
    let asking = [2, 3].map(|number| {
        tokio::spawn(async move {
            let request = format!("GET / HTTP/1.1\r\nHost: a{number}.example\r\nConnection: close\r\n\r\n");
            let mut client = connect(address).await;
            client.write_all(request.as_bytes()).await.expect("the proxy listens");
            let mut answer = String::new();
            // Longer than anything else may take.
            let read = timeout(Duration::from_secs(30), client.read_to_string(&mut answer)).await;
            read.expect("a call ends by itself").expect("an answer");
            answer
        })
    });
    hostile.beside("sleeping for a lock", async || tokio::time::sleep(Duration::from_millis(100)).await).await;
    for (number, asking) in [2, 3].into_iter().zip(asking) {
        let answer = asking.await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 504 "), "a call takes ten seconds at most: {answer}");
        gone(&hostile, number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_see() {
    let hostile = hoarding(&["how: looksAround"]).await;
    hostile.beside("looks", async || assert_eq!(hostile.ask(0).await.said(), (200, ""))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_numbers_come_in_small_portions() {
    let hostile = hoarding(&[
        "how: asksForRandom, amount: 4096",
        "how: asksForRandom, amount: 4097",
        "how: asksWasiForRandom, amount: 65536",
        "how: asksWasiForRandom, amount: 65537",
        "how: asksWasiForRandom, amount: 4000000000",
    ])
    .await;
    hostile
        .beside("random numbers", async || {
            for (number, answer) in [(0, Some("4096")), (1, None), (2, Some("65536")), (3, None), (4, None)] {
                let reply = hostile.ask(number).await;
                match answer {
                    Some(bytes) => assert_eq!(reply.said(), (200, bytes), "{number}"),
                    None => assert!(matches!(reply.status, 500 | 503), "{number}: {}", reply.status),
                }
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_take_the_call_along() {
    let options = ["how: delays, amount: 60000", "how: sleepsOnResponse, amount: 60000", "how: loopsOnResponse"];
    let hostile = hoarding(&options).await;
    // One by HTTP/1.1 and one by HTTP/2, who stay for 20 ms.
    let goes = async |host: &str, path: &str| {
        let mut client = connect(hostile.proxy.address("web")).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        let mut streams = Client::h2c(hostile.proxy.address("web")).await;
        let url = format!("http://{host}{path}");
        let sending = tokio::spawn(async move { streams.get(&url).await.status });
        tokio::time::sleep(Duration::from_millis(20)).await;
        sending.abort();
    };
    // Who goes while the server works has its connection closed too, without any plugin.
    let harmless = async || goes("plain.example", LATE).await;
    let attack = async || {
        for number in 0..options.len() {
            goes(&format!("a{number}.example"), "/").await;
        }
    };
    hostile.beside_as("clients that go", harmless, attack).await;
    eventually("the end of all requests", async || hostile.proxy.load().requests == 0).await;
    eventually("the end of calls that sleep", async || instances(&hostile, 1).0 == 0).await;
    eventually("the end of calls that loop", async || instances(&hostile, 2).0 == 0).await;
    assert!(instances(&hostile, 0).0 <= 64, "an instance is free while the host waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_finds_what_another_has_written() {
    let hostile = hoarding(&[
        "how: writesSecret, amount: 8388608",
        "how: writesSecretAndTraps, amount: 8388608",
        "how: writesSecret, amount: 80000",
        "how: looksForSecret, amount: 16777216",
        "how: findsOwnSecret, amount: 8388608",
    ])
    .await;
    let found: usize = hostile.ask(4).await.text().parse().expect("a number");
    assert!(found >= 1 << 20, "who looks finds what is there: {found}");
    hostile
        .beside("secrets", async || {
            let (wrote, trapped, kept) = tokio::join!(hostile.ask(0), hostile.ask(1), hostile.ask(2));
            assert_eq!((wrote.status, kept.status), (200, 200));
            assert!(matches!(trapped.status, 500 | 503), "{}", trapped.status);
            let (one, two) = tokio::join!(hostile.ask(3), hostile.ask(3));
            assert_eq!((one.said(), two.said()), ((200, "0"), (200, "0")));
        })
        .await;
}

/// All that may be kept, one after the other in a process of its own: what it has of the machine's memory comes back.
#[tokio::test(flavor = "multi_thread")]
async fn memory_comes_back() {
    let folder = Folder::new();
    folder.write("plugins/hoards.wasm", guest("hoards").await);
    folder.write("install.yaml", format!("{INSTALL}{GRANT}"));
    let options = [
        "how: nothing",
        "how: keepsHandles, amount: 100",
        "how: keepsHandles, amount: 5000",
        "how: keepsMemory, amount: 300000",
        "how: keepsMemory, amount: 100000000",
        "how: writesSecret, amount: 8388608",
        "how: writesSecretAndTraps, amount: 8388608",
    ];
    let (mut routers, mut middlewares) = (String::new(), String::new());
    for (number, options) in options.iter().enumerate() {
        let rule = format!("\"Host(`a{number}.example`)\"");
        routers.push_str(&format!(
            "    a{number}: {{rule: {rule}, service: whoami@internal, middlewares: [m{number}]}}\n"
        ));
        middlewares.push_str(&format!("    m{number}: {{plugin: {{hoards: {{{options}}}}}}}\n"));
    }
    folder.write("routing/all.yaml", format!("http:\n  routers:\n{routers}  middlewares:\n{middlewares}"));
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    let hoard = async |rounds: usize| {
        for _ in 0..rounds {
            for number in 0..options.len() {
                let status = Client::plain(address).await.get(&format!("http://a{number}.example/")).await.status;
                assert!(matches!(status, 200 | 500 | 503), "{status}");
            }
        }
    };
    hoard(10).await;
    let before = program.resident();
    hoard(100).await;
    // What has grown is dropped aside, and may still be on its way.
    eventually("the memory", async || program.resident() <= before + (4 << 20)).await;
}

/// The same with other words of the same length.
fn in_place_of(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let found: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, at)| *at == old.as_bytes()).map(|(at, _)| at).collect();
    assert!(!found.is_empty(), "{old}");
    for at in found {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

/// A component whose function is as long as functions may be, and whose every byte is an instruction.
fn bomb() -> Vec<u8> {
    /// `i32.clz`
    const INSTRUCTION: u8 = 0x67;

    // `local = clz(clz(… local))`
    let mut function = vec![1, 1, 0x7f, 0x20, 0];
    function.extend([INSTRUCTION].repeat(7_000_000));
    function.extend([0x21, 0, 0x0b]);
    let code = [leb(1), leb(function.len()), function].concat();
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (section, content) in [(1, vec![1, 0x60, 0, 0]), (3, vec![1, 0]), (10, code)] {
        module.push(section);
        module.extend(leb(content.len()));
        module.extend(content);
    }
    [b"\0asm\x0d\0\x01\0\x01".to_vec(), leb(module.len()), module].concat()
}

/// A length as WebAssembly writes it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
