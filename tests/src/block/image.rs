//! The bytes of a block device, as far as there are any.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that are kept together.
const PAGE: usize = 4096;

/// The content of a device. A clone shares what neither side changes.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: u64,
    /// By number; zeros where there is none.
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Image {
    /// Zeros.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, pages: BTreeMap::new() }
    }

    /// The device's size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        assert!(end <= self.bytes, "a write up to {end} on a device of {}", self.bytes);
        for_pages(offset, data.len(), |page, within, at| {
            let (piece, there) = (&data[at], self.pages.get_mut(&page));
            match there {
                Some(there) => Arc::make_mut(there)[within].copy_from_slice(piece),
                None if piece.iter().all(|byte| *byte == 0) => {}
                None => {
                    let mut fresh = [0; PAGE];
                    fresh[within].copy_from_slice(piece);
                    self.pages.insert(page, Arc::new(fresh));
                }
            }
        });
    }

    /// `length` bytes from `offset` on, or up to the end.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).expect("fits memory");
        let mut data = vec![0; length.min(left)];
        for_pages(offset, data.len(), |page, within, at| {
            if let Some(there) = self.pages.get(&page) {
                data[at].copy_from_slice(&there[within]);
            }
        });
        data
    }

    /// What is not zeros: offsets and pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(page, bytes)| (page * PAGE as u64, &bytes[..]))
    }
}

/// Tells the pages that an extent touches, its part within each, and where that is in the extent.
fn for_pages(
    offset: u64,
    length: usize,
    mut touch: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).expect("below a page");
        let piece = (PAGE - start).min(length - done);
        touch(at / PAGE as u64, start..start + piece, done..done + piece);
        done += piece;
    }
}
