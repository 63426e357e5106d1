use std::thread;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn key(name: &str) -> Key {
    Key { owner: PLUGIN, name: name.to_owned() }
}

const fn ask(per_second: f64, burst: u32, cost: u32, max_wait_ms: u32) -> Ask {
    Ask { per_second, burst, cost, max_wait_ms }
}

#[test]
fn values_stay_until_their_time_is_up() {
    let space = Space::new();
    space.set(key("for-ever"), b"1".to_vec(), None, 0);
    space.set(key("for-a-second"), b"2".to_vec(), Some(1000), 0);
    assert_eq!(space.get(&key("for-a-second"), SECOND - 1), Some(b"2".to_vec()));
    assert_eq!(space.get(&key("for-a-second"), SECOND), None);
    assert_eq!(space.get(&key("for-ever"), NEVER - 1), Some(b"1".to_vec()));
    space.set(key("for-a-second"), b"3".to_vec(), Some(1000), 5 * SECOND);
    assert_eq!(space.get(&key("for-a-second"), 6 * SECOND - 1), Some(b"3".to_vec()), "set again it begins anew");
    space.set(key("for-ever"), Vec::new(), Some(0), 0);
    assert_eq!(space.get(&key("for-ever"), 0), None, "no time at all removes it");
    space.set(key("long"), b"4".to_vec(), Some(u64::MAX), 0);
    assert_eq!(space.get(&key("long"), NEVER - 1), Some(b"4".to_vec()));
}

#[test]
fn counters_count_from_their_start_and_stop_at_the_ends() {
    let space = Space::new();
    for (by, now, sum) in [(2, 0, 2), (-5, SECOND / 2, -3), (1, SECOND - 1, -2), (1, SECOND, 1)] {
        assert_eq!(space.increment(key("c"), by, Some(1000), now), Some(sum), "{by} at {now}");
    }
    assert_eq!(space.get(&key("c"), SECOND), Some(b"1".to_vec()), "it reads as digits");
    assert_eq!(space.increment(key("c"), i64::MAX, None, SECOND), Some(i64::MAX));
    assert_eq!(space.increment(key("c"), 1, None, SECOND), Some(i64::MAX));
    assert_eq!(space.increment(key("d"), i64::MIN, None, 0), Some(i64::MIN));
    assert_eq!(space.increment(key("d"), -1, None, 0), Some(i64::MIN));
    assert_eq!(space.increment(key("e"), 7, Some(0), 0), Some(7), "kept for no time");
    assert_eq!(space.get(&key("e"), 0), None);
    space.set(key("v"), b"1".to_vec(), None, 0);
    assert_eq!(space.increment(key("v"), 1, None, 0), None, "bytes are no counter");
    assert_eq!(space.get(&key("v"), 0), Some(b"1".to_vec()));
    space.set(key("c"), b"x".to_vec(), None, SECOND);
    assert_eq!(space.get(&key("c"), SECOND), Some(b"x".to_vec()), "a value takes the place of a counter");
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let space = Space::new();
    let take = |now| space.take(key("b"), ask(10.0, 3, 1, 0), now);
    for number in 0..3 {
        assert_eq!(take(0), Ok(0), "{number}");
    }
    assert_eq!(take(0), Err(100));
    assert_eq!(take(SECOND / 20), Err(50));
    assert_eq!(take(SECOND / 10), Ok(0));
    assert_eq!(take(SECOND / 10), Err(100));
    for number in 0..3 {
        assert_eq!(take(60 * SECOND), Ok(0), "it never holds more than its burst: {number}");
    }
    assert_eq!(take(60 * SECOND), Err(100));
}

#[test]
fn a_bucket_promises_tokens_that_are_still_to_come() {
    let space = Space::new();
    let take = |cost| space.take(key("b"), ask(10.0, 2, cost, 250), 0);
    assert_eq!((take(2), take(1), take(1)), (Ok(0), Ok(100), Ok(200)));
    assert_eq!(take(1), Err(50), "in 300 ms, of which 250 would be waited for");
    assert_eq!(take(0), Ok(200), "not even nothing overtakes them");
}

