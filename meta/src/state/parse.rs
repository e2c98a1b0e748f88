//! What comes in commands, parsed once.

use std::time::Duration;

use proto::limits::GRANT_MS;
use proto::{CommandId, ErrorCode, ExtentId, Timestamp, wire};

use crate::state::error::{Error, invalid, refuse};

const GRANT: Duration = Duration::from_millis(GRANT_MS);

/// Cluster times fit the 48 bits that ids have for them.
pub(crate) const TIME_MS_MAX: u64 = (1 << 48) - 1;

/// Is a grant, or the life of a command, that began at `began` over?
pub(crate) fn is_over(began: Timestamp, now: Timestamp) -> bool {
    began.after(GRANT) < now
}

/// Further ahead than a leader's clock can be wrong: such ids would never get old.
fn is_far_ahead(began: Timestamp, now: Timestamp) -> bool {
    now.after(GRANT) < began
}

/// A command's id.
pub(crate) fn command_id(bytes: &[u8]) -> Result<CommandId, Error> {
    let id = CommandId::from_wire(bytes)?;
    if id == CommandId(0) {
        return Err(invalid("the command id is 0; make one from cluster time and random bits"));
    }
    Ok(id)
}

/// Is a command of this id still accepted?
pub(crate) fn check_age(id: CommandId, now: Timestamp) -> Result<(), Error> {
    if is_over(id.made(), now) {
        let sentence = format!(
            "the command was made at {}, more than {} minutes before cluster time {now}; whether it was carried \
             out can no longer be told: look at the result, then send a new command",
            id.made(),
            GRANT_MS / 60_000
        );
        return Err(refuse(ErrorCode::CommandExpired, sentence));
    }
    if is_far_ahead(id.made(), now) {
        let sentence =
            format!("the command id is of {}, far ahead of cluster time {now}: use cluster time", id.made());
        return Err(invalid(sentence));
    }
    Ok(())
}

/// An extent of a commit, with an id under a grant that is not over.
pub(crate) fn granted_extent(bytes: &[u8], now: Timestamp) -> Result<ExtentId, Error> {
    let id = ExtentId::from_wire(bytes)?;
    let granted = id.granted();
    if id == ExtentId(0) {
        return Err(invalid("an extent has the id 0; make one from the grant and random bits"));
    }
    if is_over(granted, now) {
        let sentence = format!(
            "the grant of extent {id} began at {granted} and is over at cluster time {now}: put the object again"
        );
        return Err(refuse(ErrorCode::CommandExpired, sentence));
    }
    if is_far_ahead(granted, now) {
        let sentence = format!("the grant of extent {id} is of {granted}, far ahead of cluster time {now}");
        return Err(invalid(sentence));
    }
    Ok(id)
}

/// What a put or delete asks of the version that is there.
pub(crate) fn check_precondition(
    precondition: Option<&wire::Precondition>,
    found: Option<u64>,
) -> Result<(), Error> {
    use wire::precondition::Condition;
    let Some(precondition) = precondition else { return Ok(()) };
    let (holds, wanted) = match &precondition.condition {
        Some(Condition::IfAbsent(true)) => (found.is_none(), "no object".to_owned()),
        Some(Condition::IfVersion(version)) if *version > 0 => {
            (found == Some(*version), format!("version {version}"))
        }
        Some(Condition::IfAbsent(false) | Condition::IfVersion(_)) | None => {
            return Err(invalid(
                "the precondition says nothing: set if_absent to true, if_version to a version, or leave it out",
            ));
        }
    };
    if holds {
        return Ok(());
    }
    let found = found.map_or("no object".to_owned(), |version| format!("version {version}"));
    Err(refuse(
        ErrorCode::PreconditionFailed,
        format!("expected {wanted} under the key, found {found}: read it again, then decide"),
    ))
}

/// Bit `slot` of a mask of slots.
pub(crate) fn bit(slot: usize) -> u32 {
    u32::try_from(slot).ok().and_then(|slot| 1u32.checked_shl(slot)).unwrap_or_default()
}
