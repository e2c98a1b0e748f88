//! One command after another: time, the founding, repetitions; the deed itself is a file for each.

use env::{KvRead, StorageError};
use proto::{ErrorCode, Failure, wire};
use wire::command::Action;
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, invalid};
use crate::state::parse::{TIME_MS_MAX, check_age, command_id, is_over};
use crate::state::tx::row;
use crate::state::{Machine, Pending, Tx, tables as t};

/// Expired outcomes that any command drops, so that they never pile up: more than it adds.
const DROPPED_PER_COMMAND: usize = 4;
/// Expired outcomes that a tick drops.
const DROPPED_PER_TICK: usize = 512;

impl Machine {
    /// Carries out the command at place `index` of the log.
    ///
    /// Reads see `pending` over `kv`; changes go to `pending`, and to memory. A refusal is an outcome as
    /// well; it changes nothing but cluster time.
    ///
    /// # Errors
    ///
    /// Those of the store, and `Corrupt` or `Invalid` when rows contradict each other. Memory may be
    /// changed by halves then: the process must end, and start again from the store.
    pub fn apply(
        &mut self,
        kv: &impl KvRead,
        index: u64,
        command: wire::Command,
        pending: &mut Pending,
    ) -> Result<wire::Outcome, StorageError> {
        if command.proposed_ms > TIME_MS_MAX {
            let sentence =
                format!("the leader's clock says {} ms, beyond the year 10889", command.proposed_ms);
            return Ok(refusal(Failure::new(ErrorCode::InvalidRequest, sentence)));
        }
        let totals = self.totals.clone();
        self.totals.cluster_time_ms = self.totals.cluster_time_ms.max(command.proposed_ms);
        let mut tx = Tx::new(kv, pending, index, self.cluster_time());
        self.keep_group_bytes(&mut tx);
        let drops = match &command.action {
            Some(Action::Tick(_)) => DROPPED_PER_TICK,
            _ => DROPPED_PER_COMMAND,
        };
        let outcome = match self.once(&mut tx, command.action) {
            Ok(answer) => wire::Outcome { outcome: Some(answer) },
            Err(Error::Refused(failure)) => refusal(failure),
            Err(Error::Storage(error)) => return Err(error),
        };
        self.drop_expired(&mut tx, drops)?;
        if self.totals != totals {
            tx.put(t::TOTALS, t::totals_key(), &self.totals);
        }
        Ok(outcome)
    }

    /// Carries out an action unless one of the same id was carried out before.
    fn once<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, action: Option<Action>) -> Result<Answer, Error> {
        let action = action.ok_or_else(|| {
            invalid("the command has no action that this version knows: update this metadata server")
        })?;
        if !matches!(action, Action::FoundCluster(_) | Action::Tick(_)) {
            self.founded()?;
        }
        let Some(id) = id_of(&action) else { return self.act(tx, action) };
        let id = command_id(id)?;
        if let Some(stored) = tx.row::<wire::CommandRow>(t::COMMANDS, &t::command_key(id))? {
            return repeated(&action, stored);
        }
        check_age(id, tx.now)?;
        let answer = self.act(tx, action);
        let outcome = match &answer {
            Ok(answer) => wire::Outcome { outcome: Some(answer.clone()) },
            // The caller takes it for the end of the command: an earlier attempt that comes late must not
            // find the condition true.
            Err(Error::Refused(failure)) if failure.code == ErrorCode::PreconditionFailed => {
                refusal(failure.clone())
            }
            Err(_) => return answer,
        };
        tx.put(t::COMMANDS, t::command_key(id), &wire::CommandRow { outcome: Some(outcome) });
        self.oldest_command = Some(self.oldest_command.map_or(id, |oldest| oldest.min(id)));
        answer
    }

    /// Was a command of this id carried out, as far as is remembered?
    ///
    /// # Errors
    ///
    /// When it is no id; those of the store.
    pub(crate) fn is_carried_out(&self, kv: &impl KvRead, id: &[u8]) -> Result<bool, Error> {
        let found: Option<wire::CommandRow> = row(kv, t::COMMANDS, &t::command_key(command_id(id)?))?;
        Ok(found.is_some())
    }

    fn act<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, action: Action) -> Result<Answer, Error> {
        match action {
            Action::FoundCluster(found) => self.found_cluster(found),
            Action::RegisterNode(register) => self.register_node(tx, register),
            Action::CreateTenant(create) => self.create_tenant(tx, create),
            Action::CreateBucket(create) => self.create_bucket(tx, create),
            Action::CreateProfile(create) => self.create_profile(tx, create),
            Action::CommitObject(commit) => self.commit_object(tx, commit),
            Action::DeleteObject(delete) => self.delete_object(tx, delete),
            Action::ReportWork(report) => self.report_work(tx, report),
            Action::SetHealth(health) => self.set_health(tx, health),
            Action::FormSubstitutes(form) => self.form_substitutes(tx, form),
            Action::MoveSlot(to) => self.move_slot(tx, to),
            Action::BeginTask(begin) => self.begin_task(tx, &begin),
            Action::SetTask(set) => self.set_task(tx, &set),
            Action::Undrain(undrain) => self.undrain(tx, &undrain),
            Action::ForgetNode(forget) => self.forget_node(tx, &forget),
            Action::EndTask(end) => self.end_task(tx, &end),
            Action::FailDisk(fail) => self.fail_disk(tx, fail),
            Action::ForgetLeftovers(forget) => self.forget_leftovers(tx, &forget),
            Action::Tick(_) => Ok(Answer::Done(true)),
        }
    }

    /// Drops outcomes of commands that are not accepted any more, the oldest first.
    fn drop_expired<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, limit: usize) -> Result<(), StorageError> {
        let Some(oldest) = self.oldest_command.filter(|oldest| is_over(oldest.made(), tx.now)) else {
            return Ok(());
        };
        // From the oldest on, not from the table's start, where the removed rows may still slow a scan.
        let range = t::whole_table().from(&t::command_key(oldest));
        let rows = tx.scan(t::COMMANDS, &range, limit.saturating_add(1))?;
        self.oldest_command = None;
        for (place, (key, _)) in rows.into_iter().enumerate() {
            let id = t::command_of(&key)?;
            if place >= limit || !is_over(id.made(), tx.now) {
                self.oldest_command = Some(id);
                break;
            }
            tx.delete(t::COMMANDS, key);
        }
        Ok(())
    }
}

