//! The names of a disk's files: what the kernel shows, what the device keeps, and the changes between.
//!
//! A change gives a file a name, its only one, replacing what had it, or takes its name away. Whatever set
//! of the unflushed changes survives a power loss, each does so as one step: a file that had a name and was
//! neither replaced nor removed has exactly one.

use std::collections::BTreeMap;

use env::FileName;

use super::content::Settled;
use crate::rng::Stream;

/// The number of a file; names come and go, it stays.
pub(super) type FileNumber = u64;

#[derive(Clone, Debug, Default)]
struct Directory {
    by_name: BTreeMap<FileName, FileNumber>,
    by_file: BTreeMap<FileNumber, FileName>,
}

impl Directory {
    /// Would it take no name but those that it took when it was made? Another file is there when a
    /// change before was undone, and must not vanish: nobody removed it.
    fn admits(&self, entry: &Entry) -> bool {
        let NameChange::Put(name, _) = &entry.change else { return true };
        self.by_name.get(name).is_none_or(|there| entry.files.contains(there))
    }

    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Put(name, file) => {
                if let Some(before) = self.by_file.insert(*file, name.clone()) {
                    self.by_name.remove(&before);
                }
                if let Some(replaced) = self.by_name.insert(name.clone(), *file)
                    && replaced != *file
                {
                    self.by_file.remove(&replaced);
                }
            }
            NameChange::Remove(name, file) => {
                if self.by_name.get(name) == Some(file) {
                    self.by_name.remove(name);
                    self.by_file.remove(file);
                }
            }
        }
    }
}

/// One change of names.
#[derive(Clone, Debug)]
enum NameChange {
    /// The file has this name and no other; what had it has none.
    Put(FileName, FileNumber),
    /// The file has this name no longer.
    Remove(FileName, FileNumber),
}

#[derive(Clone, Debug)]
struct Entry {
    /// How many flushes had begun before.
    generation: u64,
    change: NameChange,
    /// The files whose names it changes.
    files: Vec<FileNumber>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    volatile: Directory,
    durable: Directory,
    log: Vec<Entry>,
    generation: u64,
    /// How many entries of the log name a file.
    logged: BTreeMap<FileNumber, u64>,
    /// So many of the log's first entries are of processes that have died.
    inherited: usize,
}

impl Names {
    pub(super) fn get(&self, name: &FileName) -> Option<FileNumber> {
        self.volatile.by_name.get(name).copied()
    }

    /// As [`get`](Self::get), of what flushes have covered.
    pub(super) fn get_durable(&self, name: &FileName) -> Option<FileNumber> {
        self.durable.by_name.get(name).copied()
    }

    /// As [`list`](Self::list), of what flushes have covered.
    pub(super) fn list_durable(&self) -> impl Iterator<Item = (&FileName, FileNumber)> {
        self.durable.by_name.iter().map(|(name, file)| (name, *file))
    }

    /// Would the name be this file's after a power loss, whatever else is lost?
    pub(super) fn is_durable(&self, name: &FileName) -> bool {
        let file = self.volatile.by_name.get(name);
        let logged = file.is_some_and(|file| self.logged.contains_key(file));
        file.is_some() && self.durable.by_name.get(name) == file && !logged
    }

    /// Every file that may have this name after a power loss; none when it may be that no file has it.
    pub(super) fn holders(&self, name: &FileName) -> Option<Vec<FileNumber>> {
        let mut holders = vec![*self.durable.by_name.get(name)?];
        for Entry { change, .. } in &self.log {
            match change {
                NameChange::Put(put, file) if put == name => holders.push(*file),
                NameChange::Remove(removed, _) if removed == name => return None,
                NameChange::Put(_, file) if holders.contains(file) => return None,
                NameChange::Put(..) | NameChange::Remove(..) => {}
            }
        }
        Some(holders)
    }

    /// Changes that processes made which have died, and that are not durable.
    pub(super) fn inherited(&self) -> usize {
        self.inherited
    }

