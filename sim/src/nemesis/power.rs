//! Power: of what was not flushed anything may be gone.

use simhost::Death;

use super::strike::{Outcome, Strike};
use super::victims;
use crate::process::Process;

/// Longest time until a machine is up again after a moment without power, in milliseconds.
const BOOT_MS_MAX: u64 = 8_000;
/// An outage lasts from here …
const OUTAGE_MS_MIN: u64 = 4_000;
/// … to here, in milliseconds.
const OUTAGE_MS_MAX: u64 = 40_000;

/// A server.
pub(super) fn machine(strike: &Strike<'_>) -> Outcome {
    let Some(process) = strike.pick(&victims::running(strike.cluster)) else { return Outcome::Nobody };
    let outcome = strike.hits(Some(process.host()), || "without power for a moment".to_owned());
    fail(strike, &[process]);
    outcome
}

/// All that stands in a rack.
pub(super) fn rack(strike: &Strike<'_>) -> Outcome {
    let Some(rack) = strike.pick(&victims::racks(strike.cluster)) else { return Outcome::Nobody };
    let outcome = strike.hits(None, || format!("rack {rack} without power for a moment"));
    fail(strike, &victims::in_rack(strike.cluster, rack));
    outcome
}

/// Every server.
pub(super) fn all(strike: &Strike<'_>) -> Outcome {
    let outcome = strike.hits(None, || "all servers without power for a moment".to_owned());
    fail(strike, &victims::servers(strike.cluster));
    outcome
}

/// A rack, for longer: its machines come back about the same time.
pub(super) fn rack_outage(strike: &Strike<'_>) -> Outcome {
    let Some(rack) = strike.pick(&victims::racks(strike.cluster)) else { return Outcome::Nobody };
    let lasting = strike.lasting(OUTAGE_MS_MIN, OUTAGE_MS_MAX);
    let outcome = strike.hits(None, || format!("rack {rack} without power for {lasting:?}"));
    for process in victims::in_rack(strike.cluster, rack) {
        process.kill(Death::Power, lasting + strike.lasting(0, 1_000));
    }
    outcome
}

/// Each is back when it is ready.
fn fail(strike: &Strike<'_>, processes: &[Process]) {
    for process in processes {
        process.kill(Death::Power, strike.lasting(0, BOOT_MS_MAX));
    }
}
