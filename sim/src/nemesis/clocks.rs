//! Clocks that drift and jump.

use super::ailments::Ailment;
use super::strike::{Outcome, Strike};
use super::victims;
use simhost::Host;

/// A bad quartz is off by 0.0001; this is 0.1.
const DRIFT_PPM_MAX: u32 = 100_000;
/// Three hours.
const JUMP_MS_MAX: u64 = 3 * 60 * 60 * 1000;
const LASTING_MS_MAX: u64 = 40_000;

/// The clocks of a host run too fast or too slow.
pub(super) fn drift(strike: &Strike<'_>) -> Outcome {
    let Some(host) = strike.pick(&everybody(strike)) else { return Outcome::Nobody };
    let ppm = i32::try_from(strike.ppm(10, DRIFT_PPM_MAX)).unwrap_or_default();
    let ppm = if strike.draws.chance(500_000) { ppm } else { -ppm };
    let lasting = strike.lasting(1_000, LASTING_MS_MAX);
    let outcome = strike.hits(Some(&host), || format!("clocks off by {ppm} ppm for {lasting:?}"));
    strike.ail(vec![Ailment::Drift { host, ppm }], lasting);
    outcome
}

/// The wall clock of a host jumps, and stays so.
pub(super) fn jump(strike: &Strike<'_>) -> Outcome {
    let Some(host) = strike.pick(&everybody(strike)) else { return Outcome::Nobody };
    let by_ms = i64::try_from(strike.draws.skewed(10, JUMP_MS_MAX)).unwrap_or_default();
    let by_ms = if strike.draws.chance(500_000) { by_ms } else { -by_ms };
    let outcome = strike.hits(Some(&host), || format!("wall clock jumps by {by_ms} ms"));
    host.jump_wall(by_ms);
    outcome
}

/// Servers, clients, and the operators.
fn everybody(strike: &Strike<'_>) -> Vec<Host> {
    let mut hosts = victims::everybody(strike.cluster);
    hosts.push(strike.cluster.operator_host().clone());
    hosts
}
