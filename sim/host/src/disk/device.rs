//! A disk as hardware: it outlives the processes that use it.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use env::FileName;
use tokio::sync::Notify;

use super::faults::{Damage, DiskBugs, DiskCounters, DiskFaults, DiskFilter, DiskWitness};
use super::forensic::{ForensicDisk, Image};
use super::state::{Loss, State};
use crate::host::{Death, Host, HostId, HostState};
use crate::rng::{Stream, mix};
use crate::world::{World, lock};

/// A disk of a host, as somebody sees it who stands before the machine. Clones are the same disk.
#[derive(Clone)]
pub struct DiskDevice(pub(super) Arc<Device>);

pub(super) struct Device {
    /// Weak, since the host has the disk.
    host: Weak<HostState>,
    path: String,
    /// Tells disks apart in the trace.
    tag: u64,
    state: Mutex<State>,
    unstuck: Notify,
    latencies: Stream,
    pub(super) failures: Stream,
    deaths: Stream,
}

/// How long an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Transfer,
    Flush,
}

impl DiskDevice {
    pub(crate) fn new(host: Host, path: &str, capacity_bytes: u64, stream: Stream) -> Self {
        let tag = path.bytes().fold(0, |tag, byte| mix(tag ^ u64::from(byte)));
        Self(Arc::new(Device {
            host: Arc::downgrade(&host.0),
            path: path.to_owned(),
            tag,
            state: Mutex::new(State::new(capacity_bytes)),
            unstuck: Notify::new(),
            latencies: stream.fork("latencies"),
            failures: stream.fork("failures"),
            deaths: stream.fork("deaths"),
        }))
    }

    /// The process that had it open has died: it is nobody's, and after a power loss it holds what was
    /// flushed and some of the rest.
    pub(crate) fn owner_died(&self, death: Death) {
        let loss = self.with(|state| state.owner_died(death, &self.0.deaths));
        if death == Death::Power {
            self.report(loss);
        }
    }

    fn report(&self, Loss { sectors, names }: Loss) {
        let numbers = [sectors.kept, sectors.lost, names.kept, names.lost];
        self.event("disk.power-loss", &numbers, || {
            format!(
                "of what was not flushed, {} sectors and {} changes of names are lost, {} and {} are there",
                sectors.lost, names.lost, sectors.kept, names.kept
            )
        });
        self.probe(sectors.lost > 0, "disk: a power loss took content that was not flushed");
        self.probe(
            sectors.lost > 0 && sectors.kept > 0,
            "disk: a power loss tore content that was not flushed",
        );
        self.probe(names.lost > 0, "disk: a power loss undid changes of names");
        self.probe(names.lost > 0 && names.kept > 0, "disk: a power loss undid some changes of names");
    }

    /// It is taken out for good: it fails for whoever has it open, and nothing that lay on it is left.
    pub(crate) fn remove(&self) {
        self.with(|state| {
            state.removed = true;
            state.stuck = false;
            state.empty();
        });
        self.event("disk.removed", &[], String::new);
        self.0.unstuck.notify_waiters();
    }

    /// Sets how slow it is and how often it fails, from now on.
    pub fn configure(&self, faults: DiskFaults) {
        self.with(|state| state.faults = faults);
    }

    /// Switches planted bugs on and off.
    pub fn set_bugs(&self, bugs: DiskBugs) {
        self.with(|state| state.bugs = bugs);
    }

    /// Passes each transfer to it through `filter`; none to write them as they are.
    pub fn set_filter(&self, filter: Option<DiskFilter>) {
        let before = self.with(|state| std::mem::replace(&mut state.filter, filter));
        drop(before);
    }

    /// From now on `witness` sees what processes ask to be written; it may look at the disk.
    pub fn set_witness(&self, witness: DiskWitness) {
        let before = self.with(|state| state.witness.replace(witness));
        drop(before);
    }

    /// What is to be written for what a process asks for; the witness has seen it.
    pub(super) fn passed(&self, name: &FileName, transfers: Vec<(u64, Bytes)>) -> Vec<(u64, Bytes)> {
        let (witness, filter) = self.with(|state| (state.witness.clone(), state.filter.clone()));
        if let Some(witness) = witness {
            transfers.iter().for_each(|(offset, data)| witness(name, *offset, data));
        }
        let Some(filter) = filter else { return transfers };
        let one = |(offset, data)| filter(name, offset, data).map(|data| (offset, data));
        transfers.into_iter().filter_map(one).collect()
    }

    /// It is dead, or back: every operation fails with `Io` meanwhile. A flush that fails of it loses what
    /// it was to make durable.
    pub fn set_gone(&self, gone: bool) {
        self.with(|state| state.gone = gone);
        self.event("disk.gone", &[u64::from(gone)], || gone.to_string());
    }

    /// It answers nobody, or again: operations wait meanwhile.
    pub fn set_stuck(&self, stuck: bool) {
        self.with(|state| state.stuck = stuck);
        self.event("disk.stuck", &[u64::from(stuck)], || stuck.to_string());
        self.0.unstuck.notify_waiters();
    }

