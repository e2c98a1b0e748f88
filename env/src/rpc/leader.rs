//! Asking the metadata service: whoever leads it just now.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{Detail, ErrorCode, Failure, Role, Timestamp, identity, wire};
use tracing::debug;

use super::caller::{CallError, Caller, Reply, Target};
use crate::net::{Expect, NetError};
use crate::{Clock, Env, Monotonic, Rng};

/// First limit of one attempt; doubled each time that a server lets it pass without an answer.
const ATTEMPT_MIN: Duration = Duration::from_secs(3);
/// First pause after a fruitless round; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a list of servers is taken as it is.
const MEMBERS_FRESH: Duration = Duration::from_secs(300);
/// Time for asking for the list of servers by the way.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Answers of "internal error" before the caller hears of it.
const INTERNAL_MAX: u32 = 3;
/// Servers that are remembered, whatever a list says.
const METAS_MAX: usize = 64;

/// Asks the metadata service: finds the leader, follows it when it changes, and repeats a call until
/// it is answered or its time is over. Clones share what was learned.
///
/// Every call of the metadata service may be repeated: reads, reports that say the same when they
/// come twice, and commands with a command id. Only `Bootstrap` is not for the leader: there is none.
#[derive(Clone)]
pub struct Leader<E: Env> {
    caller: Caller<E>,
    known: Arc<Mutex<Known>>,
}

impl<E: Env> fmt::Debug for Leader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("known", &*self.known()).finish_non_exhaustive()
    }
}

impl<E: Env> Leader<E> {
    /// Knows the addresses `metas` (`host:port`) to begin with; nothing is sent yet.
    pub fn new(caller: Caller<E>, metas: Vec<String>) -> Self {
        Self { caller, known: Arc::new(Mutex::new(Known::new(metas))) }
    }

    /// Sends `call` to the leader and waits for its reply, at most for `timeout`.
    ///
    /// Dropping this leaves open whether the call was carried out.
    ///
    /// # Errors
    ///
    /// What the leader refused; when the time is over, why the last attempt failed.
    pub async fn call(&self, call: Call, timeout: Duration) -> Result<Reply, CallError> {
        let clock = self.caller.env().clock();
        let started = clock.now();
        let deadline = started.after(timeout);
        let mut attempts = Attempts::default();
        let mut last = None;
        loop {
            let left = deadline.since(clock.now());
            if left.is_zero() {
                return Err(last.unwrap_or_else(|| self.timed_out(&call, timeout)));
            }
            let Some(address) = self.known().choose() else {
                return Err(
                    Failure::new(ErrorCode::InvalidRequest, "no metadata server is configured").into()
                );
            };
            let target = Target { address: address.clone(), expect: Expect::Role(Role::Meta) };
            let limit = left.min(attempts.limit());
            let result = self.caller.call(&target, call.clone(), Vec::new(), limit).await;
            let error = match result {
                Ok(reply) => {
                    self.heard(&address, &reply);
                    self.keep_members_fresh(&target, deadline).await;
                    return Ok(reply);
                }
                Err(error) => error,
            };
            let servers = self.known().metas.len();
            match attempts.after(&error, servers) {
                Next::GiveUp => return Err(error),
                Next::Follow(leader) => self.known().follow(&address, leader),
                Next::Elsewhere => self.known().leave(&address),
                Next::Again => {}
            }
            debug!(%error, call = identity::rule(&call).name, "metadata call repeated");
            last = Some(error);
            if let Some(pause) = attempts.pause(servers, self.caller.env().rng().u64()) {
                clock.sleep(pause.min(deadline.since(clock.now()))).await;
            }
        }
    }

