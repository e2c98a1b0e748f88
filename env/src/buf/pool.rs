//! Memory of buffers that nobody uses any more.
//!
//! Memory from the system costs a fault of the processor and a page of zeros for every 4 KiB, several times what
//! copying or checksumming them does; and 1 MiB of it lies in hundreds of places, each of which the kernel and the
//! device are told of in every transfer. So buffers are pieces of slabs: one for each class of sizes, taken from the
//! system as a whole when the first piece is wanted, and kept. A slab is virtual memory until its pieces are used, and
//! the system may be asked to make large ones of huge pages ([`advise`]). What a slab has no room for, and what is
//! larger than any class, is memory of its own, and goes back to the system.

use std::sync::{LazyLock, OnceLock};

use bytes::BytesMut;
use crossbeam_queue::ArrayQueue;

use super::ALIGN_BYTES;

/// Pieces of 4 KiB to 8 MiB, and a page more for the header of what is stored.
const CLASSES: u32 = 12;
/// Slabs of classes up to 128 KiB, up to 512 KiB, and of the others.
const SMALL_BYTES: usize = 4 << 20;
const MIDDLE_BYTES: usize = 16 << 20;
const LARGE_BYTES: usize = 32 << 20;
/// Slabs begin at a multiple of this: huge pages do.
const SLAB_ALIGN_BYTES: usize = 2 << 20;

static POOL: LazyLock<Vec<Class>> = LazyLock::new(|| (0..CLASSES).map(Class::new).collect());
static ADVICE: OnceLock<fn(&mut [u8])> = OnceLock::new();

/// Has every large slab that is made from now on shown to `advice` before it is used; the first one counts.
pub fn advise(advice: fn(&mut [u8])) {
    // Another is as good.
    ADVICE.set(advice).ok();
}

/// Memory of a buffer: at least as much as was asked for, aligned.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bytes: BytesMut,
    is_of_slab: bool,
}

/// Pieces of one size.
struct Class {
    piece_bytes: usize,
    slab_bytes: usize,
    free: ArrayQueue<BytesMut>,
    is_made: OnceLock<()>,
}

impl Class {
    fn new(class: u32) -> Self {
        let slab_bytes = match class {
            0..=5 => SMALL_BYTES,
            6..=7 => MIDDLE_BYTES,
            _ => LARGE_BYTES,
        };
        let piece_bytes = if class == 0 { ALIGN_BYTES } else { (ALIGN_BYTES << class) + ALIGN_BYTES };
        let free = ArrayQueue::new(slab_bytes / piece_bytes);
        Self { piece_bytes, slab_bytes, free, is_made: OnceLock::new() }
    }

    fn take(&self) -> Option<BytesMut> {
        self.free.pop().or_else(|| {
            self.is_made.get_or_init(|| self.make());
            self.free.pop()
        })
    }

    fn make(&self) {
        let mut slab = aligned(self.slab_bytes, SLAB_ALIGN_BYTES);
        if self.slab_bytes > SMALL_BYTES
            && let Some(advice) = ADVICE.get()
        {
            advice(&mut slab);
        }
        while slab.len() >= self.piece_bytes && self.free.push(slab.split_to(self.piece_bytes)).is_ok() {}
    }
}

/// So many bytes that are zero or were used before.
pub(super) fn take(bytes: usize) -> Memory {
    let class = POOL.iter().find(|class| bytes <= class.piece_bytes);
    match class.and_then(Class::take) {
        Some(bytes) => Memory { bytes, is_of_slab: true },
        None => Memory { bytes: aligned(bytes, ALIGN_BYTES), is_of_slab: false },
    }
}

/// Takes back what was taken.
pub(super) fn give(memory: Memory) {
    let class = POOL.iter().find(|class| memory.bytes.len() == class.piece_bytes);
    if memory.is_of_slab
        && let Some(class) = class
    {
        // There is room for all that were taken.
        class.free.push(memory.bytes).ok();
    }
}

/// Zeros at a multiple of `align`. What the system gives is zero already, and is not touched.
fn aligned(bytes: usize, align: usize) -> BytesMut {
    let mut memory = BytesMut::zeroed(bytes + align);
    let skipped = memory.as_ptr().addr().wrapping_neg() % align;
    drop(memory.split_to(skipped));
    memory.truncate(bytes);
    memory
}
