//! Getting an object.
//!
//! A [`Plan`] says which part of which stripe comes next; a task of its own fetches each part, so
//! that a slow reader delays nothing but itself; the stream hands the parts out in order and keeps
//! the object's checksum. What it gives was verified block by block, and the last piece of a whole
//! object is held back until the object's own checksum has been found right.

mod fetch;
mod latency;
mod plan;
mod stripe;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::Crc32c;
use env::{Clock, Env, Monotonic, Rng, Spawn, Task};
use proto::{BucketName, ObjectKey, Remedy, TenantName, TenantTag, wire};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::bucket::GetOptions;
use crate::cluster::{Shared, ask};
use crate::error::{Error, GetError};
use crate::object::{ObjectInfo, Tolerance};
use fetch::{Fetch, Fetched};
pub(crate) use latency::Latencies;
use plan::{Piece, Plan};

/// Stripes in memory: the one being given out, and those being fetched.
const AHEAD_STRIPES: usize = 3;
/// How often a stream asks anew where its object lies because of a stripe that did not come, without a
/// pause.
const REPLANS_MAX: u32 = 3;
/// First pause before a stripe is tried again; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often it does because places said that they are not the ones, though the stripe came.
const REFRESHES_MAX: u32 = 16;

/// The bytes of an object, or of a range of it, as they come.
///
/// Dropping it stops all that is under way.
pub struct ObjectStream<E: Env> {
    shared: Arc<Shared<E>>,
    call: wire::GetObject,
    tag: TenantTag,
    options: GetOptions,
    timeout: Duration,
    plan: Plan,
    range: Range<u64>,
    /// What has been asked for: from here on nothing is under way.
    fetched_to: u64,
    under_way: VecDeque<UnderWay<E>>,
    /// What is here and not yet given out.
    ready: VecDeque<Bytes>,
    /// Of what is given out or ready.
    arrived_to: u64,
    crc32c: Crc32c,
    started: bool,
    ended: bool,
    replans: u32,
    /// Since when the front part does not come.
    trouble_since: Option<Monotonic>,
    refreshes: u32,
}

/// A part that is on its way, and where it begins in the object.
struct UnderWay<E: Env> {
    start: u64,
    length: u64,
    source: Source<E>,
}

enum Source<E: Env> {
    Here(Bytes),
    Task(Fetching<E>),
}

/// A task, stopped when nobody waits for it any more.
struct Fetching<E: Env> {
    task: <E::Spawn as Spawn>::Task,
    result: oneshot::Receiver<Fetched>,
}

impl<E: Env> Drop for Fetching<E> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<E: Env> fmt::Debug for ObjectStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, range, arrived_to, .. } = self;
        f.debug_struct("ObjectStream")
            .field("info", &plan.info)
            .field("range", range)
            .field("arrived_to", arrived_to)
            .finish_non_exhaustive()
    }
}

impl<E: Env> ObjectStream<E> {
    pub(crate) async fn open(
        shared: Arc<Shared<E>>,
        tenant: &TenantName,
        bucket: &BucketName,
        key: &ObjectKey,
        options: GetOptions,
    ) -> Result<Self, GetError> {
        let call = wire::GetObject {
            tenant: tenant.to_string(),
            bucket: bucket.to_string(),
            key: key.as_bytes().clone(),
            head: false,
        };
        let timeout = shared.limit(options.timeout);
        let plan = ask_plan(&shared, call.clone(), timeout).await?;
        let range = plan.range(options.range.as_ref())?;
        Ok(Self {
            shared,
            call,
            tag: TenantTag::of(tenant),
            options,
            timeout,
            fetched_to: range.start,
            arrived_to: range.start,
            plan,
            range,
            under_way: VecDeque::with_capacity(AHEAD_STRIPES),
            ready: VecDeque::new(),
            crc32c: Crc32c::new(),
            started: false,
            ended: false,
            replans: 0,
            trouble_since: None,
            refreshes: 0,
        })
    }

    /// The object. Until the first piece was given out, a newer version may take its place.
    pub fn info(&self) -> &ObjectInfo {
        &self.plan.info
    }

    /// What could be lost when the metadata service was asked.
    pub fn tolerates(&self) -> Tolerance {
        self.plan.tolerates
    }

