//! Processes that die, stand still, or are restarted. The supervisor starts them again.

use simhost::Death;

use super::ailments::Ailment;
use super::strike::{Outcome, Strike};
use super::victims;

/// Longest rest of a killed process, in milliseconds.
const REST_MS_MAX: u64 = 8_000;
/// Longest time for which a process stands still, in milliseconds.
const PAUSE_MS_MAX: u64 = 10_000;
/// … of a client: long enough for slots to move off a disk that went down meanwhile.
const CLIENT_PAUSE_MS_MAX: u64 = 30_000;
/// Operations on disks, stores and the network until a doomed process dies, at most.
const DOOM_OPERATIONS_MAX: u64 = 500;

/// A server's process is killed.
pub(super) fn kill(strike: &Strike<'_>) -> Outcome {
    let Some(process) = strike.pick(&victims::running(strike.cluster)) else { return Outcome::Nobody };
    let rest = strike.lasting(0, REST_MS_MAX);
    let outcome = strike.hits(Some(process.host()), || format!("killed, for {rest:?}"));
    process.kill(Death::Process, rest);
    outcome
}

/// A server dies in the middle of what it does.
pub(super) fn doom(strike: &Strike<'_>) -> Outcome {
    let Some(process) = strike.pick(&victims::running(strike.cluster)) else { return Outcome::Nobody };
    let operations = strike.draws.skewed(0, DOOM_OPERATIONS_MAX);
    let death = if strike.draws.chance(500_000) { Death::Process } else { Death::Power };
    let after = strike.draws.chance(500_000);
    let outcome = strike.hits(Some(process.host()), || {
        let when = if after { "after" } else { "before" };
        format!("dies ({death:?}) {when} the operation that comes {operations} after this")
    });
    process.host().doom(operations, death, after);
    outcome
}

/// A process stands still: a server, or now and then a client.
pub(super) fn pause(strike: &Strike<'_>) -> Outcome {
    let mut running = victims::running(strike.cluster);
    let mut most = PAUSE_MS_MAX;
    if strike.draws.chance(250_000) {
        most = CLIENT_PAUSE_MS_MAX;
        running = strike.cluster.clients();
        running.retain(|client| client.host().is_alive());
    }
    let Some(process) = strike.pick(&running) else { return Outcome::Nobody };
    let lasting = strike.lasting(50, most);
    let outcome = strike.hits(Some(process.host()), || format!("stands still for {lasting:?}"));
    strike.ail(vec![Ailment::Pause(process.host().clone())], lasting);
    outcome
}

/// An operator restarts a server, as one should.
pub(super) fn restart(strike: &Strike<'_>) -> Outcome {
    let (metas, nodes) = (victims::metas(strike.cluster), victims::nodes(strike.cluster));
    let at = strike.draws.index(metas.len() + nodes.len());
    let meta = metas.get(at);
    let node = at.checked_sub(metas.len()).and_then(|at| nodes.get(at));
    let process = meta.map(|meta| &meta.process).or(node.map(|node| &node.process));
    let Some(process) = process.filter(|process| process.host().is_alive()) else { return Outcome::Nobody };
    let rest = strike.lasting(0, REST_MS_MAX);
    let outcome = strike.hits(Some(process.host()), || format!("restarted, after {rest:?}"));
    process.rest(rest);
    meta.inspect(|meta| meta.stop());
    node.inspect(|node| node.stop());
    outcome
}

/// A client's process dies, with all that it was about to do.
pub(super) fn client_vanishes(strike: &Strike<'_>) -> Outcome {
    let clients: Vec<_> =
        strike.cluster.clients().into_iter().filter(|client| client.host().is_alive()).collect();
    let Some(client) = strike.pick(&clients) else { return Outcome::Nobody };
    let rest = strike.lasting(100, REST_MS_MAX);
    let outcome = strike.hits(Some(client.host()), || format!("vanishes, for {rest:?}"));
    client.kill(Death::Process, rest);
    outcome
}
