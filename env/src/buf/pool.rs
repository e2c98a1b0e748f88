//! Memory of buffers that nobody uses any more.
//!
//! Memory from the system costs a fault of the processor and a page of zeros for every 4 KiB, several times what
//! copying or checksumming them does. So memory is kept by classes of powers of two, and only as many pages of it are
//! touched as a buffer has. What is kept is bounded; the rest goes back to the system.

use std::sync::LazyLock;

use bytemuck::Zeroable;
use crossbeam_queue::ArrayQueue;

use super::{ALIGN_BYTES, Page};

/// Of 4 KiB to 8 MiB: the largest record of a shard and more.
const CLASSES: u32 = 12;
/// From here on a buffer is large.
const LARGE_CLASS: u32 = 6;
/// Kept of a class of small buffers, and of large ones.
const SMALL_BYTES: usize = 4 << 20;
const LARGE_BYTES: usize = 32 << 20;

static POOL: LazyLock<Vec<ArrayQueue<Vec<Page>>>> = LazyLock::new(|| {
    let kept = |class: u32| {
        let bytes = if class < LARGE_CLASS { SMALL_BYTES } else { LARGE_BYTES };
        ArrayQueue::new(bytes / (ALIGN_BYTES << class))
    };
    (0..CLASSES).map(kept).collect()
});

/// So many pages of zeros.
pub(super) fn take(pages: usize) -> Vec<Page> {
    let mut memory = kept(pages);
    memory.clear();
    memory.resize(pages, Page::zeroed());
    memory
}

/// So many pages with what lay there before, or zeros.
pub(super) fn take_uncleared(pages: usize) -> Vec<Page> {
    let mut memory = kept(pages);
    memory.resize(pages, Page::zeroed());
    memory
}

fn kept(pages: usize) -> Vec<Page> {
    let Some(class) = pages.checked_next_power_of_two().filter(|_| pages > 0).map(usize::ilog2) else {
        return Vec::new();
    };
    let memory =
        POOL.get(class as usize).map(|kept| kept.pop().unwrap_or_else(|| Vec::with_capacity(1 << class)));
    memory.unwrap_or_default()
}

/// Takes back what was taken.
pub(super) fn give(memory: Vec<Page>) {
    let pages = memory.capacity();
    if pages.is_power_of_two()
        && let Some(kept) = POOL.get(pages.ilog2() as usize)
    {
        // What there is no room for goes back to the system.
        drop(kept.push(memory));
    }
}
