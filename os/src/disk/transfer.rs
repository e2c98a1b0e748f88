//! One transfer, whole, however many calls of the kernel it takes.
//!
//! The kernel may transfer less than it was asked for, and be interrupted. What direct I/O leaves
//! over after a short transfer need not be aligned, so each next attempt begins at the last aligned
//! place and does a part again.

use env::AlignedBuf;
use env::buf::ALIGN_BYTES;
use rustix::fd::AsFd;
use rustix::io::{self, Errno};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToDisk,
    FromDisk,
}

/// A transfer of a buffer's whole capacity, and how far it is.
#[derive(Debug)]
pub(super) struct Transfer {
    way: Way,
    offset: u64,
    buf: AlignedBuf,
    done: usize,
}

/// What comes after one call of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another call, for [`Transfer::rest`].
    Call,
    /// It has ended.
    End(Result<(), Errno>),
}

impl Transfer {
    /// Nothing of it done yet.
    pub(super) fn new(way: Way, offset: u64, buf: AlignedBuf) -> Self {
        Self { way, offset, buf, done: 0 }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// Where the next call begins, and its part of the buffer.
    ///
    /// # Errors
    ///
    /// `OVERFLOW` when no file can be that long.
    pub(super) fn rest(&mut self) -> Result<(u64, &mut [u8]), Errno> {
        let start = aligned(self.done);
        let at = self.offset.checked_add(start as u64).ok_or(Errno::OVERFLOW)?;
        Ok((at, &mut self.buf.as_capacity_mut_slice()[start..]))
    }

    /// A call for the rest has ended: with so many bytes, or an error.
    pub(super) fn called(&mut self, result: Result<usize, Errno>) -> Next {
        let reached = match result {
            Ok(bytes) => aligned(self.done) + bytes,
            Err(Errno::INTR | Errno::AGAIN) => return Next::Call,
            Err(error) => return Next::End(Err(error)),
        };
        let is_stalled = reached <= self.done;
        self.done = reached.max(self.done).min(self.bytes());
        match self.way {
            _ if self.done < self.bytes() && !is_stalled => Next::Call,
            // Nothing beyond what was there before: the end of the file.
            Way::FromDisk => {
                self.buf.set_len(self.done);
                Next::End(Ok(()))
            }
            // A device that takes nothing and gives no reason; trying for ever would not help.
            Way::ToDisk if self.done < self.bytes() => Next::End(Err(Errno::IO)),
            Way::ToDisk => Next::End(Ok(())),
        }
    }

    /// The buffer, when it has ended.
    pub(super) fn into_buf(self) -> AlignedBuf {
        self.buf
    }

    /// Does all of it on this thread.
    ///
    /// # Errors
    ///
    /// Any of the kernel's.
    pub(super) fn run(&mut self, file: impl AsFd) -> Result<(), Errno> {
        if self.bytes() == 0 {
            return Ok(());
        }
        loop {
            let way = self.way;
            let (at, rest) = self.rest()?;
            let result = match way {
                Way::ToDisk => io::pwrite(&file, rest, at),
                Way::FromDisk => io::pread(&file, rest, at),
            };
            if let Next::End(result) = self.called(result) {
                return result;
            }
        }
    }
}

/// Calls `call` until no signal interrupts it.
pub(super) fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn aligned(done: usize) -> usize {
    done - done % ALIGN_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(way: Way, pages: usize) -> Transfer {
        Transfer::new(way, 8192, AlignedBuf::zeroed(pages * ALIGN_BYTES))
    }

    /// After a short call the next one begins at the last aligned place, and an interrupted one is done again.
    #[test]
    fn short_calls_go_on() {
        let mut read = transfer(Way::FromDisk, 3);
        assert_eq!(read.called(Err(Errno::INTR)), Next::Call);
        assert_eq!(read.called(Ok(5000)), Next::Call);
        let (at, rest) = read.rest().unwrap();
        assert_eq!((at, rest.len()), (8192 + 4096, 8192));
        assert_eq!(read.called(Ok(8192)), Next::End(Ok(())));
        assert_eq!(read.into_buf().len(), 3 * ALIGN_BYTES);
    }

    /// A read ends with the file, a write that gets nowhere with an error.
    #[test]
    fn no_progress_is_the_end() {
        let mut read = transfer(Way::FromDisk, 3);
        assert_eq!(read.called(Ok(5000)), Next::Call);
        assert_eq!(read.called(Ok(904)), Next::End(Ok(())));
        assert_eq!(read.into_buf().len(), 5000);
        let mut write = transfer(Way::ToDisk, 3);
        assert_eq!(write.called(Ok(4096)), Next::Call);
        assert_eq!(write.called(Ok(0)), Next::End(Err(Errno::IO)));
        assert_eq!(transfer(Way::ToDisk, 1).called(Err(Errno::NOSPC)), Next::End(Err(Errno::NOSPC)));
    }
}
