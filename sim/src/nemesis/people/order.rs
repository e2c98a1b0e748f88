//! How people command: under an id, again and again until somebody answers, and now and then once more when
//! nobody expects it. Whoever was carried out already is answered as before, and has no second effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use env::rpc::{CallError, Caller, Leader, Local};
use proto::error::{ErrorCode, Remedy};
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{CommandId, Failure};
use simhost::{SimEnv, Stream};

use crate::cluster::Cluster;
use crate::oracle;
use crate::process::lock;
use crate::tap::rules::FENCING;
use crate::verdict::Kind;

/// Time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// How often a command comes once more, in a million.
const AGAIN_PPM: u32 = 350_000;
/// How much later, in milliseconds.
const AGAIN_MS: (u64, u64) = (1, 15_000);

/// What came of a command: an answer, or a refusal that repeating does not change.
pub(super) type Answer = Result<Reply, Failure>;

/// Commands until somebody answers; at most until all is calm, unless `insists`. None when nobody did: it may
/// have been carried out all the same. `make` gets the command's id.
pub(super) async fn order(
    cluster: &Arc<Cluster>,
    draws: &Stream,
    insists: bool,
    make: impl FnOnce(Bytes) -> Call,
) -> Option<Answer> {
    let now = oracle::latest(cluster)?.machine.cluster_time();
    let random = u128::from(draws.u64()) << 64 | u128::from(draws.u64());
    let call = make(CommandId::new(now, random).to_wire());
    cluster.nemesis.orders.fetch_add(1, Ordering::Relaxed);
    let answer = until_answered(cluster, &call, insists).await;
    cluster.nemesis.orders.fetch_sub(1, Ordering::Relaxed);
    cluster.world.tell(None, || format!("people: {call:?}: {answer:?}"));
    let answer = answer?;
    if draws.chance(AGAIN_PPM) {
        let wait = Duration::from_millis(draws.skewed(AGAIN_MS.0, AGAIN_MS.1));
        once_more(cluster, wait, call, answer.clone());
    }
    Some(answer)
}

async fn until_answered(cluster: &Cluster, call: &Call, insists: bool) -> Option<Answer> {
    loop {
        match ask(cluster, call.clone()).await {
            Ok(reply) => return Some(Ok(reply)),
            Err(CallError::Failed(failure)) if is_final(&failure) => return Some(Err(failure)),
            Err(_) => {}
        }
        if cluster.nemesis.is_calm() && !insists {
            return None;
        }
        cluster.world.sleep(RETRY).await;
    }
}

/// Asks whoever leads the metadata servers, as an operator.
pub(super) async fn ask(cluster: &Cluster, call: Call) -> Result<Reply, CallError> {
    let leader = Leader::new(caller(cluster), cluster.meta_addresses());
    leader.call(call, TIMEOUT).await.map(|reply| reply.result)
}

/// From a machine that no fault touches.
fn caller(cluster: &Cluster) -> Caller<SimEnv> {
    let mut known = lock(&cluster.nemesis.people);
    let made = || {
        // The name is well-formed.
        let identity = "operator/bob".parse().unwrap_or_else(|error| unreachable!("{error}"));
        Caller::new(cluster.world.add_host("people", identity).boot(), Local::new())
    };
    known.get_or_insert_with(made).clone()
}

/// Does repeating change nothing?
fn is_final(failure: &Failure) -> bool {
    !matches!(failure.remedy(), Remedy::Retry | Remedy::FindLeader)
}

/// The same command comes again. What was carried out is answered as it was.
fn once_more(cluster: &Arc<Cluster>, wait: Duration, call: Call, first: Answer) {
    let cluster = cluster.clone();
    cluster.world.clone().spawn("late command", async move {
        cluster.world.sleep(wait).await;
        if cluster.nemesis.is_calm() {
            return;
        }
        let again = match ask(&cluster, call.clone()).await {
            Ok(reply) => Ok(reply),
            Err(CallError::Failed(failure)) if is_final(&failure) => Err(failure),
            Err(_) => return,
        };
        cluster.world.probe("a command of people came again");
        if let Some(text) = differs(&first, &again) {
            let text = format!("{call:?} was answered with {first:?}, and when it came again {text}");
            cluster.findings.report(&cluster.world, Kind::Correctness, FENCING, text);
        }
    });
}

/// What is wrong with the second answer to one command. What was refused may be carried out later.
fn differs(first: &Answer, again: &Answer) -> Option<String> {
    match (first, again) {
        (Err(_), _) => None,
        (Ok(_), Err(failure)) => {
            (failure.code != ErrorCode::CommandExpired).then(|| format!("refused: {failure}"))
        }
        (Ok(first), Ok(again)) => {
            let same = match (first, again) {
                (Reply::BeginTask(first), Reply::BeginTask(again)) => first.task == again.task,
                _ => first == again,
            };
            (!same).then(|| format!("with {again:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::wire;

    use super::*;

    fn begun(id: u32) -> Answer {
        let task = Some(wire::Task { id, ..Default::default() });
        Ok(Reply::BeginTask(wire::BeginTaskReply { task, plan: None }))
    }

    /// A command that was carried out has one answer, whatever its plan is now; one that was refused may have another.
    #[test]
    fn one_answer_for_a_command() {
        let refused = |code| Err(Failure::new(code, "no"));
        assert!(differs(&begun(3), &begun(3)).is_none());
        assert!(differs(&begun(3), &begun(4)).is_some());
        assert!(differs(&begun(3), &refused(ErrorCode::InvalidRequest)).is_some());
        assert!(differs(&begun(3), &refused(ErrorCode::CommandExpired)).is_none());
        assert!(differs(&refused(ErrorCode::InvalidRequest), &begun(3)).is_none());
    }
}