    /// The process that made the changes until now is dead.
    pub(super) fn bequeath(&mut self) {
        self.inherited = self.log.len();
    }

    pub(super) fn name_of(&self, file: FileNumber) -> Option<&FileName> {
        self.volatile.by_file.get(&file)
    }

    /// In byte order.
    pub(super) fn list(&self) -> impl Iterator<Item = (&FileName, FileNumber)> {
        self.volatile.by_name.iter().map(|(name, file)| (name, *file))
    }

    /// Has it a name, or may it have one again after a power loss?
    pub(super) fn may_name(&self, file: FileNumber) -> bool {
        self.volatile.by_file.contains_key(&file)
            || self.durable.by_file.contains_key(&file)
            || self.logged.contains_key(&file)
    }

    /// Gives a file its only name; the file that had it.
    pub(super) fn put(&mut self, name: FileName, file: FileNumber) -> Option<FileNumber> {
        let replaced = self.get(&name).filter(|replaced| *replaced != file);
        if self.get(&name) != Some(file) {
            self.change(NameChange::Put(name, file), [file].into_iter().chain(replaced).collect());
        }
        replaced
    }

    /// Takes a name away; the file that had it.
    pub(super) fn remove(&mut self, name: &FileName) -> Option<FileNumber> {
        let file = self.get(name)?;
        self.change(NameChange::Remove(name.clone(), file), vec![file]);
        Some(file)
    }

    fn change(&mut self, change: NameChange, files: Vec<FileNumber>) {
        self.volatile.apply(&change);
        for file in &files {
            *self.logged.entry(*file).or_insert(0) += 1;
        }
        self.log.push(Entry { generation: self.generation, change, files });
    }

    /// A flush begins: it covers the changes until now.
    pub(super) fn begin_flush(&mut self) -> u64 {
        self.generation += 1;
        self.generation - 1
    }

    /// A flush ends; the files whose names it has settled. When it failed, only some of the changes are
    /// durable, the first of them; a later flush tries again. One with a planted bug passes over what an earlier
    /// process did.
    pub(super) fn end_flush(
        &mut self,
        began: u64,
        failed: Option<&Stream>,
        passes_over_inherited: bool,
    ) -> Vec<FileNumber> {
        let covered = self.log.partition_point(|entry| entry.generation <= began);
        let count = failed.map_or(covered, |stream| stream.index(covered + 1));
        let (mut done, mut kept) = (Vec::new(), Vec::new());
        let mut inherited = self.inherited.saturating_sub(count);
        for (place, entry) in self.log.drain(..count).enumerate() {
            let is_inherited = place < self.inherited;
            if passes_over_inherited && is_inherited {
                inherited += 1;
                kept.push(entry);
            } else {
                self.durable.apply(&entry.change);
                done.push(entry);
            }
        }
        self.inherited = inherited;
        drop(self.log.splice(..0, kept));
        self.settled(done)
    }

    /// The power is lost, and is back. The files whose names this has settled.
    pub(super) fn lose_power(&mut self, stream: &Stream) -> (Settled, Vec<FileNumber>) {
        let entries = std::mem::take(&mut self.log);
        self.inherited = 0;
        // Nothing, everything, the first changes in order, or any of them.
        let style = stream.below(4);
        let first = stream.index(entries.len() + 1);
        let mut settled = Settled::default();
        for (place, entry) in entries.iter().enumerate() {
            let survives = match style {
                0 => false,
                1 => true,
                2 => place < first,
                _ => stream.chance(500_000),
            };
            if survives && self.durable.admits(entry) {
                self.durable.apply(&entry.change);
                settled.kept += 1;
            } else {
                settled.lost += 1;
            }
        }
        self.volatile = self.durable.clone();
        (settled, self.settled(entries))
    }

    fn settled(&mut self, entries: Vec<Entry>) -> Vec<FileNumber> {
        let files: Vec<FileNumber> = entries.into_iter().flat_map(|entry| entry.files).collect();
        for file in &files {
            if let Some(count) = self.logged.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    self.logged.remove(file);
                }
            }
        }
        files
    }
}
