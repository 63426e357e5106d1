//! Plugins that mean harm, one test for each thing that they may try, and what it is to their neighbours.
//!
//! [`Hostile`] is a proxy that has such a plugin, and [`Hostile::beside`] the measure that all of them are held to: while one
//! does its worst, whoever asks for another route on the same entry point gets what he asks for, and as soon as before. How
//! soon is judged mildly, since other tests run at the same time. On a machine where nothing else does it is judged strictly:
//!
//! ```console
//! $ WEIR_QUIET=1 cargo test --release --package weir --test weir hostile_plugins -- --test-threads=1
//! ```
//!
//! Which test holds for what:
//!
//! | What it tries | Test |
//! |---|---|
//! | loops, fills memory for ever | `burns::endless_work_is_ended_after_its_time` |
//! | takes a little less time than it may, again and again | `burns::a_slow_burn_has_its_share_and_no_more`, `burns::a_filter_that_takes_long_holds_nobody_up` |
//! | grows memory | `burns::memory_is_bounded`, `burns::what_guests_took_is_given_back` |
//! | grows tables; handles | `plugin::limits` of the host |
//! | recurses until the stack ends | `burns::a_stack_that_overflows_is_a_trap` |
//! | recurses by way of the host | `reaches::a_way_back_to_the_proxy_ends_after_ten_turns` |
//! | answers with a body of 1 GiB | `bodies::a_slow_client_holds_up_the_guest_and_the_server` |
//! | sets 100,000 headers, or one of 10 MiB | `burns::headers_beyond_all_measure_are_not_sent` |
//! | traps before the head | `plugins::a_trap_costs_one_request` |
//! | traps within the body; never ends it | `bodies::a_filter_that_fails_on_a_response_cuts_it` |
//! | answers without a look at the body | `burns::a_body_that_nobody_reads_is_no_request` |
//! | waits for what does not answer | `reaches::what_does_not_answer_is_given_up`, `reaches::a_call_that_goes_on_waiting_is_answered_with_504` |
//! | reaches out too often | `reaches::a_call_reaches_out_so_often_and_no_more`, `reaches::a_plugin_reaches_out_so_often_at_once` |
//! | reaches where it may not | `reaches::nothing_is_reached_that_nobody_has_named`, `providers::only_declared_origins_are_reached` |
//! | reaches the proxy itself | `reaches::a_way_back_to_the_proxy_ends_after_ten_turns` |
//! | keeps handles, or memory | `life::handles_that_are_kept_go_with_their_instance`, `life::memory_that_is_kept_goes_with_its_instance`, `life::memory_comes_back` |
//! | works long in `init` | `life::an_instance_that_is_made_for_a_call_is_paid_from_the_share` |
//! | traps in `init` | `life::an_instance_that_cannot_start_is_tried_again`, `plugins::a_configuration_that_a_plugin_refuses_closes_its_route` |
//! | never ends `init` | `life::an_init_without_end_leaves_the_version_before` |
//! | is hard to compile, or huge | `life::what_takes_too_much_to_compile_leaves_the_version_before`, `life::what_is_being_compiled_holds_up_no_other_change` |
//! | is no plugin, or one of another world | `life::what_is_no_plugin_leaves_the_version_before`, `plugins::a_broken_file_keeps_the_old_version_and_says_why` |
//! | is copied slowly | `plugins::a_half_copied_file_is_not_loaded` |
//! | is swapped all the time | `life::swaps_under_load_lose_nothing`; `tests/load/swap.py` does it a thousand times |
//! | waits for a lock | `life::a_lock_that_is_never_free_costs_those_who_wait` |
//! | looks around | `life::there_is_nothing_to_see`, `life::random_numbers_come_in_small_portions` |
//! | floods the log | `answers::a_flood_of_the_log_is_cut_off` |
//! | sets fields that are none | `answers::fields_that_are_none_are_not_sent` |
//! | sets fields that are the host's | `answers::fields_of_the_connection_cannot_be_edited`, `answers::fields_that_say_who_asks_are_granted` |
//! | answers with a status that is none | `answers::statuses_that_end_nothing_are_not_sent`, `answers::what_has_no_content_is_sent_without` |
//! | rewrites the path to another's | `answers::paths_are_brought_into_their_normal_form`, `answers::targets_that_are_none_are_not_sent` |
//! | is given huge options, or wrong ones | `answers::options_have_a_size_and_types` |
//! | breaks the rules of components | `answers::answers_against_the_rules_of_components` |
//! | runs while its client goes | `life::clients_that_go_take_the_call_along`, `plugins::clients_that_go_while_a_plugin_runs`, `bodies::a_filter_ends_with_either_side` |
//! | traps in a chain | `answers::a_chain_ends_where_a_plugin_traps` |
//! | looks for what others have written | `life::nobody_finds_what_another_has_written` |
//! | fails, and may be left out | `answers::a_plugin_may_be_left_out_where_it_fails`, `answers::who_decides_who_passes_is_never_left_out` |

