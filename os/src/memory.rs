//! What the system is told of memory.

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Asks for huge pages behind a large piece of memory: transfers then name a few places where it lies instead of one for
/// every 4 KiB. Systems without them go on as before.
#[allow(unsafe_code)]
pub(crate) fn prefer_huge_pages(memory: &mut [u8]) {
    // SAFETY: the range is ours alone, and this advice changes neither its bytes nor who may touch them.
    let advised = unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), Advice::LinuxHugepage) };
    if let Err(error) = advised {
        debug!(%error, "no huge pages for buffers");
    }
}