#[test]
fn rates_that_make_no_sense_give_the_burst_at_most() {
    for (number, rate) in [f64::NAN, f64::NEG_INFINITY, -1.0, -0.0, 0.0].into_iter().enumerate() {
        let space = Space::new();
        let take = |now| space.take(key("b"), ask(rate, 2, 1, u32::MAX), now);
        assert_eq!((take(0), take(0)), (Ok(0), Ok(0)), "{number}: {rate}");
        assert_eq!((take(0), take(NEVER - 1)), (Err(u64::MAX), Err(u64::MAX)), "{number}: {rate}");
    }
    for rate in [f64::INFINITY, f64::MAX, 1e9] {
        let space = Space::new();
        let take = |now| space.take(key("b"), ask(rate, 2, 1, 0), now);
        assert_eq!((take(0), take(0), take(0)), (Ok(0), Ok(0), Err(1)), "{rate}");
        assert_eq!(take(2), Ok(0), "{rate}: one each nanosecond");
    }
    for rate in [f64::MIN_POSITIVE, 1e-300] {
        let space = Space::new();
        let take = |now| space.take(key("b"), ask(rate, 1, 1, u32::MAX), now);
        assert_eq!(take(0), Ok(0), "{rate}");
        assert!(take(NEVER - 1).is_err_and(|wait| wait > u64::from(u32::MAX)), "{rate}");
    }
}

#[test]
fn nothing_is_taken_that_a_full_bucket_has_not() {
    let space = Space::new();
    assert_eq!(space.take(key("b"), ask(10.0, 3, 4, u32::MAX), 0), Err(u64::MAX));
    assert_eq!(space.take(key("b"), ask(10.0, 0, 1, u32::MAX), 0), Err(u64::MAX));
    assert_eq!(space.take(key("b"), ask(10.0, 0, 0, 0), 0), Ok(0));
    assert_eq!(space.take(key("b"), ask(10.0, 3, 3, 0), 0), Ok(0), "and what was refused has cost nothing");
}

#[test]
fn a_clock_that_two_workers_read_in_another_order_gives_nothing_away() {
    let space = Space::new();
    let take = |now| space.take(key("b"), ask(1.0, 1, 1, 0), now);
    assert_eq!(take(2 * SECOND), Ok(0));
    assert_eq!(take(SECOND), Err(1000));
    assert_eq!(take(3 * SECOND), Ok(0));
    assert_eq!(take(2 * SECOND), Err(1000));
}

#[test]
fn threads_never_count_or_take_twice() {
    const THREADS: u32 = 8;
    const EACH: u32 = 2000;

    let space = Space::new();
    let taken: u32 = thread::scope(|scope| {
        let work = || {
            (0..EACH)
                .filter(|_| {
                    space.increment(key("c"), 1, None, 0);
                    space.take(key("b"), ask(1.0, 5000, 1, 0), 0).is_ok()
                })
                .count()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| u32::try_from(thread.join().expect("it ends")).expect("few")).sum()
    });
    assert_eq!(taken, 5000);
    assert_eq!(space.increment(key("c"), 0, None, 0), Some((THREADS * EACH).into()));
}

#[test]
fn a_bucket_has_a_name_of_its_own() {
    let space = Space::new();
    space.set(key("a"), b"1".to_vec(), None, 0);
    assert_eq!(space.take(key("a"), ask(1.0, 1, 1, 0), 0), Ok(0));
    assert_eq!(space.get(&key("a"), 0), Some(b"1".to_vec()));
}

#[test]
fn each_scope_ends_with_its_owner() {
    let shared = Shared::default();
    let (plugin, m): (Arc<str>, Arc<str>) = ("p".into(), "m@file".into());
    let of_init = shared.of(&plugin, &m);
    let of_router = of_init.on_router();
    let space = Arc::clone(&of_init.space);
    let put = |scopes: &Scopes, scope, name: &str| {
        let owner = scopes.owner(scope).expect("a scope that is there");
        let key = Key { owner, name: name.to_owned() };
        space.set(key.clone(), b"1".to_vec(), None, 0);
        key
    };
    let [all, middleware, router] =
        [Scope::Plugin, Scope::Middleware, Scope::Router].map(|scope| put(&of_router, scope, "k"));
    assert_eq!(of_init.owner(Scope::Router), None);
    assert_eq!(of_router.owner(Scope::Middleware), of_init.owner(Scope::Middleware));
    let other = shared.of(&plugin, &"n@file".into());
    assert_ne!(other.owner(Scope::Middleware), of_init.owner(Scope::Middleware));

    let is_there = |key: &Key| space.get(key, 0).is_some();
    drop(of_router);
    assert_eq!([&all, &middleware, &router].map(is_there), [true, true, false]);
    let swapped = shared.of(&plugin, &m);
    drop(of_init);
    assert_eq!([&all, &middleware].map(is_there), [true, true], "another version of the plugin goes on with it");
    drop(swapped);
    assert_eq!([&all, &middleware].map(is_there), [true, false], "another middleware still uses the plugin");
    drop(other);
    let again = shared.of(&plugin, &m);
    assert!(Arc::ptr_eq(&again.space, &space), "somebody still looks at it");
    drop((again, space));
    let anew = shared.of(&plugin, &m);
    assert_eq!(anew.space.get(&all, 0), None);
}
