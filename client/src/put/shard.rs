//! One shard on its way to its disk.

use std::time::Duration;

use bytes::Bytes;
use env::rpc::{CallError, Target};
use env::{Clock, Env, NetError};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{Epoch, ErrorCode, Failure, SlotIndex, StripeIndex, wire};

use crate::cluster::Shared;

/// First pause when a node says that it has too much to do; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// A shard to write.
pub(super) struct ShardWrite {
    pub(super) stripe: StripeIndex,
    pub(super) slot: SlotIndex,
    pub(super) target: Target,
    pub(super) call: wire::WriteShard,
    pub(super) payload: Bytes,
}

/// What became of it.
pub(super) struct ShardDone {
    pub(super) stripe: StripeIndex,
    pub(super) slot: SlotIndex,
    /// Under which it was sent.
    pub(super) epoch: Epoch,
    /// The shard comes back when it was not taken.
    pub(super) result: Result<(), (CallError, Unsent)>,
}

/// What is needed to send a shard again.
pub(super) struct Unsent {
    pub(super) payload: Bytes,
    pub(super) hint: Bytes,
}

impl ShardWrite {
    /// Sends it until the disk has it, or says no, or `timeout` is over. Repeating is safe: the same
    /// shard again is a success.
    pub(super) async fn run<E: Env>(self, shared: &Shared<E>, timeout: Duration) -> ShardDone {
        let Self { stripe, slot, target, call, payload } = self;
        let epoch = Epoch(call.epoch);
        let clock = shared.env.clock();
        let deadline = clock.now().after(timeout);
        let mut tries = 0;
        let error = loop {
            let left = deadline.since(clock.now());
            let call = Call::WriteShard(call.clone());
            let sent = shared.leader.caller().call(&target, call, vec![payload.clone()], left).await;
            let error = match sent {
                Ok(reply) if matches!(reply.result, Outcome::WriteShard(_)) => {
                    return ShardDone { stripe, slot, epoch, result: Ok(()) };
                }
                Ok(_) => {
                    break Failure::new(ErrorCode::VersionMismatch, "not an answer to write-shard").into();
                }
                Err(error) => error,
            };
            match pause_before_retry(&error, tries) {
                Some(pause) if clock.now().after(pause) < deadline => clock.sleep(pause).await,
                _ => break error,
            }
            tries += 1;
        };
        ShardDone { stripe, slot, epoch, result: Err((error, Unsent { payload, hint: call.hint })) }
    }
}

/// Whether the same disk is worth another try, and after which pause.
fn pause_before_retry(error: &CallError, tries: u32) -> Option<Duration> {
    match error {
        // The connection was closed while it was idle, or the node was just restarted.
        CallError::Net { error: NetError::Lost(_) | NetError::Reset, .. } if tries == 0 => {
            Some(Duration::ZERO)
        }
        CallError::Failed(failure) => match failure.code {
            ErrorCode::ChecksumMismatch if tries < 2 => Some(Duration::ZERO),
            ErrorCode::Overloaded if tries < 8 => Some(PAUSE_MIN.saturating_mul(1 << tries)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes is tried again, but not for ever; what stays is not.
    #[test]
    fn retries_are_few() {
        let failed = |code| CallError::from(Failure::new(code, "x"));
        let lost = CallError::Net { address: "a".into(), error: NetError::Lost("x".into()) };
        assert_eq!(pause_before_retry(&lost, 0), Some(Duration::ZERO));
        assert_eq!(pause_before_retry(&lost, 1), None);
        assert_eq!(pause_before_retry(&failed(ErrorCode::Overloaded), 3), Some(PAUSE_MIN * 8));
        for code in ErrorCode::ALL {
            assert_eq!(pause_before_retry(&failed(*code), 8), None, "{}", code.name());
        }
        assert_eq!(pause_before_retry(&failed(ErrorCode::DiskFull), 0), None);
    }
}
