//! Orders from the mock CA: what comes out of each way in which it can behave.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use super::*;
use crate::acme::challenge::Answers;
use crate::acme::client::{Authority, Environment};
use crate::acme::mock::{Answer, Look, MockCa, Step};
use crate::acme::renewal_info::renewal_info;
use crate::config::install::{ExternalAccountBinding, KeyType};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_certificate_is_issued_once_its_answers_were_found() {
    for kind in ["http-01", "tls-alpn-01"] {
        let test = Test::new().await;
        let found = test.answers.clone();
        test.ca.rules(|rules| {
            rules.looks = 3;
            rules.looks_for = Some(Box::new(move |look| is_answered(&found, look)));
        });
        let wanted = wanted(&["a.example", "b.example", "192.0.2.1"]);
        let obtained = test.obtain_by(&wanted, &test.solver(kind)).await.expect("a certificate");
        assert_eq!(obtained.issuer, "mock intermediate");
        assert!(obtained.not_after.duration_since(obtained.not_before) == SignedDuration::from_hours(90 * 24));
        assert!(obtained.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(obtained.warnings, [""; 0]);
        assert!(test.answers.is_empty(), "{kind}: answers are left");
        let [order] = &test.ca.orders()[..] else { panic!("one order") };
        assert_eq!((order.status.as_str(), order.common_name.as_deref()), ("valid", Some("a.example")));
        let secret = obtained.key.lines().nth(1).expect("a line").to_owned();
        assert!(!format!("{obtained:?}").contains(&secret), "a key in a log");
    }
}

#[tokio::test]
async fn what_a_ca_gets_wrong_for_a_moment_costs_nothing() {
    let table = [
        (Step::Directory, 0, Answer::bad_nonce()),
        (Step::NewOrder, 7, Answer::bad_nonce()),
        (Step::Authorization, 7, Answer::bad_nonce()),
        (Step::Challenge, 7, Answer::bad_nonce()),
        (Step::Finalize, 7, Answer::bad_nonce()),
        (Step::Certificate, 7, Answer::bad_nonce()),
        (Step::Authorization, 2, Answer::html(503)),
        (Step::Authorization, 2, Answer::problem(503, "rateLimited").retry_after("2")),
        (Step::Challenge, 2, Answer::html(502).retry_after("3")),
        (Step::Certificate, 2, Answer::problem(500, "serverInternal")),
        (Step::Certificate, 1, Answer::Garbage),
        (Step::Authorization, 3, Answer::Drop),
        (Step::Authorization, 3, Answer::DropAfter),
        (Step::Authorization, 3, Answer::Garbage),
        (Step::Challenge, 1, Answer::Drop),
        (Step::Challenge, 1, Answer::DropAfter),
        (Step::Finalize, 1, Answer::Drop),
        (Step::Finalize, 1, Answer::DropAfter),
        (Step::Finalize, 1, Answer::html(504)),
        (Step::Finalize, 1, Answer::Garbage),
        (Step::Order, 2, Answer::Drop),
        (Step::Certificate, 3, Answer::DropAfter),
        (Step::Certificate, 1, Answer::Slow(Duration::from_millis(50))),
    ];
    for (step, times, answer) in table {
        let test = Test::new().await;
        test.ca.rules(|rules| rules.looks = 1);
        test.ca.fails(step, times, answer.clone());
        let result = test.obtain(&wanted(&["a.example", "b.example"])).await;
        if (step, times) == (Step::Certificate, 1) && matches!(answer, Answer::Garbage) {
            // It may be a certificate for all that HTTP knows.
            assert_eq!(result.expect_err("garbage").kind, Kind::Certificate);
            continue;
        }
        result.unwrap_or_else(|failure| panic!("{step:?} {answer:?}: {failure}"));
        assert_eq!(test.ca.orders().len(), 1, "{step:?} {answer:?}");
    }
}

#[tokio::test]
async fn what_a_ca_refuses_is_a_failure_in_words_that_a_scheduler_understands() {
    let limited = "too many new orders, retry after 2099-01-01 00:00:00 UTC: see https://ca.example/limits";
    let table = [
        (
            Step::NewOrder,
            Answer::problem(429, "rateLimited").retry_after("3600"),
            Kind::RateLimited,
            "rate limit",
            true,
        ),
        (Step::NewOrder, Answer::problem(429, "rateLimited").detail(limited), Kind::RateLimited, "new orders", true),
        (Step::NewOrder, Answer::html(503).retry_after("120"), Kind::Unavailable, "answers 503", true),
        (Step::NewOrder, Answer::html(429).retry_after("120"), Kind::RateLimited, "answers 429", true),
        (Step::NewOrder, Answer::Drop, Kind::Unavailable, "broke off", false),
        (Step::NewOrder, Answer::Garbage, Kind::Unavailable, "unexpected", false),
        (Step::NewOrder, Answer::problem(400, "rejectedIdentifier"), Kind::Refused, "does not issue", false),
        (Step::NewOrder, Answer::problem(400, "accountDoesNotExist"), Kind::AccountGone, "account", false),
        (Step::NewOrder, Answer::problem(403, "userActionRequired"), Kind::Account, "new terms", false),
        (Step::NewOrder, Answer::problem(403, "unauthorized"), Kind::Account, "does not allow the account", false),
        (Step::NewNonce, Answer::html(503).retry_after("120"), Kind::Unavailable, "answers 503", true),
        (Step::Authorization, Answer::html(503).retry_after("120"), Kind::Unavailable, "answers 503", true),
        (Step::Challenge, Answer::problem(503, "serverInternal"), Kind::Unavailable, "out of order", false),
        (Step::Finalize, Answer::problem(400, "badCSR"), Kind::Settings, "`keyType`", false),
        (Step::Finalize, Answer::problem(403, "caa"), Kind::Refused, "CAA", false),
        (Step::Finalize, Answer::problem(429, "rateLimited").retry_after("60"), Kind::RateLimited, "limit", true),
        (Step::Certificate, Answer::html(503).retry_after("120"), Kind::Unavailable, "answers 503", true),
        (Step::Certificate, Answer::Garbage, Kind::Certificate, "certificate", false),
    ];
    for (step, answer, kind, part, has_time) in table {
        let test = Test::new().await;
        test.ca.fails(step, usize::MAX, answer.clone());
        let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("a failure");
        assert_eq!(failure.kind, kind, "{step:?} {answer:?}: {failure}");
        assert!(failure.to_string().contains(part), "{step:?} {answer:?}: {failure}");
        assert_eq!(failure.retry_after.is_some(), has_time, "{step:?} {answer:?}: {failure}");
        assert_eq!(failure.is_account_gone(), kind == Kind::AccountGone);
        assert!(test.answers.is_empty(), "{step:?}: answers are left");
        assert!(test.ca.count(step) <= 5, "{step:?} {answer:?}: asked {} times", test.ca.count(step));

        // And when it is over, it is over.
        test.ca.recovers();
        let account = if failure.is_account_gone() { test.register().await } else { test.account.clone() };
        obtain(&account, wanted(&["a.example"]).request(), &test.solver("http-01"), &test.clock)
            .await
            .expect("a certificate");
    }
}

#[tokio::test]
async fn names_that_fail_are_told_with_the_reason_of_each() {
    let test = Test::new().await;
    test.ca.rules(|rules| {
        rules.looks = 1;
        rules.rejected.insert("b.example", ("dns", "no such host"));
        rules.rejected.insert("c.example", ("connection", "refused"));
    });
    let failure = test.obtain(&wanted(&["a.example", "b.example", "c.example"])).await.expect_err("a failure");
    assert_eq!((failure.kind, failure.counts_as_failed_validation()), (Kind::Validation, true));
    assert_eq!(failure.names, ["b.example", "c.example"]);
    let expected = "`b.example`: the CA cannot look the name up: no such host; \
                    `c.example`: the CA cannot connect to the server of the name: refused";
    assert_eq!(failure.message, expected);
    assert!(test.answers.is_empty());
    assert_eq!(test.ca.count(Step::Finalize), 0);
}

#[tokio::test]
async fn a_challenge_that_is_not_offered_is_told_before_anything_is_tried() {
    let test = Test::new().await;
    let failure = test.obtain(&wanted(&["a.example", "*.a.example"])).await.expect_err("a failure");
    assert_eq!(failure.kind, Kind::Settings);
    let expected = "`*.a.example`: the CA does not offer HTTP-01 for it, but DNS-01; wildcards need DNS-01";
    assert!(failure.to_string().starts_with(expected), "{failure}");
    assert_eq!(test.ca.count(Step::Challenge), 0);
}

#[tokio::test]
async fn a_ca_that_never_looks_and_one_that_never_issues_are_given_up() {
    let test = Test::new().await;
    test.ca.rules(|rules| rules.looks = u32::MAX);
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("a failure");
    assert!(failure.message.contains("has not looked within 5 minutes"), "{failure}");
    assert_eq!(failure.kind, Kind::Unavailable);
    test.ca.rules(|rules| rules.are_names_known = true);
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("a failure");
    assert!(failure.message.contains("`certificateTimeout`"), "{failure}");
    assert!(test.ca.count(Step::Order) < 30, "{}", test.ca.count(Step::Order));
}

#[tokio::test]
async fn an_order_that_is_further_than_a_new_one_is_taken_up_where_it_is() {
    let test = Test::new().await;
    test.ca.rules(|rules| rules.are_names_known = true);
    test.obtain(&wanted(&["a.example"])).await.expect("a certificate of a ready order");
    assert_eq!(test.ca.count(Step::Challenge), 0);

    for status in ["valid", "processing"] {
        test.ca.fails(Step::NewOrder, 1, Answer::Status(status));
        test.obtain(&wanted(&["a.example"])).await.expect("a certificate of the next order");
        test.ca.fails(Step::NewOrder, 2, Answer::Status(status));
        let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("no key");
        assert!(failure.message.contains("whose key is not known"), "{failure}");
    }
    test.ca.fails(Step::NewOrder, 1, Answer::Status("invalid"));
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("invalid");
    assert!(failure.message.contains("has given the order up"), "{failure}");
}

#[tokio::test]
async fn the_chain_that_is_preferred_is_found_or_missed_with_a_warning() {
    let test = Test::new().await;
    test.ca.rules(|rules| rules.alternates = 2);
    for (preferred, warnings) in [("mock root 0", 0), ("mock root 2", 0), ("mock root 9", 1)] {
        let mut wanted = wanted(&["a.example"]);
        wanted.options.preferred_chain = preferred.to_owned();
        let obtained = test.obtain(&wanted).await.expect("a certificate");
        assert_eq!(obtained.warnings.len(), warnings, "{:?}", obtained.warnings);
        let chain = Chain::parse(obtained.chain).expect("a chain");
        let expected = if warnings == 0 { preferred } else { "mock root 0" };
        assert_eq!(chain.root_name(), expected);
    }
    test.ca.fails(Step::Certificate, 1, Answer::Slow(Duration::ZERO));
    test.ca.fails(Step::Certificate, 2, Answer::html(503));
    let mut wanted = wanted(&["a.example"]);
    wanted.options.preferred_chain = "mock root 2".to_owned();
    let obtained = test.obtain(&wanted).await.expect("the first chain is good enough");
    assert_eq!(obtained.warnings.len(), 3, "{:?}", obtained.warnings);
}

#[tokio::test]
async fn a_profile_is_asked_for_only_where_it_is_offered() {
    let test = Test::new().await;
    let mut wanted = wanted(&["a.example"]);
    wanted.options.profile = "shortlived".to_owned();
    let failure = test.obtain(&wanted).await.expect_err("refused");
    assert!(
        failure.to_string().contains("`localhost` does not offer the profile `shortlived`; it offers none"),
        "{failure}"
    );
    assert_eq!(test.ca.count(Step::NewOrder), 0);

    let test = Test::new().await;
    test.ca.rules(|rules| rules.profiles = [("shortlived", 6 * DAY)].into());
    let test = test.restarted().await;
    let obtained = test.obtain(&wanted).await.expect("a certificate");
    assert_eq!(obtained.not_after.duration_since(obtained.not_before), SignedDuration::from_hours(6 * 24));
    wanted.options.profile = "other".to_owned();
    let failure = test.obtain(&wanted).await.expect_err("refused");
    assert!(failure.to_string().ends_with("it offers `shortlived`"), "{failure}");
}

#[tokio::test]
async fn a_renewal_says_what_it_replaces_where_the_ca_lets_it() {
    let test = Test::new().await;
    let first = test.obtain(&wanted(&["a.example"])).await.expect("a certificate");
    let renewal = Wanted { replaces: Some(first.chain), ..wanted(&["a.example"]) };
    test.obtain(&renewal).await.expect("a renewal without renewal information");
    test.ca.rules(|rules| rules.renewal_window = Some((DAY, 2 * DAY)));
    let test = test.restarted().await;
    test.obtain(&renewal).await.expect("a renewal");
    test.obtain(&renewal).await.expect("a renewal of what was replaced already");
    test.ca.rules(|rules| rules.says_replaces = false);
    let other = test.obtain(&wanted(&["a.example"])).await.expect("a certificate");
    let renewal = Wanted { replaces: Some(other.chain), ..wanted(&["a.example"]) };
    test.obtain(&renewal).await.expect("a renewal that the CA does not understand");
    let broken = Wanted { replaces: Some("no certificate".to_owned()), ..wanted(&["a.example"]) };
    test.obtain(&broken).await.expect("a new certificate");
    let replaced: Vec<_> = test.ca.orders().iter().map(|order| order.replaces.is_some()).collect();
    assert_eq!(replaced, [false, false, true, false, false, true, false, false]);
}

#[tokio::test]
async fn a_certificate_that_was_not_asked_for_is_refused() {
    let test = Test::new().await;
    test.ca.rules(|rules| rules.issues_for_another_key = true);
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("another key");
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (Kind::Certificate, "the CA's certificate belongs to another key")
    );
    test.ca.rules(|rules| {
        rules.issues_for_another_key = false;
        rules.forgets_a_name = true;
    });
    let failure = test.obtain(&wanted(&["a.example", "b.example"])).await.expect_err("a name less");
    assert_eq!(failure.message, "the CA's certificate lacks `b.example`");
    test.ca.rules(|rules| {
        rules.forgets_a_name = false;
        rules.validity = Duration::ZERO;
    });
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("expired");
    assert!(failure.message.contains("has expired at"), "{failure}");
}

