//! Memory that a disk can read and write directly.

mod pool;

use bytes::Bytes;

use pool::Memory;
pub use pool::advise;

/// Alignment of address and length that direct I/O takes on every disk that we know of.
pub const ALIGN_BYTES: usize = 4096;

/// Bytes whose address and capacity are multiples of [`ALIGN_BYTES`], for direct I/O.
///
/// The length can be anything up to the capacity. An I/O owns its buffers from submission to
/// completion, so that nothing is read or written behind a caller's back when a future is dropped.
///
/// The memory of a dropped buffer is kept for the next one of about its size, within bounds, since fresh memory
/// costs more than what is done with it.
pub struct AlignedBuf {
    memory: Memory,
    capacity: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes; the capacity is `len` rounded up to [`ALIGN_BYTES`].
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::uncleared(len);
        buf.as_capacity_mut_slice().fill(0);
        buf
    }

    /// `len` bytes for somebody who sets all of them before anybody reads them: until then they are what was in the
    /// memory before, bytes of other tenants included. The capacity is `len` rounded up to [`ALIGN_BYTES`].
    pub fn uncleared(len: usize) -> Self {
        let capacity = len.next_multiple_of(ALIGN_BYTES);
        Self { memory: pool::take(capacity), capacity, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.as_mut_slice().copy_from_slice(bytes);
        buf
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Uses `len` bytes; those that were not in use before have the values last written to them,
    /// zero at first.
    ///
    /// # Panics
    ///
    /// When `len` is over the capacity: a bug of the caller.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length {len} is over the capacity {}", self.capacity());
        self.len = len;
    }

    /// The bytes in use.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory.bytes[..self.len]
    }

    /// The bytes in use.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[..self.len]
    }

    /// All bytes up to the capacity: what a direct I/O transfers.
    pub fn as_capacity_slice(&self) -> &[u8] {
        &self.memory.bytes[..self.capacity]
    }

    /// All bytes up to the capacity: what a direct I/O transfers.
    pub fn as_capacity_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[..self.capacity]
    }

    /// The bytes in use as [`Bytes`], without a copy.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.memory));
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that was used before is zero again, whatever lay in it.
    #[test]
    fn used_memory_is_zero_again() {
        for len in [1, 4096, 5000, 300_000, 1 << 20, (1 << 20) + 4096, 5 << 20, 20 << 20] {
            for _ in 0..5 {
                let mut buf = AlignedBuf::zeroed(len);
                assert!(buf.as_capacity_slice().iter().all(|byte| *byte == 0), "{len}");
                assert!(buf.capacity() < len + ALIGN_BYTES);
                let uncleared = AlignedBuf::uncleared(len);
                assert_eq!((uncleared.len(), uncleared.capacity()), (len, buf.capacity()));
                buf.as_capacity_mut_slice().fill(7);
            }
        }
    }

    /// Address and capacity are aligned; content survives freezing without a copy.
    #[test]
    fn is_aligned() {
        for len in [0, 1, 4095, 4096, 4097, 100_000] {
            let mut buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len(), len);
            assert!(buf.capacity().is_multiple_of(ALIGN_BYTES) && buf.capacity() >= len);
            assert!(buf.as_slice().as_ptr().addr().is_multiple_of(ALIGN_BYTES));
            buf.as_mut_slice().fill(7);
            let at = buf.as_slice().as_ptr();
            let bytes = buf.freeze();
            assert!(len == 0 || bytes.as_ptr() == at);
            assert!(bytes.iter().all(|b| *b == 7) && bytes.len() == len);
        }
    }
}