mod answers;
mod burns;
mod life;
mod reaches;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Response;
use serde_json::Value;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::support::backend::{Backend, Seen};
use crate::support::client::{Client, Reply};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{Body, full, soon};

/// So much more than a quarter is allowed: on a busy machine, where other tests run beside, and on one where nothing else does.
const SLACK: Duration = Duration::from_millis(250);
const SLACK_WHEN_QUIET: Duration = Duration::from_millis(1);
/// Set on a machine where nothing else runs, with `--test-threads=1`, for the judgement that counts.
const QUIET: &str = "WEIR_QUIET";
/// Connections of the neighbour. The system spreads them over the workers: that all are with one of two happens once in
/// 32,768 times.
const CONNECTIONS: usize = 16;
/// How often he asks, each time on the next of them: often enough to see a pause, and too seldom to make the machine busy.
const ASKS_EVERY: Duration = Duration::from_millis(5);
/// How often an attack asks at most, and so do harmless requests in its place: what it can do by many requests alone, it needs
/// no plugin for. Not in step with the neighbour: whether they always meet or never would count for more than what is asked.
const ATTACKS_EVERY: Duration = Duration::from_millis(11);
/// Measured by turns, with harmless requests in place of the attack and with the attack, so that what the machine does to one
/// it does to the other. Each turn has a figure of its own, and the median of these counts.
const ROUNDS: u32 = 5;
const ROUNDS_WHEN_QUIET: u32 = 9;
/// So long is a turn at least.
const TURN: Duration = Duration::from_millis(250);
const TURN_WHEN_QUIET: Duration = Duration::from_millis(1000);

/// What the server takes a minute to answer.
const LATE: &str = "/late";

/// A proxy with a plugin that means harm.
pub(crate) struct Hostile {
    pub(crate) proxy: Proxy,
    /// Of all routes.
    pub(crate) backend: Backend,
    apart: Apart,
    /// Of attacks, while the neighbour is measured.
    pace: Mutex<Option<Pace>>,
}

/// How fast requests of an attack follow each other, and how many there were.
struct Pace {
    interval: Interval,
    requests: usize,
}

/// A thread for the neighbour and the server, whom nothing but the proxy may hold up: an attack keeps the others busy.
struct Apart(Option<Runtime>);

/// The longest that 99 of 100 requests of the neighbour took.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) before: Duration,
    pub(crate) during: Duration,
}

impl Hostile {
    /// The guest is a plugin of the same name. Each of `options` (what stands within its braces) makes a middleware, that of
    /// number N on the router `aN` for the host `aN.example`; `plain.example` has none, and `admin.example` is the API. What
    /// `install` has is appended to the install file.
    pub(crate) async fn start(name: &str, options: &[&str], install: &str) -> Self {
        Self::with(name, &guest(name).await, options, install).await
    }

