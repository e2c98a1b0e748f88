//! The clock's suite.

use std::future::{pending, ready};
use std::time::Duration;

use proto::Timestamp;

use crate::clock::{Clock, Elapsed, Monotonic};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

/// Checks [`Clock`].
///
/// # Panics
///
/// When a clause does not hold.
pub async fn clock<C: Clock>(clock: &C) {
    never_falls(clock);
    sleeps_last(clock).await;
    timeouts_drop(clock).await;
}

fn never_falls<C: Clock>(clock: &C) {
    let other = clock.clone();
    let mut last = clock.now();
    for _ in 0..1000 {
        let theirs = other.now();
        let ours = clock.now();
        assert!(last <= theirs && theirs <= ours, "now fell: {last:?}, {theirs:?}, {ours:?}");
        last = ours;
    }
    assert!(clock.wall() > Timestamp::ZERO, "the wall clock stands at 1970");
}

async fn sleeps_last<C: Clock>(clock: &C) {
    let began = clock.now();
    clock.sleep(SHORT).await;
    let slept = clock.now().since(began);
    assert!(slept >= SHORT, "a sleep of {SHORT:?} ended after {slept:?}");

    let deadline = clock.now().after(SHORT);
    clock.sleep_until(deadline).await;
    assert!(clock.now() >= deadline, "a sleep ended before its deadline");
    clock.sleep_until(Monotonic::default()).await;

    // Two branches that only sleep for no time both come to their ends: each lets the other run.
    let turns = async {
        for _ in 0..100 {
            clock.sleep(Duration::ZERO).await;
        }
    };
    let others = async {
        for _ in 0..100 {
            clock.sleep(Duration::ZERO).await;
        }
    };
    tokio::join!(turns, others);
}

async fn timeouts_drop<C: Clock>(clock: &C) {
    let began = clock.now();
    assert_eq!(clock.timeout(SHORT, pending::<()>()).await, Err(Elapsed), "work without end ended");
    assert!(clock.now().since(began) >= SHORT, "a time-out came early");
    assert_eq!(clock.timeout(Duration::ZERO, ready(7)).await, Ok(7), "ready work lost to the deadline");
    assert_eq!(clock.timeout(LONG, async { 8 }).await, Ok(8), "work lost to a distant deadline");
    let outer = clock.timeout(SHORT, clock.sleep(LONG)).await;
    assert_eq!(outer, Err(Elapsed), "a dropped sleep went on");
}
