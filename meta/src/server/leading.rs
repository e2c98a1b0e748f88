//! What the leader does on its own: it notices silent nodes, and proposes repair.

use std::time::Duration;

use env::{Clock, Env};
use proto::wire::command::Action;
use proto::{ErrorCode, Failure};
use tracing::{debug, error, info, warn};

use super::service::{Service, Shared};
use crate::heal::Healer;

/// Between two rounds, at most.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Runs until the service stops. All it knows ends with its term: a new leader starts afresh.
pub(super) async fn lead<E: Env>(service: Service<E>) {
    let mut term = None;
    let mut healer = Healer::new();
    while let Some(shared) = service.shared() {
        let standing = shared.node.standing();
        if !standing.leads {
            term = None;
        } else if term != Some(standing.term) {
            info!(term = standing.term, "this metadata server leads");
            term = Some(standing.term);
            healer = Healer::new();
        }
        if let Some(term) = term {
            match round(&shared, term, &mut healer).await {
                Ok(()) => {}
                Err(failure) if failure.code == ErrorCode::NotLeader => debug!(%failure, "leadership lost"),
                Err(failure) => warn!(%failure, "a round of the leader broke off; the next one begins anew"),
            }
        }
        let pause = ROUND_MAX.min(shared.options.detection.suspect_after / 4);
        let clock = shared.env.clock().clone();
        // Not held while it sleeps, so that a stopping server need not wait.
        drop(shared);
        clock.sleep(pause).await;
    }
}

async fn round<E: Env>(shared: &Shared<E>, term: u64, healer: &mut Healer) -> Result<(), Failure> {
    if !shared.is_founded() {
        // The founder may have lost leadership before it came to this.
        return match shared.local.cluster() {
            Some(cluster) => shared.found(cluster).await,
            None => Ok(()),
        };
    }
    shared.node.settle_membership().await?;
    let now = shared.env.clock().now();
    let health =
        shared.node.replica().read(|machine, _| shared.watch(term).liveness.changes(now, machine.map()));
    if let Some(health) = health {
        propose(shared, Action::SetHealth(health)).await?;
    }
    let wall = shared.env.clock().wall();
    let actions = shared.node.replica().read(|machine, kv| healer.next(machine, kv, wall));
    let actions = actions.map_err(|error| {
        error!(%error, "the state cannot be read: replace the disk of this metadata server");
        Failure::new(ErrorCode::Internal, error.to_string())
    })?;
    for action in actions {
        propose(shared, action).await?;
    }
    Ok(())
}

/// What is refused when it is applied was decided on a state that has changed: no news.
async fn propose<E: Env>(shared: &Shared<E>, action: Action) -> Result<(), Failure> {
    match shared.propose(action).await {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.code, ErrorCode::NotLeader | ErrorCode::Unavailable) => Err(failure),
        Err(failure) => {
            debug!(%failure, "a proposal of the leader was refused");
            Ok(())
        }
    }
}