    /// The same with other bytes.
    pub(crate) async fn with(name: &str, bytes: &[u8], options: &[&str], install: &str) -> Self {
        let apart = Apart::new();
        let backend = apart.handle().spawn(Backend::start(answer)).await.expect("a server that starts");
        let folder = Folder::new();
        folder.write(&format!("plugins/{name}.wasm"), bytes);
        folder.write("routing/all.yaml", routes(name, options, &backend.url()));
        let proxy = Proxy::start_in(folder, &format!("{INSTALL}api: {{}}\n{install}")).await;
        Self { proxy, backend, apart, pace: Mutex::default() }
    }

    /// A request for the route of the middleware of that number.
    pub(crate) async fn ask(&self, number: usize) -> Reply {
        self.wait().await;
        self.proxy.get(&format!("http://a{number}.example/")).await
    }

    /// A request for the route that has none.
    async fn ask_plainly(&self) {
        self.wait().await;
        assert_eq!(self.proxy.get("http://plain.example/").await.said(), (200, "hello"));
    }

    /// What `/api/plugins` says of the only plugin that is there by a file.
    pub(crate) async fn listed(&self) -> Value {
        let list = self.proxy.get("http://admin.example/api/plugins").await.json();
        let plugins = list.as_array().expect("a list");
        plugins.iter().find(|plugin| plugin["origin"] != "built-in").cloned().unwrap_or(Value::Null)
    }

    /// Has the attack made, again and again for as long as it takes to measure, while the neighbour is asked at a steady pace:
    /// each of his requests must be answered well, and 99 of 100 in at most a quarter more time than before.
    pub(crate) async fn beside(&self, what: &str, attack: impl AsyncFnMut()) -> Neighbour {
        self.beside_as(what, async || self.ask_plainly().await, attack).await
    }

    /// The same, with other requests than usual in place of the attack: what these do to the neighbour is not its doing.
    pub(crate) async fn beside_as(
        &self,
        what: &str,
        harmless: impl AsyncFnMut(),
        attack: impl AsyncFnMut(),
    ) -> Neighbour {
        let neighbour = self.measured(what, harmless, attack).await;
        let slack = if is_quiet() { SLACK_WHEN_QUIET } else { SLACK };
        assert!(neighbour.is_unharmed(slack), "{what}: {neighbour:?}");
        neighbour
    }

    /// The same without a judgement of the times.
    async fn measured(&self, what: &str, mut harmless: impl AsyncFnMut(), mut attack: impl AsyncFnMut()) -> Neighbour {
        let (turn, rounds) = if is_quiet() { (TURN_WHEN_QUIET, ROUNDS_WHEN_QUIET) } else { (TURN, ROUNDS) };
        let (mut before, mut during) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        // Some attacks take much longer than a turn.
        while before.is_empty() || (before.len() < rounds as usize && begun.elapsed() < turn * rounds * 3) {
            before.push(self.p99(turn, &mut harmless).await);
            during.push(self.p99(turn, &mut attack).await);
        }
        *self.pace.lock().await = None;
        let neighbour = Neighbour { before: median(before), during: median(during) };
        if is_quiet() {
            let _ = writeln!(io::stderr(), "{what}: {neighbour:?}");
        }
        neighbour
    }