#[tokio::test]
async fn answers_go_away_with_an_order_that_is_given_up() {
    let test = Test::new().await;
    test.ca.fails(Step::Challenge, 1, Answer::Slow(Duration::from_secs(60)));
    let (account, solver, clock) = (test.account.clone(), test.solver("http-01"), test.clock.clone());
    let running =
        tokio::spawn(async move { obtain(&account, wanted(&["a.example"]).request(), &solver, &clock).await });
    while test.answers.is_empty() {
        tokio::task::yield_now().await;
    }
    running.abort();
    assert!(running.await.expect_err("it was stopped").is_cancelled());
    assert!(test.answers.is_empty());
}

#[tokio::test]
async fn renewal_information_is_advice() {
    let test = Test::new().await;
    let chain = test.obtain(&wanted(&["a.example"])).await.expect("a certificate").chain;
    assert_eq!(renewal_info(&test.authority, &chain, &test.clock).await, None);
    test.ca.rules(|rules| rules.renewal_window = Some((30 * DAY, 31 * DAY)));
    let test = test.restarted().await;
    let info = renewal_info(&test.authority, &chain, &test.clock).await.expect("advice");
    assert_eq!(info.end.duration_since(info.start), SignedDuration::from_hours(24));
    assert_eq!(info.explanation.as_deref(), Some("https://ca.example/why"));
    for (retry_after, hours) in [(Some("21600"), 6), (Some("99999999"), 24), (None, 6), (Some("0"), 0)] {
        test.ca.rules(|rules| rules.retry_after = retry_after);
        let info = renewal_info(&test.authority, &chain, &test.clock).await.expect("advice");
        let wait = info.ask_again.duration_since(test.clock.now()).as_mins() + 1;
        assert!((hours * 60 - 5..=hours * 60 + 1).contains(&wait), "{retry_after:?}: {wait} min");
    }
    for answer in [Answer::html(503), Answer::Garbage, Answer::Drop] {
        test.ca.fails(Step::RenewalInfo, 1, answer);
        assert_eq!(renewal_info(&test.authority, &chain, &test.clock).await, None);
    }
    assert_eq!(renewal_info(&test.authority, "no certificate", &test.clock).await, None);
}