    /// Cluster time as last heard, plus what has passed here since. Before anything was heard, what
    /// this host's wall clock believes.
    pub fn cluster_now(&self) -> Timestamp {
        let clock = self.caller.env().clock();
        match self.known().heard {
            Some((time, at)) => {
                let passed = u64::try_from(clock.now().since(at).as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(time.as_millis().saturating_add(passed))
            }
            None => clock.wall(),
        }
    }

    /// What asks: for calls to other servers than the leader.
    pub fn caller(&self) -> &Caller<E> {
        &self.caller
    }

    /// The addresses known just now.
    pub fn metas(&self) -> Vec<String> {
        self.known().metas.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed_out(&self, call: &Call, after: Duration) -> CallError {
        let address = self.known().choose().unwrap_or_default();
        CallError::TimedOut { address, call: identity::rule(call).name, after }
    }

    fn heard(&self, address: &str, reply: &Reply) {
        let now = self.caller.env().clock().now();
        let mut known = self.known();
        match &reply.result {
            Outcome::ClusterInfo(info) => {
                known.learn_members(info, now);
                // Any server answers this one, and its time may lag.
                if known.heard.is_none() {
                    known.learn_time(reply.cluster_time_ms, now);
                }
            }
            _ => {
                known.leader = Some(address.to_owned());
                known.learn_time(reply.cluster_time_ms, now);
            }
        }
    }

    /// Asks for the list of servers when it has become old. Nothing depends on the answer.
    async fn keep_members_fresh(&self, target: &Target, deadline: Monotonic) {
        let now = self.caller.env().clock().now();
        let limit = MEMBERS_TIMEOUT.min(deadline.since(now));
        if limit.is_zero() || !self.known().take_turn_to_refresh(now) {
            return;
        }
        let call = Call::ClusterInfo(wire::ClusterInfo {});
        match self.caller.call(target, call, Vec::new(), limit).await {
            Ok(reply) => self.heard(&target.address, &reply),
            Err(error) => debug!(%error, "list of metadata servers not refreshed"),
        }
    }
}

/// What was learned about the service.
#[derive(Debug)]
struct Known {
    metas: Vec<String>,
    /// Which of `metas` to ask while no leader is known.
    turn: usize,
    leader: Option<String>,
    /// Cluster time, and when it was heard.
    heard: Option<(Timestamp, Monotonic)>,
    members_at: Option<Monotonic>,
}

impl Known {
    fn new(metas: Vec<String>) -> Self {
        Self { metas, turn: 0, leader: None, heard: None, members_at: None }
    }

    fn choose(&self) -> Option<String> {
        self.leader.clone().or_else(|| self.metas.get(self.turn % self.metas.len().max(1)).cloned())
    }

    /// `address` is of no use now. Several callers may find that out at once: one step for all.
    fn leave(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
        if self.leader.is_none()
            && let Some(at) = self.metas.iter().position(|meta| meta == address)
        {
            self.turn = (at + 1) % self.metas.len();
        }
    }

    /// `address` says that `leader` leads.
    fn follow(&mut self, address: &str, leader: String) {
        self.leave(address);
        if leader != address {
            self.leader = Some(leader);
        }
    }

    fn learn_time(&mut self, cluster_time_ms: u64, now: Monotonic) {
        if cluster_time_ms > 0 {
            self.heard = Some((Timestamp::from_millis(cluster_time_ms), now));
        }
    }

    fn learn_members(&mut self, info: &wire::ClusterInfoReply, now: Monotonic) {
        self.members_at = Some(now);
        let named = info.members.iter().filter(|member| !member.address.is_empty());
        let addresses: Vec<String> = named.clone().map(|m| m.address.clone()).take(METAS_MAX).collect();
        if !addresses.is_empty() {
            self.metas = addresses;
        }
        if let Some(leader) = named.clone().find(|member| info.leader_id != 0 && member.id == info.leader_id)
        {
            self.leader = Some(leader.address.clone());
        }
    }

    /// True for one caller each time that the list is old.
    fn take_turn_to_refresh(&mut self, now: Monotonic) -> bool {
        let old = self.members_at.is_none_or(|at| now.since(at) > MEMBERS_FRESH);
        if old {
            self.members_at = Some(now);
        }
        old
    }
}

/// What to do after an attempt failed.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GiveUp,
    Follow(String),
    Elsewhere,
    Again,
}

/// How the attempts of one call have gone.
#[derive(Debug, Default)]
struct Attempts {
    since_pause: usize,
    pauses: u32,
    timeouts: u32,
    internal: u32,
    /// Servers in a row that will not talk to us, or know no cluster.
    refusals: usize,
}

impl Attempts {
    /// How long the next attempt may take.
    fn limit(&self) -> Duration {
        ATTEMPT_MIN.saturating_mul(1 << self.timeouts.min(10))
    }

