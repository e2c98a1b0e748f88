//! From an object's bytes, as they come, to whole stripes.

use bytes::{Bytes, BytesMut};
use proto::StripeIndex;

use crate::geometry::Geometry;

/// Cuts an object of unknown length into stripes, and stripes into extents.
///
/// Holds less than one stripe. A stripe that lies in one piece of the input is a slice of it, not a copy.
///
/// ```
/// # use codec::{Cutter, Geometry};
/// # let geometry = Geometry::new(4, 2, 65_536).unwrap();
/// # let pieces = [bytes::Bytes::from(vec![1; 300_000]), bytes::Bytes::from(vec![2; 300_000])];
/// let mut cutter = Cutter::new(geometry, None);
/// let mut stripes = Vec::new();
/// for mut piece in pieces {
///     while let Some(stripe) = cutter.push(&mut piece) {
///         stripes.push(stripe);
///     }
/// }
/// stripes.extend(cutter.finish());
/// # assert_eq!(stripes.len(), 3);
/// ```
#[derive(Debug)]
pub struct Cutter {
    geometry: Geometry,
    /// Bytes of the object that are still to come, as far as is known.
    expected_bytes: u64,
    next: Position,
    /// The start of the stripe while it is all in one piece; empty once it was copied.
    head: Bytes,
    /// The start of the stripe when it came in several pieces.
    copied: BytesMut,
}

/// One stripe of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutStripe {
    /// Place of the extent in the object, from 0.
    pub extent: usize,
    /// Place of the stripe in the extent.
    pub stripe: StripeIndex,
    /// The object's bytes in this stripe; full but for the object's last.
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    extent: usize,
    stripe: u32,
}

impl Cutter {
    /// At the start of an object. `expected_bytes`, if its length is known, spares it from taking
    /// memory for a whole stripe, or from growing a buffer; nothing breaks when it is wrong.
    pub fn new(geometry: Geometry, expected_bytes: Option<u64>) -> Self {
        Self {
            geometry,
            expected_bytes: expected_bytes.unwrap_or(0),
            next: Position::default(),
            head: Bytes::new(),
            copied: BytesMut::new(),
        }
    }

    /// Takes bytes off `piece` until a stripe is full, and gives it; `None` when `piece` is used up.
    pub fn push(&mut self, piece: &mut Bytes) -> Option<CutStripe> {
        let full = self.geometry.stripe_bytes();
        let held = self.head.len() + self.copied.len();
        let taken = piece.split_to(piece.len().min(full - held));
        self.expected_bytes = self.expected_bytes.saturating_sub(taken.len() as u64);
        let is_full = held + taken.len() == full;
        if held == 0 {
            self.head = taken;
        } else if !taken.is_empty() {
            self.copy(&taken);
        }
        is_full.then(|| self.cut())
    }

    /// The object has ended: gives its last stripe, if it was not full. None at all for an empty object.
    pub fn finish(mut self) -> Option<CutStripe> {
        let held = self.head.len() + self.copied.len();
        (held > 0).then(|| self.cut())
    }

    /// Appends to what is held, which is not empty.
    fn copy(&mut self, taken: &Bytes) {
        if self.copied.is_empty() {
            let full = self.geometry.stripe_bytes();
            let expected = usize::try_from(self.expected_bytes).unwrap_or(full);
            self.copied.reserve(full.min(self.head.len() + taken.len() + expected));
            self.copied.extend_from_slice(&self.head);
            self.head = Bytes::new();
        }
        self.copied.extend_from_slice(taken);
    }

    fn cut(&mut self) -> CutStripe {
        let bytes = if self.copied.is_empty() {
            std::mem::take(&mut self.head)
        } else {
            std::mem::take(&mut self.copied).freeze()
        };
        let Position { extent, stripe } = self.next;
        let stripes_max = self.geometry.extent_bytes_max() / self.geometry.stripe_bytes() as u64;
        self.next = if u64::from(stripe) + 1 == stripes_max {
            Position { extent: extent + 1, stripe: 0 }
        } else {
            Position { extent, stripe: stripe + 1 }
        };
        CutStripe { extent, stripe: StripeIndex(stripe), bytes }
    }
}