#[tokio::test]
async fn an_account_is_registered_restored_and_registered_again() {
    let test = Test::new().await;
    assert_eq!(test.ca.accounts(), [["mailto:me@a.example"]]);
    let restored = Account::restore(&test.authority, test.account.credentials()).expect("an account");
    assert_eq!(restored.credentials(), test.account.credentials());
    obtain(&restored, wanted(&["a.example"]).request(), &test.solver("http-01"), &test.clock)
        .await
        .expect("a certificate");
    let key = serde_json::from_str::<serde_json::Value>(restored.credentials()).expect("JSON");
    assert!(!format!("{restored:?}").contains(key["key_pkcs8"].as_str().expect("a key")));

    test.ca.forget_accounts();
    let failure = test.obtain(&wanted(&["a.example"])).await.expect_err("no account");
    assert!(failure.is_account_gone(), "{failure}");
    let again = test.register().await;
    obtain(&again, wanted(&["a.example"]).request(), &test.solver("http-01"), &test.clock)
        .await
        .expect("a certificate");

    for (credentials, part) in [
        ("", "cannot be read"),
        (r#"{"id": "x", "key_pkcs8": "bm8ga2V5", "directory": "y"}"#, "none of P-256"),
        (&restored.credentials().replace("/dir", "/other"), "and not to"),
    ] {
        let words = Account::restore(&test.authority, credentials).expect_err("no account");
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn an_account_of_a_customer_needs_what_the_ca_has_given_to_it() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let test = Test::new().await;
    test.ca.rules(|rules| rules.binding = Some(("kid-1", KEY)));
    let test = test.restarted().await;
    let table = [
        (None, Some("set `eab.kid` and `eab.hmacEncoded`")),
        (Some(("kid-2", KEY)), Some("does not allow the account")),
        (Some(("kid-1", "bm90IHRoZSBrZXk=")), Some("does not allow the account")),
        (Some(("", KEY)), Some("needs both")),
        (Some(("kid-1", "")), Some("needs both")),
        (Some(("kid-1", "no base64!")), Some("is not base64")),
        (Some(("kid-1", KEY)), None),
    ];
    for (binding, expected) in table {
        let eab =
            binding.map(|(kid, key)| ExternalAccountBinding { kid: kid.to_owned(), hmac_encoded: key.to_owned() });
        let result = Account::register(&test.authority, &Acme { eab, ..Acme::default() }, &test.clock).await;
        match (result, expected) {
            (Ok(_), None) => {}
            (Err(failure), Some(part)) => assert!(failure.to_string().contains(part), "{binding:?}: {failure}"),
            (result, _) => panic!("{binding:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_ca_is_trusted_by_its_own_root_or_not_at_all() {
    let test = Test::new().await;
    let url = test.ca.directory();
    let other = url.replace("localhost", "127.0.0.1");
    let path = test.root.path().to_string_lossy().into_owned();
    let environment = |path: &str| Environment { certificates: Some(path.to_owned()), ..Environment::default() };
    let table = [
        (options(&url, Some(&path)), Environment::default(), None),
        (options(&url, None), environment(&path), None),
        (options(&url, None), environment(&format!("{path}:{path}")), None),
        (Acme { ca_server_name: "localhost".to_owned(), ..options(&other, Some(&path)) }, environment(""), None),
        (
            Acme { ca_server_name: "ca.example".to_owned(), ..options(&url, Some(&path)) },
            environment(""),
            Some("no trust"),
        ),
    ];
    for (options, environment, expected) in table {
        let (authority, _) = Authority::new(&options, &environment).expect("options");
        let result = authority.directory(&test.clock).await.map(|_| ()).map_err(|failure| failure.to_string());
        match (&result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) if error.contains(part) && error.contains("`caCertificates`") => {}
            _ => panic!("{options:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_ca_that_is_reached_over_https_leads_nobody_to_plain_http() {
    let test = Test::new().await;
    for (url, is_sent) in [(test.ca.directory(), true), (test.ca.directory().replace("https://", "http://"), false)] {
        let request = http::Request::get(&url).body(Bytes::new()).expect("a request");
        match test.authority.send(request).await {
            Ok(_) => assert!(is_sent, "{url}"),
            Err(error) => assert!(!is_sent && error.to_string().contains("without `https://`"), "{url}: {error}"),
        }
    }
}

#[test]
fn options_about_the_ca_are_refused_in_words() {
    let table = [
        ("https://ca.example/dir", Some("/nowhere/root.pem"), "`caCertificates`: `/nowhere/root.pem` cannot be read"),
        ("https://ca.example/dir", Some("Cargo.toml"), "`Cargo.toml` holds no certificate in PEM"),
        ("http://ca.example/dir", None, "must begin with `https://`: plain HTTP is for this machine alone"),
        ("ftp://ca.example/dir", None, "must begin with `https://`"),
        ("/dir", None, "no absolute URL"),
        ("ca example", None, "is no URL"),
    ];
    for (server, certificates, part) in table {
        let error = Authority::new(&options(server, certificates), &Environment::default()).err().expect("refused");
        assert!(error.reason.contains(part), "{server}: {error:?}");
        assert_eq!(error.option, if certificates.is_some() { "caCertificates" } else { "caServer" });
    }
    for (server, expected) in [
        ("https://acme-v01.api.letsencrypt.org/directory", "https://acme-v02.api.letsencrypt.org/directory"),
        (
            "https://acme-staging.api.letsencrypt.org/directory",
            "https://acme-staging-v02.api.letsencrypt.org/directory",
        ),
    ] {
        let root = Some(NamedTempFile::new().expect("a file"));
        let root = root.map(|mut file| {
            let key = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).expect("a certificate");
            file.write_all(key.cert.pem().as_bytes()).expect("a write");
            file
        });
        let path = root.as_ref().map(|file| file.path().to_string_lossy().into_owned());
        let (authority, warnings) =
            Authority::new(&options(server, path.as_deref()), &Environment::default()).expect("options");
        assert_eq!((authority.url(), warnings.len()), (expected, 1));
    }
}

/// A CA, an account with it, and time that flies.
struct Test {
    ca: MockCa,
    root: NamedTempFile,
    authority: Arc<Authority>,
    account: Account,
    answers: Answers,
    clock: Clock,
    _time: Flying,
}

impl Test {
    async fn new() -> Self {
        let (clock, time) = flying();
        let ca = MockCa::with_clock(clock.clone()).await;
        let mut root = NamedTempFile::new().expect("a file");
        root.write_all(ca.root_pem().as_bytes()).expect("a write");
        let authority = authority(&ca, &root);
        let account = register(&authority, &clock).await;
        Self { ca, root, authority, account, answers: Answers::default(), clock, _time: time }
    }

    /// Nothing is remembered of the CA but the account.
    async fn restarted(self) -> Self {
        let authority = authority(&self.ca, &self.root);
        let account = Account::restore(&authority, self.account.credentials()).expect("an account");
        Self { authority, account, ..self }
    }

    async fn register(&self) -> Account {
        register(&self.authority, &self.clock).await
    }

    async fn obtain(&self, wanted: &Wanted) -> Result<Obtained, Failure> {
        self.obtain_by(wanted, &self.solver("http-01")).await
    }

    async fn obtain_by(&self, wanted: &Wanted, solver: &Solver) -> Result<Obtained, Failure> {
        let whole = obtain(&self.account, wanted.request(), solver, &self.clock);
        tokio::time::timeout(Duration::from_secs(60), whole).await.expect("an end")
    }

    fn solver(&self, kind: &str) -> Solver {
        let (answers, delay) = (self.answers.clone(), Duration::ZERO);
        match kind {
            "http-01" => Solver::Http01 { answers, delay },
            _ => Solver::TlsAlpn01 { answers, delay },
        }
    }
}

async fn register(authority: &Arc<Authority>, clock: &Clock) -> Account {
    let options = Acme { email: "me@a.example".to_owned(), ..Acme::default() };
    Account::register(authority, &options, clock).await.expect("an account")
}

fn authority(ca: &MockCa, root: &NamedTempFile) -> Arc<Authority> {
    let options = options(&ca.directory(), Some(&root.path().to_string_lossy()));
    let (authority, _) = Authority::new(&options, &Environment::default()).expect("options");
    Arc::new(authority)
}

fn options(server: &str, certificates: Option<&str>) -> Acme {
    let ca_certificates = certificates.into_iter().map(Into::into).collect();
    Acme { ca_server: server.to_owned(), ca_certificates, ..Acme::default() }
}

/// What a `Request` borrows.
struct Wanted {
    names: Vec<String>,
    options: Acme,
    replaces: Option<String>,
}

impl Wanted {
    fn request(&self) -> Request<'_> {
        Request { names: &self.names, options: &self.options, replaces: self.replaces.as_deref() }
    }
}

fn wanted(names: &[&str]) -> Wanted {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate_timeout = Duration::from_secs(120);
    let options = Acme { key_type: KeyType::Ec256, certificate_timeout, ..Acme::default() };
    Wanted { names, options, replaces: None }
}

fn is_answered(answers: &Answers, look: &Look) -> bool {
    match look.kind.as_str() {
        "http-01" => answers.http(&look.token, &look.name).as_ref() == Some(&look.key_authorization),
        _ => {
            let reverse = (look.name == "192.0.2.1").then_some("1.2.0.192.in-addr.arpa");
            answers.tls_alpn(reverse.unwrap_or(&look.name)).is_some()
        }
    }
}

/// Ends with the test.
struct Flying(JoinHandle<()>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A minute takes less than a second.
fn flying() -> (Clock, Flying) {
    let (clock, hands) = Clock::movable();
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            hands.advance(Duration::from_millis(100));
        }
    });
    (clock, Flying(task))
}