    fn after(&mut self, error: &CallError, servers: usize) -> Next {
        self.since_pause += 1;
        let refused = match error {
            CallError::Failed(failure) => matches!(
                failure.code,
                ErrorCode::WrongCluster | ErrorCode::VersionMismatch | ErrorCode::NotBootstrapped
            ),
            CallError::Net { error, .. } => matches!(error, NetError::Untrusted { .. }),
            CallError::TimedOut { .. } => false,
        };
        self.refusals = if refused { self.refusals + 1 } else { 0 };
        match error {
            _ if refused && self.refusals >= servers => Next::GiveUp,
            _ if refused => Next::Elsewhere,
            CallError::Net { .. } => Next::Elsewhere,
            CallError::TimedOut { .. } => {
                self.timeouts += 1;
                Next::Elsewhere
            }
            CallError::Failed(failure) => self.after_failure(failure),
        }
    }

    fn after_failure(&mut self, failure: &Failure) -> Next {
        match (failure.code, &failure.detail) {
            (ErrorCode::NotLeader, Detail::Leader { address, .. }) if !address.is_empty() => {
                Next::Follow(address.clone())
            }
            (ErrorCode::NotLeader | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded, _) => {
                Next::Elsewhere
            }
            (ErrorCode::Overloaded, _) => Next::Again,
            (ErrorCode::Internal, _) if self.internal < INTERNAL_MAX => {
                self.internal += 1;
                Next::Again
            }
            _ => Next::GiveUp,
        }
    }