    /// Which of the object's bytes this gives.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The next bytes, in order; none after the last. Dropping this loses nothing. After an error
    /// there is no more.
    ///
    /// # Errors
    ///
    /// See [`GetError`]. What was given out before an error is right, but it is not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GetError> {
        let next = self.advance().await;
        self.started |= matches!(next, Ok(Some(_)));
        if !matches!(next, Ok(Some(_))) {
            self.ended = true;
            self.under_way.clear();
            self.ready.clear();
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, GetError> {
        while !self.ended {
            if let Some(piece) = self.take_ready()? {
                return Ok(Some(piece));
            }
            self.start_fetching();
            let Some(front) = self.under_way.front_mut() else { return Ok(None) };
            let Fetched { result, is_stale, may_pass } = front.wait().await;
            match result {
                Ok(pieces) => {
                    self.arrived(pieces)?;
                    (self.replans, self.trouble_since) = (0, None);
                    if is_stale && self.refreshes < REFRESHES_MAX {
                        self.refreshes += 1;
                        self.replan().await?;
                    }
                }
                Err(error) if error.remedy() == Remedy::Retry && !self.left().is_zero() => {
                    tracing::debug!(%error, is_stale, "stripe did not come: asking where it lies");
                    let is_news = self.replan().await?;
                    let at_once = (is_news || is_stale) && self.replans < REPLANS_MAX;
                    if !at_once && !may_pass {
                        return Err(error);
                    }
                    if !at_once {
                        self.pause().await;
                    }
                    self.replans += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What is left of the time that one stripe may take, now that it did not come at once.
    fn left(&mut self) -> Duration {
        let now = self.shared.env.clock().now();
        let since = *self.trouble_since.get_or_insert(now);
        since.after(self.timeout).since(now)
    }

    /// Lets time pass, for places that may be back in a moment: longer each time.
    async fn pause(&mut self) {
        let whole = PAUSE_MIN.saturating_mul(1 << self.replans.min(10)).min(PAUSE_MAX);
        let random = self.shared.env.rng().u64() % 1000;
        let jittered = whole / 2 + whole / 2 * u32::try_from(random).unwrap_or(0) / 1000;
        let pause = jittered.min(self.left());
        self.shared.env.clock().sleep(pause).await;
    }

    /// The front part is here.
    fn arrived(&mut self, pieces: Vec<Bytes>) -> Result<(), GetError> {
        let Some(part) = self.under_way.pop_front() else { return Ok(()) };
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if length != part.length {
            return Err(GetError::Damaged(format!("{length} bytes came for {}", part.length)));
        }
        self.arrived_to = part.start + part.length;
        pieces.iter().for_each(|piece| self.crc32c.update(piece));
        self.ready.extend(pieces);
        Ok(())
    }

    /// A piece that is here. The last one only when the checksum of the whole is right.
    fn take_ready(&mut self) -> Result<Option<Bytes>, GetError> {
        let is_last = self.ready.len() == 1 && self.arrived_to == self.range.end;
        let is_whole = self.range == (0..self.plan.info.size);
        let (expected, found) = (self.plan.info.crc32c, self.crc32c.finish());
        if is_last && is_whole && found != expected {
            let text = format!("CRC-32C {found:#010x} of the whole, expected {expected:#010x}");
            return Err(GetError::Damaged(text));
        }
        Ok(self.ready.pop_front())
    }

    /// Fills the window.
    fn start_fetching(&mut self) {
        while self.under_way.len() < AHEAD_STRIPES {
            let Some((piece, length)) = self.plan.next(self.fetched_to..self.range.end) else { return };
            let source = match piece {
                Piece::Inline(bytes) => Source::Here(bytes),
                Piece::Stripe(extent, part) => {
                    let (shared, tag) = (self.shared.clone(), self.tag);
                    let timeout = self.trouble_since.map_or(self.timeout, |_| self.left());
                    Source::Task(Fetching::start(Fetch { shared, extent, part, tag, timeout }))
                }
            };
            self.under_way.push_back(UnderWay { start: self.fetched_to, length, source });
            self.fetched_to += length;
        }
    }

    /// Asks anew where the object lies; what is under way starts again from there. True when
    /// something has changed.
    async fn replan(&mut self) -> Result<bool, GetError> {
        let version = self.plan.info.version;
        let plan = match ask_plan(&self.shared, self.call.clone(), self.timeout).await {
            Ok(plan) => plan,
            Err(GetError::NoSuchObject(_)) if self.started => return Err(GetError::Changed { version }),
            Err(error) => return Err(error),
        };
        let is_same = plan.info.version == version;
        if !is_same && self.started {
            return Err(GetError::Changed { version });
        }
        let is_news = !is_same || plan.differs(&self.plan);
        self.plan = plan;
        if !is_same {
            self.range = self.plan.range(self.options.range.as_ref())?;
            self.arrived_to = self.range.start;
            self.crc32c = Crc32c::new();
            self.ready.clear();
        }
        self.under_way.clear();
        self.fetched_to = self.arrived_to;
        Ok(is_news)
    }
}

async fn ask_plan<E: Env>(
    shared: &Shared<E>,
    call: wire::GetObject,
    timeout: Duration,
) -> Result<Plan, GetError> {
    let reply = ask!(shared, timeout, GetObject(call))?;
    Ok(Plan::parse(reply).map_err(Error::from)?)
}

impl<E: Env> UnderWay<E> {
    /// Waits for it. Dropping this loses nothing.
    async fn wait(&mut self) -> Fetched {
        match &mut self.source {
            Source::Here(bytes) => {
                Fetched { result: Ok(vec![bytes.clone()]), is_stale: false, may_pass: false }
            }
            Source::Task(fetching) => (&mut fetching.result).await.unwrap_or_else(|_| Fetched {
                result: Err(GetError::Damaged("the host is stopping".to_owned())),
                is_stale: false,
                may_pass: false,
            }),
        }
    }
}

impl<E: Env> Fetching<E> {
    fn start(fetch: Fetch<E>) -> Self {
        let (sender, result) = oneshot::channel();
        let env = fetch.shared.env.clone();
        let work = async move {
            // Nobody waits any more when this fails.
            let _ = sender.send(fetch.run().await);
        };
        let task = env.spawn().spawn("fetch stripe", work.in_current_span());
        Self { task, result }
    }
}
