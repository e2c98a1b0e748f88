//! What a disk is: files, names, room, and the changes that are under way.

use std::collections::BTreeMap;
use std::sync::Weak;

use bytes::Bytes;
use env::buf::ALIGN_BYTES;
use env::{FileName, Space, StorageError, StorageErrorKind};

use super::content::{Content, Settled, Survival, in_pages};
use super::faults::{Damage, DiskBugs, DiskCounters, DiskFaults, DiskFilter, DiskWitness};
use super::names::{FileNumber, Names};
use super::session::Session;
use crate::host::Death;
use crate::rng::Stream;

pub(super) type Result<T> = std::result::Result<T, StorageError>;

pub(super) fn error(kind: StorageErrorKind, what: impl Into<String>) -> StorageError {
    StorageError::new(kind, what)
}

/// A change that the device was asked for and has not made yet. It can take place although nobody waits
/// for it any longer.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { file: FileNumber, transfers: Vec<(u64, Bytes)> },
    Create { name: FileName, bytes: u64 },
    Rename { from: FileName, to: FileName },
    Remove { name: FileName },
}

#[derive(Clone, Debug)]
struct File {
    content: Content,
    /// Handles of the process that lives.
    handles: u64,
    /// Of the disk's room; none once it has neither name nor handle.
    used_bytes: u64,
}

/// What a death has left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    pub(super) sectors: Settled,
    pub(super) names: Settled,
}

/// See the module.
#[derive(Default)]
pub(super) struct State {
    pub(super) capacity_bytes: u64,
    pub(super) occupied_bytes: u64,
    pub(super) faults: DiskFaults,
    pub(super) bugs: DiskBugs,
    pub(super) filter: Option<DiskFilter>,
    pub(super) witness: Option<DiskWitness>,
    pub(super) counters: DiskCounters,
    pub(super) gone: bool,
    pub(super) removed: bool,
    pub(super) stuck: bool,
    pub(super) owner: Weak<Session>,
    pub(super) names: Names,
    /// Counts the owners that died: handles of earlier ones mean nothing.
    pub(super) deaths: u64,
    files: BTreeMap<FileNumber, File>,
    next_file: FileNumber,
    used_bytes: u64,
    under_way: BTreeMap<u64, Change>,
    next_change: u64,
}