fn id_of(action: &Action) -> Option<&[u8]> {
    match action {
        Action::CreateTenant(create) => Some(&create.command_id),
        Action::CreateBucket(create) => Some(&create.command_id),
        Action::CreateProfile(create) => Some(&create.command_id),
        Action::CommitObject(commit) => Some(&commit.command_id),
        Action::DeleteObject(delete) => Some(&delete.command_id),
        Action::BeginTask(begin) => Some(&begin.command_id),
        Action::SetTask(set) => Some(&set.command_id),
        Action::Undrain(undrain) => Some(&undrain.command_id),
        Action::ForgetNode(forget) => Some(&forget.command_id),
        Action::FoundCluster(_)
        | Action::RegisterNode(_)
        | Action::ReportWork(_)
        | Action::SetHealth(_)
        | Action::FormSubstitutes(_)
        | Action::MoveSlot(_)
        | Action::EndTask(_)
        | Action::FailDisk(_)
        | Action::ForgetLeftovers(_)
        | Action::Tick(_) => None,
    }
}

/// The stored outcome, if it is one of such an action.
fn repeated(action: &Action, stored: wire::CommandRow) -> Result<Answer, Error> {
    match (action, stored.outcome.and_then(|outcome| outcome.outcome)) {
        (Action::CommitObject(_), Some(Answer::CommitObject(reply))) => {
            Ok(Answer::CommitObject(wire::CommitObjectReply { repeated: true, ..reply }))
        }
        (Action::DeleteObject(_), Some(Answer::DeleteObject(reply))) => {
            Ok(Answer::DeleteObject(wire::DeleteObjectReply { repeated: true, ..reply }))
        }
        (Action::CommitObject(_) | Action::DeleteObject(_), Some(Answer::Failure(failure))) => {
            Err(Error::Refused(refused(failure)))
        }
        (Action::CreateTenant(_), Some(answer @ Answer::CreateTenant(_)))
        | (Action::CreateBucket(_), Some(answer @ Answer::CreateBucket(_)))
        | (Action::CreateProfile(_), Some(answer @ Answer::CreateProfile(_)))
        | (Action::BeginTask(_) | Action::SetTask(_), Some(answer @ Answer::Task(_)))
        | (Action::Undrain(_) | Action::ForgetNode(_), Some(answer @ Answer::Done(_))) => Ok(answer),
        _ => Err(invalid(
            "another command was carried out under this command id: make a new id for each command",
        )),
    }
}

/// A refusal as it comes from the log or from its row.
pub(crate) fn refused(failure: wire::OutcomeFailure) -> Failure {
    Failure::from_wire(wire::Failure {
        code: failure.code,
        message: failure.message,
        epoch: failure.epoch,
        ..Default::default()
    })
}

/// A refusal as it goes to the proposer.
fn refusal(failure: Failure) -> wire::Outcome {
    let epoch = match failure.detail {
        proto::Detail::Epoch(epoch) => epoch.0,
        proto::Detail::None | proto::Detail::Leader { .. } => 0,
    };
    let failure = wire::OutcomeFailure { code: failure.code.number(), message: failure.message, epoch };
    wire::Outcome { outcome: Some(Answer::Failure(failure)) }
}
