//! Where the rebuild of a slot goes on after an attempt that broke off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::ExtentId;

use crate::board::Job;

/// Extents of one slot that failed and are remembered; with more, the attempt breaks off where it is.
const LEFT_MAX: usize = 4096;

/// How far a rebuild has come: all extents up to one are whole, but for some that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) after: Option<ExtentId>,
    /// There are none behind `after`.
    pub(crate) at_end: bool,
    /// Failed, to be tried when the others are done.
    pub(crate) left: BTreeSet<ExtentId>,
}

impl Progress {
    /// The extent failed; whether there was room to remember it.
    pub(crate) fn leave(&mut self, extent: ExtentId) -> bool {
        let has_room = self.left.len() < LEFT_MAX;
        if has_room {
            self.left.insert(extent);
        }
        has_room
    }
}

/// Of all slots that are being rebuilt, by their work: it has another key once the group has changed, and begins anew.
#[derive(Debug, Default)]
pub(crate) struct Resume(Mutex<BTreeMap<Job, Progress>>);

impl Resume {
    /// How far it came.
    pub(crate) fn take(&self, job: &Job) -> Progress {
        self.all().remove(job).unwrap_or_default()
    }

    /// Keeps it for the next attempt.
    pub(crate) fn keep(&self, job: Job, progress: Progress) {
        self.all().insert(job, progress);
    }

    /// Forgets work that is not offered any more.
    pub(crate) fn retain(&self, is_known: impl Fn(&Job) -> bool) {
        self.all().retain(|job, _| is_known(job));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Job, Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::{DiskId, Epoch, GroupId, SlotIndex};

    use super::*;

    fn job(epoch: u64) -> Job {
        Job::Rebuild { disk: DiskId(1), group: GroupId(1), slot: SlotIndex(0), epoch: Epoch(epoch) }
    }

    /// An attempt goes on where the one before ended; under another epoch, or once nobody offers it, it begins anew.
    #[test]
    fn goes_on_where_it_was() {
        let (resume, mut progress) = (Resume::default(), Progress::default());
        assert_eq!(resume.take(&job(1)), progress);
        progress.after = Some(ExtentId(7));
        assert!(progress.leave(ExtentId(3)));
        resume.keep(job(1), progress.clone());
        assert_eq!(resume.take(&job(2)), Progress::default());
        assert_eq!(resume.take(&job(1)), progress);
        resume.keep(job(1), progress);
        resume.retain(|known| *known == job(2));
        assert_eq!(resume.take(&job(1)), Progress::default());
    }

    /// What is left is bounded.
    #[test]
    fn is_bounded() {
        let mut progress = Progress::default();
        assert!((0..LEFT_MAX as u128).all(|extent| progress.leave(ExtentId(extent))));
        assert!(!progress.leave(ExtentId(u128::MAX)));
        assert_eq!(progress.left.len(), LEFT_MAX);
    }
}