    /// Has another size from now on. What was reserved stays, even if it is more.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.with(|state| state.capacity_bytes = capacity_bytes);
        self.event("disk.capacity", &[capacity_bytes], || format!("{capacity_bytes} bytes"));
    }

    /// Other things take so much of its room from now on, which nobody sees otherwise.
    pub fn set_occupied(&self, occupied_bytes: u64) {
        self.with(|state| state.occupied_bytes = occupied_bytes);
        self.event("disk.occupied", &[occupied_bytes], || format!("{occupied_bytes} bytes"));
    }

    /// How much of its room other things take.
    pub fn occupied_bytes(&self) -> u64 {
        self.with(|state| state.occupied_bytes)
    }

    /// Names and lengths in bytes of its files, as the kernel shows them.
    pub fn files(&self) -> Vec<(FileName, u64)> {
        self.with(|state| state.listed())
    }

    /// Is there a file of this name?
    pub fn has(&self, name: &FileName) -> bool {
        self.with(|state| state.names.get(name).is_some())
    }

    /// Is it dead or taken out?
    pub fn is_gone(&self) -> bool {
        self.with(|state| state.gone || state.removed)
    }

    /// Would the file be there after a power loss, with all that is before offset `end` as it is now?
    pub fn is_durable_to(&self, name: &FileName, end: u64) -> bool {
        self.with(|state| state.is_durable_to(name, end))
    }

    /// Would a file of this name be there after a power loss, with content that was flushed? None when there
    /// is no such file now. One that another, flushed file is about to replace counts as well.
    pub fn survives(&self, name: &FileName) -> Option<bool> {
        self.with(|state| state.survives(name))
    }

    /// Changes of names that processes made which have died, and that a power loss may undo.
    pub fn inherited(&self) -> usize {
        self.with(|state| state.names.inherited())
    }

    /// Harms a file at rest, whether it was flushed or not. False when it has no such content, or no bit
    /// would change by the request's own terms.
    pub fn damage(&self, name: &FileName, damage: Damage) -> bool {
        let done = self.with(|state| state.damage(name, &damage));
        self.event("disk.damage", &[u64::from(done)], || format!("{name}: {damage:?}: {done}"));
        done
    }

    /// What is on it just now, for those who check: no latency, no errors, no owner, dead or alive.
    pub fn forensic(&self) -> ForensicDisk {
        ForensicDisk::new(self.clone(), Image::Volatile)
    }

    /// What a power loss just now would leave at least, in the same way.
    pub fn durable(&self) -> ForensicDisk {
        ForensicDisk::new(self.clone(), Image::Durable)
    }

    /// A disk of no machine with the same content: what is done to it is done to no other.
    #[must_use]
    pub fn copy(&self) -> Self {
        let stream = Stream::new(0);
        Self(Arc::new(Device {
            host: Weak::new(),
            path: self.0.path.clone(),
            tag: self.0.tag,
            state: Mutex::new(self.with(|state| state.copy())),
            unstuck: Notify::new(),
            latencies: stream.fork("latencies"),
            failures: stream.fork("failures"),
            deaths: stream.fork("deaths"),
        }))
    }

    /// What it was asked for.
    pub fn counters(&self) -> DiskCounters {
        self.with(|state| state.counters)
    }

    /// Where its host has mounted it.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Works on the state. Nothing in `work` may wake or wait.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.0.state))
    }

    pub(super) fn latency(&self, pace: Pace) -> Duration {
        let faults = self.with(|state| state.faults);
        let stream = &self.0.latencies;
        let draw = |(low, high): (u64, u64)| stream.between(low, high);
        let usual = draw(match pace {
            Pace::Transfer => faults.latency_us,
            Pace::Flush => faults.flush_us,
        });
        let more = if stream.chance(faults.slow_ppm) { draw(faults.slow_us) } else { 0 };
        Duration::from_micros(usual.saturating_add(more))
    }

    /// Waits while it is stuck.
    pub(super) async fn unstuck(&self) {
        loop {
            let notified = self.0.unstuck.notified();
            if !self.with(|state| state.stuck) {
                return;
            }
            notified.await;
        }
    }

    fn world(&self) -> Option<(World, HostId)> {
        let host = self.0.host.upgrade()?;
        Some((host.world().clone(), host.id()))
    }

    pub(super) fn probe(&self, reached: bool, name: &'static str) {
        if reached && let Some((world, _)) = self.world() {
            world.probe(name);
        }
    }

    pub(super) fn event(&self, what: &'static str, numbers: &[u64], story: impl FnOnce() -> String) {
        let Some((world, host)) = self.world() else { return };
        let mut all = [self.0.tag, 0, 0, 0, 0, 0];
        for (slot, number) in all[1..].iter_mut().zip(numbers) {
            *slot = *number;
        }
        world.event(Some(host), what, &all[..=numbers.len().min(5)], || {
            format!("{} {}", self.0.path, story())
        });
    }
}
