use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tempfile::TempDir;

use super::super::clock::Hands;
use super::super::dns::Settings;
use super::super::dns::server::{DnsServer, How, On};
use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const AUTHORITATIVE: Checks = Checks { authoritative: true, recursive: false };
const NONE: Checks = Checks { authoritative: false, recursive: false };
const FQDN: &str = "_acme-challenge.example.com";

/// A name server and a place for journals; runs of the proxy come and go.
struct World {
    server: DnsServer,
    directory: TempDir,
    turns: Turns,
}

struct Run {
    dns01: Dns01,
    hands: Hands,
}

impl World {
    async fn new() -> Self {
        let server = DnsServer::start().await;
        server.add_zone("example.com", &[("ns.example.com", HERE)]);
        Self { server, directory: tempfile::tempdir().expect("a directory"), turns: Turns::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("acme.json.records")
    }

    fn run(&self) -> Run {
        self.run_with(AUTHORITATIVE, Duration::ZERO)
    }

    fn run_with(&self, checks: Checks, delay_before: Duration) -> Run {
        let (clock, hands) = Clock::movable();
        let address = self.server.address().to_string();
        let variables = [("RFC2136_NAMESERVER".to_owned(), address.clone())].into();
        let settings = Settings {
            resolvers: vec![address],
            timeout: Duration::from_secs(2),
            port: self.server.address().port(),
            ..Settings::default()
        };
        let dns01 = Dns01 {
            resolver: "le".to_owned(),
            provider: Provider::Rfc2136(Box::new(Rfc2136::new(&variables, false).expect("variables"))),
            dns: Dns::new(&settings).expect("addresses"),
            propagation: Propagation { checks, delay_before },
            clock,
            journal: Journal::open(&self.path()).expect("a journal"),
            turns: self.turns.clone(),
        };
        Run { dns01, hands }
    }

    fn values(&self) -> Vec<String> {
        self.server.txt(FQDN)
    }
}

impl Run {
    async fn present(&self, value: &str) -> Result<Record, Failure> {
        self.dns01.present("example.com", "token", "token.thumbprint", value).await
    }

    /// Lets time go by, a second at a time, until the future is done.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            output = future => output,
            never = self.time_goes_by() => never,
        }
    }

    async fn time_goes_by<T>(&self) -> T {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.hands.advance(Duration::from_secs(1));
        }
    }
}

