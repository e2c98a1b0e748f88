//! Requests that change something: proposed, committed, applied, answered.

use std::sync::Arc;

use env::{Clock, Env};
use proto::wire::command::Action;
use proto::wire::outcome::Outcome;
use proto::wire::response::Result as Reply;
use proto::{ErrorCode, Failure, wire};

use super::service::Shared;
use crate::state::refused;

impl<E: Env> Shared<E> {
    /// Proposes what a request asks for, and answers what came of it.
    pub(super) async fn change(self: &Arc<Self>, action: Action) -> Result<Reply, Failure> {
        match self.propose_asked(action).await? {
            Outcome::Done(_) => Ok(Reply::ReportWork(wire::ReportWorkReply {})),
            Outcome::RegisterNode(reply) => Ok(Reply::RegisterNode(reply)),
            Outcome::CreateTenant(reply) => Ok(Reply::CreateTenant(reply)),
            Outcome::CreateBucket(reply) => Ok(Reply::CreateBucket(reply)),
            Outcome::CreateProfile(reply) => Ok(Reply::CreateProfile(reply)),
            Outcome::CommitObject(mut reply) => {
                reply.tolerance.get_or_insert_with(|| self.node.withstands());
                Ok(Reply::CommitObject(reply))
            }
            Outcome::DeleteObject(reply) => Ok(Reply::DeleteObject(reply)),
            Outcome::Task(_) => Err(Failure::new(ErrorCode::Internal, "a change was answered with a task")),
            Outcome::Failure(failure) => Err(refused(failure)),
        }
    }

    /// Proposes what somebody asks for; not more at once than there is room for.
    pub(super) async fn propose_asked(&self, action: Action) -> Result<Outcome, Failure> {
        let _room = self.proposals.try_acquire().map_err(|_| {
            Failure::new(ErrorCode::Overloaded, "too many changes wait for their commit: ask again later")
        })?;
        self.propose(action).await
    }

    /// Proposes an action of cluster time now. What was refused when it was applied is an error as
    /// well.
    pub(super) async fn propose(&self, action: Action) -> Result<Outcome, Failure> {
        let proposed = self.env.clock().wall();
        let command = wire::Command { proposed_ms: proposed.as_millis(), action: Some(action) };
        match self.node.propose(&command).await?.outcome {
            Some(Outcome::Failure(failure)) => Err(refused(failure)),
            Some(outcome) => Ok(outcome),
            None => Err(Failure::new(ErrorCode::Internal, "a command was applied without an outcome")),
        }
    }
}
