//! How many calls wait for one disk at the same time.

use std::sync::Arc;

use env::{Priority, StorageError, StorageErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls to one disk at the same time: enough to keep an SSD busy, few enough that sixty disks do not
/// need more threads than a runtime has.
const IN_FLIGHT_MAX: usize = 8;
/// Of these, repairs.
const REPAIRS_MAX: usize = 4;
/// Of these, scrubs. Clients always find the rest.
const SCRUBS_MAX: usize = 2;
const _: () = assert!(REPAIRS_MAX + SCRUBS_MAX < IN_FLIGHT_MAX);

/// The places of one disk. Whoever is less urgent first needs a place in a narrower lane, so that an
/// urgent call never finds all places taken by others.
#[derive(Debug)]
pub(super) struct Lanes {
    all: Arc<Semaphore>,
    repairs: Arc<Semaphore>,
    scrubs: Arc<Semaphore>,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _lane: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Default for Lanes {
    fn default() -> Self {
        let lane = |places| Arc::new(Semaphore::new(places));
        Self { all: lane(IN_FLIGHT_MAX), repairs: lane(REPAIRS_MAX), scrubs: lane(SCRUBS_MAX) }
    }
}

impl Lanes {
    /// Waits for a place, first come, first served within a priority. Dropping it gives up.
    ///
    /// # Errors
    ///
    /// None in practice: the lanes are never closed.
    pub(super) async fn enter(&self, priority: Priority) -> Result<Place, StorageError> {
        let lane = match priority {
            Priority::Client => None,
            Priority::Repair => Some(enter(&self.repairs).await?),
            Priority::Scrub => Some(enter(&self.scrubs).await?),
        };
        Ok(Place { _lane: lane, _all: enter(&self.all).await? })
    }
}

async fn enter(lane: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StorageError> {
    let closed = |error| StorageError::new(StorageErrorKind::Io, "the disk is closing").because(error);
    Arc::clone(lane).acquire_owned().await.map_err(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs and scrubs that fill their lanes leave places to clients.
    #[tokio::test]
    async fn clients_find_a_place() {
        let lanes = Lanes::default();
        let mut places = Vec::new();
        for _ in 0..REPAIRS_MAX {
            places.push(lanes.enter(Priority::Repair).await.unwrap());
        }
        for _ in 0..SCRUBS_MAX {
            places.push(lanes.enter(Priority::Scrub).await.unwrap());
        }
        assert_eq!(lanes.repairs.available_permits() + lanes.scrubs.available_permits(), 0);
        assert_eq!(lanes.all.available_permits(), IN_FLIGHT_MAX - REPAIRS_MAX - SCRUBS_MAX);
        places.push(lanes.enter(Priority::Client).await.unwrap());
        drop(places);
        assert_eq!(lanes.all.available_permits(), IN_FLIGHT_MAX);
        assert_eq!(lanes.scrubs.available_permits(), SCRUBS_MAX);
    }
}