/// Drops the future as soon as something is true.
async fn crash<T>(future: impl Future<Output = T>, when: impl Fn() -> bool) {
    tokio::select! {
        _ = future => panic!("it was done before it could crash"),
        () = until(when) => {}
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it has not become true");
}

#[tokio::test]
async fn a_record_is_made_and_seen_and_deleted() {
    let world = World::new().await;
    let run = world.run();
    let record = run.present("value").await.expect("made");
    assert_eq!(world.values(), ["value"]);
    assert!(world.path().exists(), "it is written down");
    run.dns01.wait(&[&record]).await.expect("seen");
    run.dns01.cleanup(record).await;
    assert_eq!(world.values(), Vec::<String>::new());
    assert!(!world.path().exists(), "nothing is left to delete");
}

/// Each row is one moment at which the proxy may be killed.
#[tokio::test]
async fn the_next_run_deletes_what_a_crash_leaves_behind() {
    // Written down, but not made.
    let world = World::new().await;
    world.server.misbehave(On::Update, How::IsSilent, usize::MAX);
    let run = world.run();
    crash(run.present("value"), || world.server.updates() > 0).await;
    assert_eq!(world.values(), Vec::<String>::new());
    next_run_deletes(&world, "before it was made").await;

    // Made, but the answer has not come.
    let world = World::new().await;
    world.server.misbehave(On::Update, How::AppliesInSilence, usize::MAX);
    let run = world.run();
    crash(run.present("value"), || !world.values().is_empty()).await;
    next_run_deletes(&world, "before it was known to be made").await;

    // Made and known.
    let world = World::new().await;
    let record = world.run().present("value").await.expect("made");
    drop(record);
    assert_eq!(world.values(), ["value"]);
    next_run_deletes(&world, "while it was needed").await;

    // Waited for.
    let world = World::new().await;
    world.server.misbehave(On::Type(RecordType::TXT), How::IsSilent, usize::MAX);
    let run = world.run();
    let record = run.present("value").await.expect("made");
    world.server.forget_questions();
    crash(run.dns01.wait(&[&record]), || world.server.asked().iter().any(|(_, kind)| *kind == RecordType::TXT)).await;
    drop(record);
    next_run_deletes(&world, "while it was waited for").await;

    // About to be deleted, and deleted without an answer.
    for (how, when) in [(How::IsSilent, "before it was deleted"), (How::AppliesInSilence, "after it was deleted")] {
        let world = World::new().await;
        let run = world.run();
        let record = run.present("value").await.expect("made");
        world.server.misbehave(On::Update, how, usize::MAX);
        crash(run.dns01.cleanup(record), || world.server.updates() > 1).await;
        next_run_deletes(&world, when).await;
    }
}

async fn next_run_deletes(world: &World, when: &str) {
    world.server.behave();
    assert!(world.path().exists(), "{when}: it is written down");
    world.run().dns01.clean_up_after_crash().await;
    assert_eq!(world.values(), Vec::<String>::new(), "{when}: the record is gone");
    assert!(!world.path().exists(), "{when}: and forgotten");
}

#[tokio::test]
async fn the_same_run_deletes_what_nobody_needs_any_more() {
    let world = World::new().await;
    let run = world.run();
    let needed = run.present("needed").await.expect("made");
    drop(run.present("dropped").await.expect("made"));
    run.dns01.clean_up_after_crash().await;
    assert_eq!(world.values(), ["needed"]);
    run.dns01.cleanup(needed).await;
    assert_eq!(world.values(), Vec::<String>::new());
}

#[tokio::test]
async fn only_its_own_provider_and_resolver_delete_a_record() {
    let world = World::new().await;
    drop(world.run().present("value").await.expect("made"));
    let mut run = world.run();
    run.dns01.resolver = "staging".to_owned();
    run.dns01.clean_up_after_crash().await;
    assert_eq!(world.values(), ["value"]);
    let text = std::fs::read_to_string(world.path()).expect("a journal");
    std::fs::write(world.path(), text.replace("rfc2136", "digitalocean")).expect("written");
    world.run().dns01.clean_up_after_crash().await;
    assert_eq!(world.values(), ["value"]);
    assert!(world.path().exists(), "the provider may come back");
}

#[tokio::test]
async fn a_record_for_two_is_made_once_and_deleted_after_the_last() {
    let world = World::new().await;
    let run = world.run();
    let (apex, wildcard) = tokio::join!(run.present("value"), run.present("value"));
    let (apex, wildcard) = (apex.expect("made"), wildcard.expect("shared"));
    assert_eq!((world.values(), world.server.updates()), (vec!["value".to_owned()], 1));
    run.dns01.cleanup(apex).await;
    assert_eq!(world.values(), ["value"], "one of them still needs it");
    run.dns01.cleanup(wildcard).await;
    assert_eq!(world.values(), Vec::<String>::new());
}

#[tokio::test]
async fn records_of_two_challenges_stand_side_by_side() {
    let world = World::new().await;
    let run = world.run();
    let (apex, wildcard) = tokio::join!(run.present("apex"), run.present("wildcard"));
    let (apex, wildcard) = (apex.expect("made"), wildcard.expect("made"));
    run.dns01.wait(&[&apex, &wildcard]).await.expect("seen");
    run.dns01.cleanup(apex).await;
    assert_eq!(world.values(), ["wildcard"]);
    run.dns01.cleanup(wildcard).await;
    assert!(world.values().is_empty() && !world.path().exists());
}

#[tokio::test]
async fn one_at_a_time_touches_a_zone() {
    let world = World::new().await;
    let (one, two) = (world.run(), world.run());
    world.server.misbehave(On::Update, How::IsSilent, usize::MAX);
    let asked = || world.server.asked().iter().filter(|(_, kind)| *kind == RecordType::SOA).count();
    {
        let first = one.present("one");
        let second = async {
            until(|| world.server.updates() > 0).await;
            let questions = asked();
            tokio::select! {
                _ = two.present("two") => panic!("it is not its turn"),
                () = until(|| asked() >= questions + 2) => {}
            }
        };
        tokio::select! {
            _ = first => panic!("nobody answers"),
            () = second => {}
        }
    }
    let journal = std::fs::read_to_string(world.path()).expect("a journal");
    assert!(!journal.contains("\"two\""), "the second has not begun: {journal}");
    world.server.behave();
    two.present("two").await.expect("its turn has come");
}

#[tokio::test]
async fn a_slow_zone_is_waited_for() {
    let world = World::new().await;
    let run = world.run();
    world.server.misbehave(On::Type(RecordType::TXT), How::Lacks, 5);
    let record = run.present("value").await.expect("made");
    let begun = run.dns01.clock.now();
    run.in_time(run.dns01.wait(&[&record])).await.expect("seen in the end");
    let waited = run.dns01.clock.now().duration_since(begun).as_secs();
    assert!((10..=30).contains(&waited), "five times two seconds, {waited}");
}

#[tokio::test]
async fn one_slow_server_of_two_is_waited_for() {
    let world = World::new().await;
    let second = world.server.secondary(THERE).await.expect("the same port on another address");
    world.server.add_zone("slow.example", &[("ns1.slow.example", HERE), ("ns2.slow.example", THERE)]);
    second.misbehave(On::Type(RecordType::TXT), How::Lacks, 3);
    let run = world.run();
    let record = run.dns01.present("slow.example", "token", "token.thumbprint", "value").await.expect("made");
    run.in_time(run.dns01.wait(&[&record])).await.expect("seen in the end");
    assert_eq!(second.asked().len(), 4);
}

#[tokio::test]
async fn a_record_that_is_never_seen_is_given_up_with_the_servers_name() {
    let world = World::new().await;
    let run = world.run();
    world.server.misbehave(On::Type(RecordType::TXT), How::Lacks, usize::MAX);
    let record = run.present("value").await.expect("made");
    let begun = run.dns01.clock.now();
    let failure = run.in_time(run.dns01.wait(&[&record])).await.expect_err("never seen");
    let waited = run.dns01.clock.now().duration_since(begun).as_secs();
    assert!((58..=70).contains(&waited), "a minute, {waited}");
    for expected in
        ["`_acme-challenge.example.com.` within 60 s", "`ns.example.com.` does not have it", "_PROPAGATION_TIMEOUT"]
    {
        assert!(failure.message.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_told_apart_with_ways_out() {
    let world = World::new().await;
    world.server.add_zone("far.example", &[("ns.far.example", THERE)]);
    let run = world.run();
    let record = run.dns01.present("far.example", "token", "token.thumbprint", "value").await.expect("made");
    let failure = run.in_time(run.dns01.wait(&[&record])).await.expect_err("never seen");
    for expected in
        ["`ns.far.example.` cannot be reached", "`propagation.disableANSChecks`", "`dnsChallenge.resolvers`"]
    {
        assert!(failure.message.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn the_delay_comes_once_and_before_the_first_look() {
    let world = World::new().await;
    let run = world.run_with(AUTHORITATIVE, Duration::from_secs(300));
    world.server.misbehave(On::Type(RecordType::TXT), How::Lacks, 3);
    let record = run.present("value").await.expect("made");
    let begun = run.dns01.clock.now();
    run.in_time(run.dns01.wait(&[&record])).await.expect("seen in the end");
    let waited = run.dns01.clock.now().duration_since(begun).as_secs();
    assert!((306..=340).contains(&waited), "the delay and three times two seconds, {waited}");
}

#[tokio::test]
async fn the_delay_comes_once_for_all_records_of_an_order() {
    let world = World::new().await;
    let run = world.run_with(AUTHORITATIVE, Duration::from_secs(300));
    let mut records = Vec::new();
    for value in ["apex", "wildcard", "third"] {
        records.push(run.present(value).await.expect("made"));
    }
    world.server.forget_questions();
    let begun = run.dns01.clock.now();
    let records: Vec<_> = records.iter().collect();
    run.in_time(run.dns01.wait(&records)).await.expect("seen");
    let waited = run.dns01.clock.now().duration_since(begun).as_secs();
    assert!((300..=340).contains(&waited), "once and not three times, {waited}");
    let looks = world.server.asked().iter().filter(|(_, kind)| *kind == RecordType::TXT).count();
    assert_eq!(looks, 3, "each of them is looked for");

    let begun = run.dns01.clock.now();
    run.in_time(run.dns01.wait(&[])).await.expect("nothing to see");
    assert!(run.dns01.clock.now().duration_since(begun).as_secs() < 300, "nothing to wait for");
}

#[tokio::test]
async fn without_checks_nobody_is_asked() {
    let world = World::new().await;
    let run = world.run_with(NONE, Duration::from_secs(300));
    let record = run.present("value").await.expect("made");
    world.server.forget_questions();
    let begun = run.dns01.clock.now();
    run.in_time(run.dns01.wait(&[&record])).await.expect("assumed");
    assert!(run.dns01.clock.now().duration_since(begun).as_secs() >= 300, "the delay is for this case too");
    assert_eq!(world.server.asked(), []);
}

#[tokio::test]
async fn a_record_that_cannot_be_deleted_is_tried_again_and_stays_in_the_journal() {
    let world = World::new().await;
    let run = world.run();
    let record = run.present("value").await.expect("made");
    world.server.misbehave(On::Update, How::Answers(ResponseCode::ServFail), usize::MAX);
    let begun = run.dns01.clock.now();
    run.in_time(run.dns01.cleanup(record)).await;
    assert!(run.dns01.clock.now().duration_since(begun).as_secs() >= 72);
    assert_eq!((world.server.updates(), world.values()), (5, vec!["value".to_owned()]));
    next_run_deletes(&world, "after it could not be deleted").await;
}

#[tokio::test]
async fn a_passing_failure_delays_a_deletion() {
    let world = World::new().await;
    let run = world.run();
    let record = run.present("value").await.expect("made");
    world.server.misbehave(On::Update, How::Answers(ResponseCode::ServFail), 2);
    run.in_time(run.dns01.cleanup(record)).await;
    assert!(world.values().is_empty() && !world.path().exists());
}

#[tokio::test]
async fn what_was_refused_leaves_nothing_to_delete() {
    let world = World::new().await;
    world.server.misbehave(On::Update, How::Answers(ResponseCode::Refused), 1);
    let failure = world.run().present("value").await.err().expect("refused");
    assert!(failure.message.starts_with("failed to make the TXT record `_acme-challenge.example.com.`:"), "{failure}");
    assert_eq!(world.server.updates(), 1, "there is nothing to undo");
    assert!(!world.path().exists());
}

#[tokio::test]
async fn a_refusal_does_not_forget_what_an_earlier_run_may_have_made() {
    let world = World::new().await;
    world.server.misbehave(On::Update, How::AppliesInSilence, usize::MAX);
    let run = world.run();
    crash(run.present("value"), || !world.values().is_empty()).await;
    world.server.behave();
    world.server.misbehave(On::Update, How::Answers(ResponseCode::Refused), 1);
    assert!(world.run().present("value").await.is_err());
    next_run_deletes(&world, "after a refusal").await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_made() {
    let world = World::new().await;
    let mut run = world.run();
    run.dns01.journal = Journal::open(&world.directory.path().join("missing/records")).expect("an empty journal");
    let failure = run.present("value").await.err().expect("it would be lost in a crash");
    assert!(failure.message.starts_with("failed to write"), "{failure}");
    assert_eq!((world.server.updates(), world.values()), (0, Vec::new()));
}

#[test]
fn providers_that_no_component_can_be_are_refused_by_name() {
    for provider in ["exec", "manual"] {
        let error = refuse(provider).expect_err(provider).to_string();
        assert!(error.contains(&format!("`{provider}` is not supported")), "{error}");
    }
    refuse("rfc2136").expect("it is one of ours");
}
