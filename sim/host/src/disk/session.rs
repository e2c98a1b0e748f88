//! A disk in the hands of one process: how its operations wait, take effect, and end when it dies.

use std::sync::Arc;

use env::{StorageError, StorageErrorKind};

use super::content::{FlushTicket, Survival};
use super::device::{DiskDevice, Pace};
use super::names::FileNumber;
use super::state::{Change, Result, State, error};
use crate::host::Life;

/// One life's hold of a disk; while it is there nobody else can open the disk.
pub(super) struct Session {
    device: DiskDevice,
    life: Life,
    deaths: u64,
}

/// What an operation is, for the trace and for errors.
pub(super) struct Operation<'a> {
    pub(super) what: &'static str,
    /// To what it is done.
    pub(super) to: &'a str,
    pub(super) numbers: &'a [u64],
}

impl Session {
    /// Opens the disk for a life.
    pub(super) async fn open(device: DiskDevice, life: Life) -> Result<Arc<Self>> {
        let opening = Self { device: device.clone(), life, deaths: device.with(|state| state.deaths) };
        let operation = Operation { what: "disk.open", to: "", numbers: &[] };
        opening.operate(&operation, |state| state.check()).await?;
        let session = Arc::new(opening);
        // The life has not ended meanwhile: its operations would not.
        let owned = device.with(|state| {
            let free = state.owner.strong_count() == 0;
            if free {
                state.owner = Arc::downgrade(&session);
            }
            free
        });
        if !owned {
            return Err(error(StorageErrorKind::Locked, format!("{} is in use", device.path())));
        }
        Ok(session)
    }

    pub(super) fn device(&self) -> &DiskDevice {
        &self.device
    }

    /// A handle of the file is open from now on.
    pub(super) fn opened(&self, file: FileNumber) {
        self.device.with(|state| state.opened(file));
    }

    /// A handle of the file is closed.
    pub(super) fn closed(&self, file: FileNumber) {
        self.device.with(|state| state.closed(file, self.deaths));
    }

    pub(super) async fn begin(&self, what: &'static str) {
        if !self.life.step(what, false) {
            self.life.alive().await;
        }
    }

    async fn end(&self, what: &'static str) {
        if !self.life.step(what, true) {
            self.life.alive().await;
        }
    }

    /// Until the device has done it.
    async fn wait(&self, pace: Pace) {
        self.life.world().sleep(self.device.latency(pace)).await;
        self.device.unstuck().await;
        self.life.alive().await;
    }

    fn happened(&self, operation: &Operation<'_>, failure: Option<&StorageError>) {
        let mut numbers = [u64::from(failure.is_some()), 0, 0, 0, 0];
        for (slot, number) in numbers[1..].iter_mut().zip(operation.numbers) {
            *slot = *number;
        }
        let numbers = &numbers[..=operation.numbers.len().min(4)];
        self.device.event(operation.what, numbers, || {
            let failed = failure.map_or_else(String::new, |error| format!(" fails: {error}"));
            match operation.numbers {
                [_, first, count, bytes] => {
                    format!("{} {bytes} bytes in {count} from offset {first} on{failed}", operation.to)
                }
                _ => format!("{}{failed}", operation.to),
            }
        });
    }

    fn named<T>(&self, operation: &Operation<'_>, result: Result<T>) -> Result<T> {
        let Operation { what, to, .. } = operation;
        result.map_err(|cause| {
            error(cause.kind(), format!("{what} {}/{to}", self.device.path())).because(cause)
        })
    }

    /// Refuses a batch of transfers now and then.
    pub(super) fn admit(&self, operation: &Operation<'_>) -> Result<()> {
        let busy_ppm = self.device.with(|state| state.faults.busy_ppm);
        if busy_ppm == 0 || !self.device.0.failures.chance(busy_ppm) {
            return Ok(());
        }
        let refused = error(StorageErrorKind::Busy, "too much waits for the disk already");
        self.happened(operation, Some(&refused));
        self.named(operation, Err(refused))
    }

    /// An operation that changes nothing, or all at once.
    pub(super) async fn operate<T>(
        &self,
        operation: &Operation<'_>,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        self.begin(operation.what).await;
        self.wait(Pace::Transfer).await;
        let result = self.device.with(effect);
        self.happened(operation, result.as_ref().err());
        self.end(operation.what).await;
        self.named(operation, result)
    }

    /// As [`operate`](Self::operate), and fails as reads do.
    pub(super) async fn look<T>(
        &self,
        operation: &Operation<'_>,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let failures = &self.device.0.failures;
        self.operate(operation, |state| {
            state.check()?;
            if failures.chance(state.faults.read_error_ppm) {
                return Err(error(StorageErrorKind::Io, "a read failed"));
            }
            effect(state)
        })
        .await
    }

