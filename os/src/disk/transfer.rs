//! Positioned reads and writes, whole.
//!
//! The kernel may transfer less than it was asked for, and be interrupted. What direct I/O leaves
//! over after a short transfer need not be aligned, so each next attempt begins at the last aligned
//! place and does a part again.

use env::AlignedBuf;
use env::buf::ALIGN_BYTES;
use rustix::fd::AsFd;
use rustix::io::{self, Errno};

/// Calls `call` until no signal interrupts it.
pub(super) fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Reads up to the buffer's capacity from `offset`, and sets its length to what was there.
pub(super) fn read(file: impl AsFd, offset: u64, buf: &mut AlignedBuf) -> Result<(), Errno> {
    let into = buf.as_capacity_mut_slice();
    let capacity = into.len();
    let mut done = 0;
    while done < capacity {
        let start = aligned(done);
        let at = offset.checked_add(start as u64).ok_or(Errno::OVERFLOW)?;
        let reached = start + retried(|| io::pread(&file, &mut into[start..], at))?;
        if reached <= done {
            // Nothing beyond what was there before: the end of the file.
            break;
        }
        done = reached;
    }
    buf.set_len(done);
    Ok(())
}

/// Writes the buffer's whole capacity at `offset`.
pub(super) fn write(file: impl AsFd, offset: u64, buf: &AlignedBuf) -> Result<(), Errno> {
    let from = buf.as_capacity_slice();
    let mut done = 0;
    while done < from.len() {
        let start = aligned(done);
        let at = offset.checked_add(start as u64).ok_or(Errno::FBIG)?;
        let reached = start + retried(|| io::pwrite(&file, &from[start..], at))?;
        if reached <= done {
            // A device that takes nothing and gives no reason; trying for ever would not help.
            return Err(Errno::IO);
        }
        done = reached;
    }
    Ok(())
}

fn aligned(done: usize) -> usize {
    done - done % ALIGN_BYTES
}
