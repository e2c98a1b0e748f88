//! How much of a disk shards may take.

use env::Space;

/// The reserve that writes leave free, at least, on disks that are large enough.
const RESERVE_BYTES_MIN: u64 = 64 << 20;

/// Bytes that the disk may hold: the operator's limit or all of the disk, whichever is less.
pub(crate) fn capacity(limit: Option<u64>, space: Space) -> u64 {
    limit.unwrap_or(u64::MAX).min(space.capacity_bytes)
}

/// Bytes that writes leave free: 1 % and no less than 64 MiB, but never more than 5 %.
pub(crate) fn reserve(capacity: u64) -> u64 {
    (capacity / 100).max(RESERVE_BYTES_MIN).min(capacity / 20)
}

/// Whether `incoming` more bytes fit, both within the capacity and on the disk itself, which may
/// hold other things.
pub(crate) fn fits(limit: Option<u64>, space: Space, used: u64, incoming: u64) -> bool {
    let capacity = capacity(limit, space);
    let reserve = reserve(capacity);
    used.saturating_add(incoming) <= capacity - reserve
        && incoming.saturating_add(reserve) <= space.available_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reserve is 1 % of large disks, 64 MiB of ordinary ones and 5 % of tiny ones.
    #[test]
    fn reserves() {
        for (capacity, expected) in
            [(24 << 40, (24 << 40) / 100), (4 << 30, 64 << 20), (100 << 20, 5 << 20), (0, 0), (19, 0)]
        {
            assert_eq!(reserve(capacity), expected, "{capacity}");
        }
    }

    /// A disk is full to the byte, by its limit or by what else lies on it.
    #[test]
    fn full_is_exact() {
        let space = |available_bytes| Space { capacity_bytes: 1000, available_bytes };
        assert!(fits(None, space(1000), 900, 50));
        assert!(!fits(None, space(1000), 900, 51));
        assert!(fits(Some(500), space(1000), 400, 75));
        assert!(!fits(Some(500), space(1000), 400, 76));
        assert!(fits(None, space(100), 0, 50));
        assert!(!fits(None, space(100), 0, 51));
        assert!(!fits(None, space(1000), u64::MAX, 1));
    }
}