    /// A change, begun already. When its future is dropped, it may take place nevertheless, even later;
    /// `keep` is held as long.
    pub(super) async fn change<K: Send + 'static>(
        self: &Arc<Self>,
        operation: &Operation<'_>,
        change: Change,
        keep: K,
    ) -> Result<FileNumber> {
        let mut under_way = UnderWay::new(self.clone(), operation.what, change, keep);
        self.wait(Pace::Transfer).await;
        let result = under_way.take_effect();
        drop(under_way);
        self.happened(operation, result.as_ref().err());
        self.end(operation.what).await;
        self.named(operation, result)
    }

    /// Makes a change that the device has taken on, and may fail at it.
    fn take_effect(&self, number: u64) -> Result<FileNumber> {
        let failures = &self.device.0.failures;
        self.device.with(|state| {
            let change = state.take_back(number);
            let change = change.ok_or_else(|| error(StorageErrorKind::Io, "the device gave it up"))?;
            state.check()?;
            if failures.chance(state.faults.write_error_ppm) {
                state.apply_partly(change, failures);
                return Err(error(StorageErrorKind::Io, "a write failed"));
            }
            state.apply(change)
        })
    }

    /// Makes a change that nobody waits for any longer.
    fn take_effect_late(&self, what: &'static str, number: u64) {
        let result = self.take_effect(number);
        let operation = Operation { what, to: "(nobody waits for it)", numbers: &[] };
        self.happened(&operation, result.err().as_ref());
    }

    /// Makes durable what was written to a file before.
    pub(super) async fn flush(&self, operation: &Operation<'_>, file: FileNumber) -> Result<()> {
        self.begin(operation.what).await;
        let ticket = self.device.with(|state| state.content(file).map(|content| content.begin_flush()));
        self.wait(Pace::Flush).await;
        let result = self.device.with(|state| {
            state.counters.flushes += 1;
            self.end_flush(state, file, ticket?)
        });
        self.happened(operation, result.as_ref().err());
        self.end(operation.what).await;
        self.named(operation, result)
    }

    fn end_flush(&self, state: &mut State, file: FileNumber, ticket: FlushTicket) -> Result<()> {
        let failures = &self.device.0.failures;
        if let Err(gone) = state.check() {
            state.content(file)?.fail_flush(ticket, Survival::Nothing, failures);
            return Err(gone);
        }
        if failures.chance(state.faults.flush_error_ppm) {
            let settled = state.content(file)?.fail_flush(ticket, Survival::draw(failures), failures);
            self.device.probe(settled.lost > 0, "disk: a failed flush lost content");
            return Err(error(StorageErrorKind::Io, "a flush failed"));
        }
        if state.bugs.flush_lies || state.content(file)?.end_flush(ticket) {
            return Ok(());
        }
        Err(error(StorageErrorKind::Io, "another flush failed meanwhile"))
    }

    /// Makes durable what was done to names before.
    pub(super) async fn flush_names(&self, operation: &Operation<'_>) -> Result<()> {
        self.begin(operation.what).await;
        let began = self.device.with(|state| state.names.begin_flush());
        self.wait(Pace::Flush).await;
        let failures = &self.device.0.failures;
        let result = self.device.with(|state| {
            state.counters.name_flushes += 1;
            state.check()?;
            let failed = failures.chance(state.faults.flush_error_ppm);
            if failed || !state.bugs.name_flush_lies {
                state.end_name_flush(began, failed.then_some(failures));
            }
            if failed { Err(error(StorageErrorKind::Io, "a flush of names failed")) } else { Ok(()) }
        });
        self.happened(operation, result.as_ref().err());
        self.end(operation.what).await;
        self.named(operation, result)
    }
}

/// A change that the device has taken on, as seen by who waits for it.
struct UnderWay<K: Send + 'static> {
    session: Arc<Session>,
    what: &'static str,
    /// None when it has taken effect.
    number: Option<u64>,
    keep: Option<K>,
}

impl<K: Send + 'static> UnderWay<K> {
    fn new(session: Arc<Session>, what: &'static str, change: Change, keep: K) -> Self {
        let number = session.device.with(|state| state.take_on(change));
        Self { session, what, number: Some(number), keep: Some(keep) }
    }

    fn take_effect(&mut self) -> Result<FileNumber> {
        match self.number.take() {
            Some(number) => self.session.take_effect(number),
            None => Err(error(StorageErrorKind::Io, "it has taken effect before")),
        }
    }
}

impl<K: Send + 'static> Drop for UnderWay<K> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        // What becomes of it when its process dies was settled then.
        if !self.session.life.is_alive() {
            return;
        }
        let device = self.session.device.clone();
        match device.0.failures.below(3) {
            0 => drop(device.with(|state| state.take_back(number))),
            1 => self.session.take_effect_late(self.what, number),
            _ => {
                let (session, keep, what) = (self.session.clone(), self.keep.take(), self.what);
                device.probe(true, "disk: a change took place after its future was dropped");
                self.session.life.spawn("disk.late", async move {
                    session.wait(Pace::Transfer).await;
                    session.take_effect_late(what, number);
                    drop(keep);
                });
            }
        }
    }
}