    /// The longest that 99 of 100 of the neighbour's requests take while `other` is done again and again.
    async fn p99(&self, turn: Duration, mut other: impl AsyncFnMut()) -> Duration {
        let stop = Arc::new(AtomicBool::new(false));
        let asking = self.apart.handle().spawn(ask_steadily(self.proxy.address("web"), Arc::clone(&stop)));
        *self.pace.lock().await = Some(Pace { interval: paced(ATTACKS_EVERY), requests: 0 });
        let begun = Instant::now();
        while begun.elapsed() < turn {
            let requests = self.requests().await;
            other().await;
            // It goes on at the same pace if it asks nothing.
            if self.requests().await == requests {
                self.wait().await;
            }
        }
        stop.store(true, Ordering::SeqCst);
        let mut times = soon("the neighbour's last answer", asking).await.expect("a good answer to each request");
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    /// For the moment of the next request of an attack.
    async fn wait(&self) {
        if let Some(pace) = &mut *self.pace.lock().await {
            pace.interval.tick().await;
            pace.requests += 1;
        }
    }

    async fn requests(&self) -> usize {
        self.pace.lock().await.as_ref().map_or(0, |pace| pace.requests)
    }
}

impl Apart {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(runtime.expect("a runtime")))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("it has not been dropped").handle().clone()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Neighbour {
    /// Whether he waited at most a quarter longer than before, and so much.
    pub(crate) fn is_unharmed(&self, slack: Duration) -> bool {
        self.during <= self.before * 5 / 4 + slack
    }
}

/// How long each request took.
async fn ask_steadily(proxy: SocketAddr, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::plain(proxy).await);
    }
    let mut pace = paced(ASKS_EVERY);
    let mut times = Vec::new();
    for number in (0..clients.len()).cycle() {
        pace.tick().await;
        let begun = Instant::now();
        assert_eq!(clients[number].get("http://plain.example/").await.said(), (200, "hello"), "the neighbour's answer");
        times.push(begun.elapsed());
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    times
}

fn is_quiet() -> bool {
    std::env::var_os(QUIET).is_some()
}

fn paced(every: Duration) -> Interval {
    let mut pace = interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// At once, but for one path.
async fn answer(request: Seen) -> Response<Body> {
    if request.target == LATE {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    Response::new(full("hello"))
}

fn routes(name: &str, options: &[&str], url: &str) -> String {
    let mut routers = String::new();
    let mut middlewares = String::new();
    for (number, options) in options.iter().enumerate() {
        let rule = format!("\"Host(`a{number}.example`)\"");
        routers.push_str(&format!("    a{number}: {{rule: {rule}, service: all, middlewares: [m{number}]}}\n"));
        middlewares.push_str(&format!("    m{number}: {{plugin: {{{name}: {{{options}}}}}}}\n"));
    }
    format!(
        "
http:
  routers:
    plain: {{rule: \"Host(`plain.example`)\", service: all}}
    admin: {{rule: \"Host(`admin.example`)\", service: api@internal}}
{routers}  middlewares:
{middlewares}  services:
    all: {{loadBalancer: {{servers: [{{url: \"{url}\"}}]}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_is_held_up_is_seen() {
    let hostile = Hostile::start("misbehaves", &["how: traps"], "").await;
    let neighbour = hostile.beside("nothing", async || assert_eq!(hostile.ask(0).await.status, 200)).await;
    let slow = Neighbour { during: neighbour.before * 5 / 4 + SLACK * 2, ..neighbour };
    assert!(!slow.is_unharmed(SLACK));
}

/// Not judged: what the machine itself does to the neighbour, while somebody else asks as often as in an attack and a process
/// of its own keeps a core busy at the priority of plugins that run long, tells how to read the other figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_is_busy_with_nothing_of_ours() {
    let hostile = Hostile::start("misbehaves", &["how: traps"], "").await;
    let fills = "while :; do dd if=/dev/zero of=/dev/null bs=8M count=1 2>/dev/null; sleep 0.01; done";
    for (what, work) in [("a busy core", "while :; do :; done"), ("a process that fills memory", fills)] {
        let busy = async || {
            let busy = ["-n", "10", "timeout", "1", "sh", "-c", work];
            let mut busy = Command::new("nice").args(busy).spawn().expect("a shell");
            let mut pace = paced(ATTACKS_EVERY);
            while busy.try_wait().expect("a process").is_none() {
                pace.tick().await;
                hostile.ask_plainly().await;
            }
        };
        hostile.measured(what, async || hostile.ask_plainly().await, busy).await;
    }
}