impl State {
    /// An empty disk.
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, ..Self::default() }
    }

    /// Does the device answer?
    pub(super) fn check(&self) -> Result<()> {
        if self.gone || self.removed {
            return Err(error(StorageErrorKind::Io, "the device is gone"));
        }
        Ok(())
    }

    pub(super) fn space(&self) -> Space {
        let taken_bytes = self.used_bytes.saturating_add(self.occupied_bytes);
        let available_bytes = self.capacity_bytes.saturating_sub(taken_bytes);
        Space { capacity_bytes: self.capacity_bytes, available_bytes }
    }

    pub(super) fn named(&self, name: &FileName) -> Result<FileNumber> {
        self.names.get(name).ok_or_else(|| error(StorageErrorKind::NotFound, "there is no such file"))
    }

    pub(super) fn content(&mut self, file: FileNumber) -> Result<&mut Content> {
        let there = self.files.get_mut(&file).map(|file| &mut file.content);
        there.ok_or_else(|| error(StorageErrorKind::Io, "the file is gone with its disk"))
    }

    /// What is on it, for somebody to try something with.
    pub(super) fn copy(&self) -> Self {
        Self {
            capacity_bytes: self.capacity_bytes,
            occupied_bytes: self.occupied_bytes,
            names: self.names.clone(),
            files: self.files.clone(),
            next_file: self.next_file,
            used_bytes: self.used_bytes,
            ..Self::default()
        }
    }

    /// Would the file be there after a power loss, with all that is before `end` as it is?
    pub(super) fn is_durable_to(&self, name: &FileName, end: u64) -> bool {
        let file = self.names.get(name).and_then(|file| self.files.get(&file));
        self.names.is_durable(name) && file.is_some_and(|file| file.content.is_durable_to(end))
    }

    /// Would a file of this name be there after a power loss, with content that was flushed, whatever else
    /// is lost? None when there is no such file now.
    pub(super) fn survives(&self, name: &FileName) -> Option<bool> {
        self.names.get(name)?;
        let is_clean = |file: &FileNumber| self.files.get(file).is_some_and(|file| file.content.is_clean());
        Some(self.names.holders(name).is_some_and(|holders| holders.iter().all(is_clean)))
    }

    /// Names and lengths.
    pub(super) fn listed(&self) -> Vec<(FileName, u64)> {
        let len = |file| self.files.get(&file).map_or(0, |file| file.content.len());
        self.names.list().map(|(name, file)| (name.clone(), len(file))).collect()
    }

    /// A handle more. None of a file that is gone with its disk.
    pub(super) fn opened(&mut self, file: FileNumber) {
        if let Some(there) = self.files.get_mut(&file) {
            there.handles += 1;
        }
    }

    /// A handle less.
    pub(super) fn closed(&mut self, file: FileNumber, deaths: u64) {
        if deaths == self.deaths
            && let Some(there) = self.files.get_mut(&file)
        {
            there.handles = there.handles.saturating_sub(1);
            self.tidy(file);
        }
    }

    /// Counts its room anew, and forgets it when nobody can find it again.
    fn tidy(&mut self, file: FileNumber) {
        let Some(there) = self.files.get_mut(&file) else { return };
        let in_use = there.handles > 0 || self.names.name_of(file).is_some();
        let used = if in_use { in_pages(there.content.len()) } else { 0 };
        self.used_bytes = self.used_bytes.saturating_sub(there.used_bytes).saturating_add(used);
        there.used_bytes = used;
        if !in_use && !self.names.may_name(file) {
            self.files.remove(&file);
        }
    }

    /// The device takes a change on; it makes it when it is told to [`apply`](Self::apply).
    pub(super) fn take_on(&mut self, change: Change) -> u64 {
        self.next_change += 1;
        self.under_way.insert(self.next_change, change);
        self.next_change
    }

    /// A change that was taken on and is neither made nor given up.
    pub(super) fn take_back(&mut self, number: u64) -> Option<Change> {
        self.under_way.remove(&number)
    }

    /// Makes a change; the file that it made or changed.
    pub(super) fn apply(&mut self, change: Change) -> Result<FileNumber> {
        self.check()?;
        match change {
            Change::Write { file, transfers } => {
                for (offset, data) in transfers {
                    self.write(file, offset, &data)?;
                }
                Ok(file)
            }
            Change::Create { name, bytes } => self.create(name, bytes),
            Change::Rename { from, to } => {
                let file = self.named(&from)?;
                if let Some(replaced) = self.names.put(to, file) {
                    self.tidy(replaced);
                }
                Ok(file)
            }
            Change::Remove { name } => {
                let file = self.named(&name)?;
                self.names.remove(&name);
                self.tidy(file);
                Ok(file)
            }
        }
    }

    fn create(&mut self, name: FileName, bytes: u64) -> Result<FileNumber> {
        if self.names.get(&name).is_some() {
            return Err(error(StorageErrorKind::AlreadyExists, "there is such a file"));
        }
        if in_pages(bytes) > self.space().available_bytes {
            return Err(error(StorageErrorKind::Full, format!("no room for {bytes} bytes")));
        }
        self.next_file += 1;
        let file = self.next_file;
        self.files.insert(file, File { content: Content::new(bytes), handles: 0, used_bytes: 0 });
        self.names.put(name, file);
        self.tidy(file);
        Ok(file)
    }

    fn write(&mut self, file: FileNumber, offset: u64, data: &Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let available = self.space().available_bytes;
        let content = self.content(file)?;
        let end = offset.saturating_add(data.len() as u64);
        let more = in_pages(end).saturating_sub(in_pages(content.len()));
        if more > available {
            return Err(error(
                StorageErrorKind::Full,
                format!("no room for {more} bytes beyond the file's end"),
            ));
        }
        content.write(offset, data);
        self.counters.writes += 1;
        self.counters.bytes_written += data.len() as u64;
        if more > 0 {
            self.tidy(file);
        }
        Ok(())
    }

    /// Makes some of a change, or all of it, or nothing.
    pub(super) fn apply_partly(&mut self, change: Change, stream: &Stream) {
        let part = match change {
            Change::Write { file, transfers } => {
                let torn = transfers.into_iter().map(|(offset, data)| (offset, torn(&data, stream)));
                Change::Write { file, transfers: torn.collect() }
            }
            names if stream.chance(500_000) => names,
            _ => return,
        };
        // That it cannot be made is one of the ways not to make it.
        drop(self.apply(part));
    }

    /// The owner is dead; whatever was under way has ended, somehow.
    pub(super) fn owner_died(&mut self, death: Death, stream: &Stream) -> Loss {
        self.owner = Weak::new();
        self.deaths += 1;
        for change in std::mem::take(&mut self.under_way).into_values() {
            self.apply_partly(change, stream);
        }
        self.names.bequeath();
        let loss = if death == Death::Power { self.lose_power(stream) } else { Loss::default() };
        self.files.values_mut().for_each(|file| file.handles = 0);
        let all: Vec<FileNumber> = self.files.keys().copied().collect();
        all.into_iter().for_each(|file| self.tidy(file));
        loss
    }

    fn lose_power(&mut self, stream: &Stream) -> Loss {
        let (names, _) = self.names.lose_power(stream);
        let survival = Survival::draw(stream);
        let mut sectors = Settled::default();
        for file in self.files.values_mut().filter(|file| !file.content.is_clean()) {
            sectors = sectors.plus(file.content.lose_power(survival, stream));
        }
        Loss { sectors, names }
    }

    /// A flush of names ends.
    pub(super) fn end_name_flush(&mut self, began: u64, failed: Option<&Stream>) {
        let passes_over_inherited = self.bugs.inherited_flush_lies;
        for file in self.names.end_flush(began, failed, passes_over_inherited) {
            self.tidy(file);
        }
    }

    /// Content changes at rest; false when there is no such content.
    pub(super) fn damage(&mut self, name: &FileName, damage: &Damage) -> bool {
        self.try_damage(name, damage).is_some()
    }

    fn try_damage(&mut self, name: &FileName, damage: &Damage) -> Option<()> {
        let source = match damage {
            Damage::Misdirected { bytes, from, from_offset, .. } => {
                let content = self.named(from).and_then(|from| self.content(from)).ok()?;
                content.copy(&content.clip(*from_offset, *bytes))
            }
            _ => Vec::new(),
        };
        let content = self.named(name).and_then(|file| self.content(file)).ok()?;
        let (offset, bytes) = match damage {
            Damage::Flip { offset, .. } => (*offset, 1),
            Damage::Zero { offset, bytes }
            | Damage::Unreadable { offset, bytes }
            | Damage::StaleOnce { offset, bytes } => (*offset, *bytes),
            Damage::Misdirected { offset, .. } => (*offset, source.len() as u64),
        };
        let range = content.clip(offset, bytes);
        if range.is_empty() || matches!(damage, Damage::Flip { mask: 0, .. }) {
            return None;
        }
        match damage {
            Damage::Flip { mask, .. } => content.edit(&range, |_, byte| *byte ^= mask),
            Damage::Zero { .. } => content.edit(&range, |_, byte| *byte = 0),
            Damage::Unreadable { .. } => content.spoil(&range),
            Damage::Misdirected { .. } => content.edit(&range, |at, byte| {
                let index = usize::try_from(at - offset).unwrap_or(usize::MAX);
                *byte = source.get(index).copied().unwrap_or(*byte);
            }),
            Damage::StaleOnce { .. } => content.make_stale(range),
        }
        Some(())
    }

    /// All that lies on it is gone.
    pub(super) fn empty(&mut self) {
        self.names = Names::default();
        self.files.clear();
        self.under_way.clear();
        self.used_bytes = 0;
    }
}

/// Whole pages from the start of `data`: none, some or all.
fn torn(data: &Bytes, stream: &Stream) -> Bytes {
    let pages = data.len() / ALIGN_BYTES;
    let kept = match stream.below(3) {
        0 => 0,
        1 => pages,
        _ => stream.index(pages + 1),
    };
    data.slice(..kept * ALIGN_BYTES)
}
