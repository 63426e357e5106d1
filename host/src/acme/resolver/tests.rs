//! Months in the life of a resolver, with a CA that misbehaves and a clock whose hands are moved.

use std::collections::BTreeSet;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::acme::clock::Hands;
use crate::acme::mock::{Answer, MockCa, Step as Asked};
use crate::config::install::HttpChallenge;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

struct Test {
    folder: TempDir,
    ca: MockCa,
    clock: Clock,
    hands: Hands,
    host: Arc<Host>,
    patience: Duration,
    resolver: Arc<Resolver>,
}

impl Test {
    async fn new() -> Self {
        Self::with_patience(Duration::from_secs(1)).await
    }

    /// Waits no longer than this for each answer of the CA.
    async fn with_patience(patience: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, hands) = Clock::movable();
        let ca = MockCa::with_clock(clock.clone()).await;
        std::fs::write(folder.path().join("ca.pem"), ca.root_pem()).expect("a file can be written");
        let host = Host::new(None, None, 1, &BTreeMap::new()).expect("an engine");
        let resolver = Self::open(&folder, &ca, &clock, &host, patience);
        Self { folder, ca, clock, hands, host, patience, resolver }
    }

    fn open(folder: &TempDir, ca: &MockCa, clock: &Clock, host: &Arc<Host>, patience: Duration) -> Arc<Resolver> {
        let options = Acme {
            storage: folder.path().join("acme.json"),
            ca_server: ca.directory(),
            ca_certificates: vec![folder.path().join("ca.pem")],
            key_type: crate::config::install::KeyType::Ec256,
            client_timeout: patience,
            client_response_header_timeout: patience,
            http_challenge: Some(HttpChallenge::default()),
            ..Acme::default()
        };
        let surroundings = Surroundings::new(Arc::clone(host), Answers::default(), Arc::default(), clock.clone());
        let (resolver, warnings) = Resolver::open("le", &options, &surroundings, Purpose::Work).expect("a resolver");
        assert!(warnings.is_empty(), "{warnings:?}");
        let resolver = Arc::new(resolver);
        tokio::spawn(Arc::clone(&resolver).run());
        resolver
    }

    /// As after the end of the process.
    fn restart(&mut self) {
        self.resolver = Self::open(&self.folder, &self.ca, &self.clock, &self.host, self.patience);
    }

    fn want(&self, names: &[&str]) {
        let wanted = names.iter().map(|name| wanted(name)).collect();
        self.resolver.want(wanted, Plugins::default());
    }

    /// Lets the resolver do all that there is to do now.
    async fn settle(&self) {
        let begun = std::time::Instant::now();
        loop {
            // Its task has to see first that the time or the wish is another.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let certificates = self.resolver.wish.borrow().certificates.clone().unwrap_or_default();
            let now = self.clock.now();
            let is_settled = certificates.iter().all(|wanted| match self.resolver.due(wanted) {
                Due::Running => false,
                Due::At(time) => time > now,
            });
            if is_settled {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the resolver never settles");
        }
    }

    async fn pass(&self, time: Duration, step: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = step.min(left);
            self.hands.advance(step);
            self.settle().await;
            left -= step;
        }
    }

    fn end_of(&self, name: &str) -> Option<Timestamp> {
        self.resolver.held(&wanted(name)).map(|held| held.not_after)
    }
}

