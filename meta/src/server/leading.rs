//! What the leader does on its own: it notices silent nodes, and proposes repair.

use std::collections::BTreeSet;
use std::time::Duration;

use env::{Clock, Env};
use proto::wire::command::Action;
use proto::{DiskId, ErrorCode, Failure};
use tracing::{debug, error, info, warn};

use super::service::{Service, Shared};
use crate::heal::{Ailing, Healer};
use crate::liveness::Outs;

/// Between two rounds, at most.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// What a leader remembers from round to round.
#[derive(Default)]
struct Memory {
    healer: Healer,
    /// The disks that people heard of as out.
    out: BTreeSet<DiskId>,
    /// People have heard that so many disks are down that none is out.
    told_held_back: bool,
}

/// Runs until the service stops. All it knows ends with its term: a new leader starts afresh.
pub(super) async fn lead<E: Env>(service: Service<E>) {
    let mut term = None;
    let mut memory = Memory::default();
    while let Some(shared) = service.shared() {
        let standing = shared.node.standing();
        if !standing.leads {
            term = None;
        } else if term != Some(standing.term) {
            info!(term = standing.term, "this metadata server leads");
            term = Some(standing.term);
            memory = Memory::default();
        }
        if let Some(term) = term {
            match round(&shared, term, &mut memory).await {
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

async fn round<E: Env>(shared: &Shared<E>, term: u64, memory: &mut Memory) -> Result<(), Failure> {
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
    let outs = shared.node.replica().read(|machine, _| shared.watch(term).liveness.outs(now, machine.map()));
    memory.learn(outs);
    let Memory { healer, out, .. } = memory;
    let ailing = {
        let watch = shared.watch(term);
        let backfill_full = shared.options.fullness.backfill_full_percent;
        let (full, without_room) = (watch.liveness.full_disks(backfill_full), watch.liveness.without_room());
        let share_max_percent = shared.options.detection.out_share_max_percent;
        Ailing {
            out: out.clone(),
            full: full.collect(),
            without_room: without_room.collect(),
            share_max_percent,
        }
    };
    shared.node.replica().read(|machine, _| shared.watch(term).pace.note(now, machine.tasks()));
    let actions = shared.node.replica().read(|machine, kv| healer.next(machine, kv, wall, &ailing));
    let actions = actions.map_err(|error| {
        error!(%error, "the state cannot be read: replace the disk of this metadata server");
        Failure::new(ErrorCode::Internal, error.to_string())
    })?;
    for action in actions {
        propose(shared, action).await?;
    }
    Ok(())
}

impl Memory {
    /// Takes over which disks are out, and tells people what is new.
    fn learn(&mut self, outs: Outs) {
        match outs {
            Outs::Disks(disks) => {
                for disk in disks.difference(&self.out) {
                    info!(%disk, "disk is out: its slots move to other disks");
                }
                (self.out, self.told_held_back) = (disks, false);
            }
            Outs::HeldBack { down, disks } => {
                self.out.clear();
                if !std::mem::replace(&mut self.told_held_back, true) {
                    warn!(
                        down,
                        disks, "too many disks are down at once for a loss: none is out, no slot moves"
                    );
                }
            }
        }
    }
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
