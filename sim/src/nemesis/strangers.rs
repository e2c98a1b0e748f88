//! Those who speak too late, or out of turn ([`late`]), for a while each.

use std::time::Duration;

use super::operators::operate;
use super::strike::{Outcome, Strike};
use crate::late;

/// How long they are about, in milliseconds.
const ABOUT_MS: (u64, u64) = (4_000, 20_000);

fn until(strike: &Strike<'_>) -> Duration {
    strike.cluster.world.now() + Duration::from_millis(strike.draws.between(ABOUT_MS.0, ABOUT_MS.1))
}

/// An old process sends again what was sent before.
pub(super) fn late_requests(strike: &Strike<'_>) -> Outcome {
    let until = until(strike);
    let outcome = strike.hits(None, || format!("an old process is about, until {until:?}"));
    operate(strike.cluster, late::repeat(strike.cluster.clone(), strike.draws.fork("repeats"), until));
    outcome
}

/// A client does what it must not.
pub(super) fn rude_client(strike: &Strike<'_>) -> Outcome {
    let until = until(strike);
    let outcome = strike.hits(None, || format!("until {until:?}"));
    operate(strike.cluster, late::be_rude(strike.cluster.clone(), strike.draws.fork("puts"), until));
    outcome
}

/// What nodes are given to do is out of date.
pub(super) fn old_work(strike: &Strike<'_>) -> Outcome {
    let Some(wire) = strike.cluster.wire() else { return Outcome::Nobody };
    let until = until(strike);
    let outcome = strike.hits(None, || format!("until {until:?}"));
    wire.make_work_old(strike.draws.fork("work"), until);
    outcome
}