fn wanted(name: &str) -> Wanted {
    let names = vec![Name::parse(name).expect("a name")];
    Wanted { names, askers: BTreeSet::from([Asker::Router("r".to_owned())]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_out_of_order_for_a_month_costs_nothing_but_patience() {
    let test = Test::new().await;
    test.want(&["a.example.org"]);
    test.settle().await;
    let first = test.end_of("a.example.org").expect("a certificate");
    test.pass(58 * DAY, 6 * HOUR).await;
    let before = test.ca.count(Asked::NewOrder);
    for answer in [Answer::Drop, Answer::html(503), Answer::Garbage] {
        test.ca.fails(Asked::NewOrder, 10_000, answer);
        test.pass(10 * DAY, HOUR).await;
        test.ca.recovers();
        test.ca.fails(Asked::NewOrder, 10_000, Answer::problem(500, "serverInternal"));
    }
    assert_eq!(test.end_of("a.example.org"), Some(first), "what there was is still there");
    let attempts = test.ca.count(Asked::NewOrder) - before;
    // Every two hours once it is known to be ill, and a few times more often in the first ones.
    assert!((100..=420).contains(&attempts), "{attempts} attempts in a month");
    let [shown] = test.resolver.shown().try_into().expect("one certificate");
    assert_eq!(shown.step, Step::Failed);
    assert!(shown.next_attempt.expect("another attempt") > test.clock.now());
    assert!(shown.last_error.is_some());
    test.ca.recovers();
    test.pass(3 * HOUR, HOUR).await;
    assert!(test.end_of("a.example.org").expect("a certificate") > first, "it recovers by itself");
    assert_eq!(test.resolver.shown()[0].step, Step::Obtained);
}

/// Each attempt costs real time until it is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_hangs_for_a_month_costs_nothing_but_patience() {
    let test = Test::with_patience(Duration::from_millis(100)).await;
    test.want(&["a.example.org"]);
    test.pass(DAY, HOUR).await;
    let first = test.end_of("a.example.org").expect("a certificate");
    test.pass(57 * DAY, 6 * HOUR).await;
    for step in [Asked::NewOrder, Asked::Directory, Asked::NewNonce] {
        let before = test.ca.count(step);
        // No time goes by in which it answers.
        test.ca.recovers();
        test.ca.fails(step, 10_000, Answer::Slow(60 * DAY));
        test.pass(10 * DAY, HOUR).await;
        assert_eq!(test.end_of("a.example.org"), Some(first), "what there was is still there");
        let attempts = test.ca.count(step) - before;
        assert!((60..=160).contains(&attempts), "{attempts} times {step:?} in ten days");
        let [shown] = test.resolver.shown().try_into().expect("one certificate");
        let error = shown.last_error.expect("an error").message;
        assert!(error.contains("in time"), "{error}");
        let wait = shown.next_attempt.expect("another attempt").duration_since(test.clock.now());
        assert!((0..=3 * 3600).contains(&wait.as_secs()), "{wait:#} until the next attempt");
    }
    test.ca.recovers();
    test.pass(6 * HOUR, HOUR).await;
    assert!(test.end_of("a.example.org").expect("a certificate") > first, "it recovers by itself");
    assert_eq!(test.resolver.shown()[0].step, Step::Obtained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_no_reason_to_ask_again() {
    let mut test = Test::new().await;
    let refusal = Answer::problem(429, "rateLimited").retry_after("7200");
    test.ca.fails(Asked::NewOrder, 10_000, refusal);
    test.want(&["a.example.org"]);
    test.settle().await;
    let before = test.ca.count(Asked::NewOrder);
    for _ in 0..3 {
        test.restart();
        test.want(&["a.example.org"]);
        test.pass(30 * Duration::from_secs(60), HOUR).await;
    }
    assert_eq!(test.ca.count(Asked::NewOrder), before, "the CA has asked for two hours");
    test.ca.recovers();
    test.pass(2 * HOUR, HOUR / 2).await;
    assert!(test.end_of("a.example.org").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_is_not_renewed_and_goes_after_a_while() {
    let test = Test::new().await;
    test.want(&["a.example.org", "b.example.org"]);
    test.settle().await;
    test.want(&["b.example.org"]);
    test.pass(29 * DAY, 6 * HOUR).await;
    test.want(&["b.example.org"]);
    test.settle().await;
    assert!(test.end_of("a.example.org").is_some(), "a router may come back");
    test.pass(2 * DAY, 6 * HOUR).await;
    test.want(&["b.example.org"]);
    test.settle().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(test.end_of("a.example.org"), None);
    let first = test.end_of("b.example.org").expect("a certificate");
    test.pass(31 * DAY, 6 * HOUR).await;
    assert!(test.end_of("b.example.org").expect("a certificate") > first);
    assert_eq!(test.ca.orders().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_ca_has_lost_is_registered_again() {
    let test = Test::new().await;
    test.want(&["a.example.org"]);
    test.settle().await;
    test.ca.forget_accounts();
    test.want(&["a.example.org", "b.example.org"]);
    test.settle().await;
    assert!(test.end_of("b.example.org").is_some());
    assert_eq!(test.ca.accounts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_s_advice_moves_a_renewal() {
    let test = Test::new().await;
    test.ca.rules(|rules| rules.renewal_window = Some((40 * DAY, 41 * DAY)));
    test.want(&["a.example.org"]);
    test.settle().await;
    let first = test.end_of("a.example.org").expect("a certificate");
    test.pass(5 * DAY, 6 * HOUR).await;
    assert_eq!(test.end_of("a.example.org"), Some(first));
    // As after a mass revocation: the window is over.
    test.ca.rules(|rules| rules.renewal_window = Some((Duration::ZERO, Duration::ZERO)));
    test.pass(DAY, 6 * HOUR).await;
    assert!(test.end_of("a.example.org").expect("a certificate") > first);
    assert!(test.ca.orders().iter().any(|order| order.replaces.is_some()), "the CA is told what it replaces");
}