    /// A pause when every server has had its turn; between half and the whole of its length.
    fn pause(&mut self, servers: usize, random: u64) -> Option<Duration> {
        if self.since_pause < servers.max(2) {
            return None;
        }
        self.since_pause = 0;
        let whole = PAUSE_MIN.saturating_mul(1 << self.pauses.min(10)).min(PAUSE_MAX);
        self.pauses += 1;
        let half = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX) / 2;
        Some(Duration::from_micros(half + random % (half + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: ErrorCode) -> CallError {
        Failure::new(code, "x").into()
    }

    fn known() -> Known {
        Known::new(vec!["a:1".into(), "b:1".into(), "c:1".into()])
    }

    /// Without a leader the servers are asked in turn; several callers who leave the same server move
    /// on by one.
    #[test]
    fn servers_take_turns() {
        let mut known = known();
        assert_eq!(known.choose().as_deref(), Some("a:1"));
        known.leave("a:1");
        known.leave("a:1");
        assert_eq!(known.choose().as_deref(), Some("b:1"));
        known.leave("b:1");
        known.leave("c:1");
        assert_eq!(known.choose().as_deref(), Some("a:1"));
        assert_eq!(Known::new(Vec::new()).choose(), None);
    }

    /// A hint is followed, left when it leads nowhere, and a server that names itself is not believed.
    #[test]
    fn hints_are_followed() {
        let mut known = known();
        known.follow("a:1", "z:1".into());
        assert_eq!(known.choose().as_deref(), Some("z:1"));
        known.leave("a:1");
        assert_eq!(known.choose().as_deref(), Some("z:1"), "a late loser must not undo the hint");
        known.leave("z:1");
        assert_eq!(known.choose().as_deref(), Some("b:1"));
        known.follow("b:1", "b:1".into());
        assert_eq!(known.choose().as_deref(), Some("c:1"));
    }

    /// A list of servers replaces the old one and names the leader; an empty one changes nothing.
    #[test]
    fn members_are_learned() {
        let mut known = known();
        known.learn_members(&wire::ClusterInfoReply::default(), Monotonic::default());
        assert_eq!(known.metas.len(), 3);
        let member = |id, address: &str| wire::Member { id, address: address.into(), voter: true };
        let info = wire::ClusterInfoReply {
            leader_id: 2,
            members: vec![member(1, "x:1"), member(2, "y:1"), member(3, "")],
            ..Default::default()
        };
        known.learn_members(&info, Monotonic::default());
        assert_eq!(known.metas, ["x:1", "y:1"]);
        assert_eq!(known.choose().as_deref(), Some("y:1"));
        assert!(!known.take_turn_to_refresh(Monotonic::new(MEMBERS_FRESH)));
        let later = Monotonic::new(MEMBERS_FRESH * 2);
        assert!(known.take_turn_to_refresh(later) && !known.take_turn_to_refresh(later));
    }

    /// What the caller must mend comes back at once; what passes by itself is repeated.
    #[test]
    fn only_what_may_help_is_repeated() {
        for (code, next) in [
            (ErrorCode::PreconditionFailed, Next::GiveUp),
            (ErrorCode::NoSuchBucket, Next::GiveUp),
            (ErrorCode::StaleEpoch, Next::GiveUp),
            (ErrorCode::CommandExpired, Next::GiveUp),
            (ErrorCode::NoLegalPlace, Next::GiveUp),
            (ErrorCode::NotLeader, Next::Elsewhere),
            (ErrorCode::Unavailable, Next::Elsewhere),
            (ErrorCode::Overloaded, Next::Again),
            (ErrorCode::Internal, Next::Again),
        ] {
            assert_eq!(Attempts::default().after(&failed(code), 3), next, "{}", code.name());
        }
    }

    /// One odd server does not end a call; all of them do, and so does a bug that stays.
    #[test]
    fn refusals_end_when_all_agree() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.after(&failed(ErrorCode::NotBootstrapped), 2), Next::Elsewhere);
        assert_eq!(attempts.after(&failed(ErrorCode::Unavailable), 2), Next::Elsewhere);
        assert_eq!(attempts.after(&failed(ErrorCode::NotBootstrapped), 2), Next::Elsewhere);
        assert_eq!(attempts.after(&failed(ErrorCode::NotBootstrapped), 2), Next::GiveUp);
        let mut attempts = Attempts::default();
        let tries = (0..10).take_while(|_| attempts.after(&failed(ErrorCode::Internal), 3) == Next::Again);
        assert_eq!(tries.count(), 3);
    }

    /// Pauses come once a round, grow, stay below the limit and above half of their length.
    #[test]
    fn pauses_grow_to_a_limit() {
        let mut attempts = Attempts::default();
        let mut longest = Duration::ZERO;
        for round in 0..20 {
            for _ in 0..2 {
                attempts.after(&failed(ErrorCode::Unavailable), 3);
                assert_eq!(attempts.pause(3, u64::MAX), None);
            }
            attempts.after(&failed(ErrorCode::Unavailable), 3);
            let pause = attempts.pause(3, round * 7919).expect("a pause after each round");
            assert!(pause >= PAUSE_MIN / 2 && pause <= PAUSE_MAX, "{pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest >= PAUSE_MAX / 2);
    }

    /// A server that does not answer is given longer the next time.
    #[test]
    fn silence_is_waited_for_longer() {
        let mut attempts = Attempts::default();
        let silent = CallError::TimedOut { address: "a".into(), call: "x", after: ATTEMPT_MIN };
        assert_eq!(attempts.limit(), ATTEMPT_MIN);
        assert_eq!(attempts.after(&silent, 3), Next::Elsewhere);
        assert_eq!(attempts.limit(), ATTEMPT_MIN * 2);
    }
}
