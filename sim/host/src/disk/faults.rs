//! What can be wrong with a disk.

use std::sync::Arc;

use bytes::Bytes;
use env::FileName;

/// Rewrites each transfer of a process to the disk, or drops it: the file, the offset, the bytes (whole pages, as
/// many as what comes back), and what to write instead.
pub type DiskFilter = Arc<dyn Fn(&FileName, u64, Bytes) -> Option<Bytes> + Send + Sync>;

/// Sees each transfer of a process to the disk when it is asked for, before anything of it is there: the file, the
/// offset, the bytes.
pub type DiskWitness = Arc<dyn Fn(&FileName, u64, &Bytes) + Send + Sync>;

/// How slow a disk is, and how often it fails. Times are microseconds, both bounds included, and drawn for
/// each operation; `…_ppm` is how many in a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// A batch of transfers, or a change of names.
    pub latency_us: (u64, u64),
    /// A flush, of content or names.
    pub flush_us: (u64, u64),
    /// Operations that take longer by [`slow_us`](Self::slow_us).
    pub slow_ppm: u32,
    /// How much longer.
    pub slow_us: (u64, u64),
    /// Batches of transfers that are refused since too much waits: none of them is done.
    pub busy_ppm: u32,
    /// Reads that fail: each transfer on its own, opening a file, listing the names.
    pub read_error_ppm: u32,
    /// Batches of writes that fail, any part of them done; changes of names that fail, done or not.
    pub write_error_ppm: u32,
    /// Flushes that fail: any part of the content is durable, and the rest never will be until it is written
    /// again. Of names a prefix of the changes is durable, and a later flush tries again.
    pub flush_error_ppm: u32,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            latency_us: (50, 400),
            flush_us: (200, 2_000),
            slow_ppm: 0,
            slow_us: (20_000, 500_000),
            busy_ppm: 0,
            read_error_ppm: 0,
            write_error_ppm: 0,
            flush_error_ppm: 0,
        }
    }
}

/// Planted bugs: a disk that lies, for those who want to see whether their checkers find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskBugs {
    /// Flushes of files succeed and make nothing durable.
    pub flush_lies: bool,
    /// Flushes of names succeed and make nothing durable.
    pub name_flush_lies: bool,
    /// They pass over what an earlier process did.
    pub inherited_flush_lies: bool,
}

/// What a disk was asked for since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Transfers from the disk.
    pub reads: u64,
    /// Transfers to the disk.
    pub writes: u64,
    /// Flushes of files.
    pub flushes: u64,
    /// Flushes of names.
    pub name_flushes: u64,
    /// In all transfers from the disk.
    pub bytes_read: u64,
    /// In all transfers to the disk.
    pub bytes_written: u64,
}

/// What happens to content that lies on the disk. Offsets are from the file's start; what lies beyond its
/// end is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Bits of one byte rot.
    Flip {
        /// Of the byte.
        offset: u64,
        /// Which bits.
        mask: u8,
    },
    /// A write was lost: zeros are there.
    Zero {
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Latent errors: every sector that it touches cannot be read until it is written again.
    Unreadable {
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A write went to the wrong place: the content of another place lies here.
    Misdirected {
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
        /// The file whose content it is.
        from: FileName,
        /// Where in that file.
        from_offset: u64,
    },
    /// The next read that touches it sees zeros there, later ones the truth.
    StaleOnce {
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}
