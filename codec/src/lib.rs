//! How an object's bytes become shards, and shards bytes again.
//!
//! ```text
//! object   |──────────────────────────────────────────────────────────────────| any length
//! extents  |─────────── 0 ───────────|─────────── 1 ───────────|───── 2 ──────|
//!            whole stripes, at most 1 GiB together                   the rest
//! stripes  |── 0 ──|── 1 ──|── … ──|                  |── 0 ──|── 1 ──|─ rest ─|
//!            k × shard_bytes each                       the last is shorter
//!
//! stripe   |  data 0  |  data 1  |  data 2  |  data 3  |            k = 4, contiguous
//! encoded  |  slot 0  |  slot 1  |  slot 2  |  slot 3  |  slot 4  |  slot 5  |  m = 2
//!
//! last     |aaaaaaaaaa|aaaaaaaaaa|aaaa000000|0000000000|  parity  |  parity  |
//!            shard length = ⌈rest / k⌉ up to the next multiple of 64; zeros fill the stripe
//!
//! shard    |─ block 0 ─|─ block 1 ─|─ block 2 ─|        64 KiB each, with a CRC-32C each
//! ```
//!
//! Promised: what [`Codec::encode`] made comes back byte for byte from any `k` of its shards; a range
//! names exactly the 64 KiB blocks that hold it; what is refused is refused with a typed error, never
//! with a panic, whatever a peer sent. The mapping and the code are formats: bytes on disks depend on
//! them, and the tests pin them with golden vectors.
//!
//! An extent or stripe of no bytes does not exist: an object of 0 bytes has no extents.
//!
//! Left to others: where shards lie (placement), how they travel and rest (client, node), and
//! recognising damage: the code restores what is *known* to be missing, the checksums tell what is
//! damaged. A shard that does not pass its checksum must be left out before decoding.
//!
//! All of this is pure: no I/O, no clock, no task. Encoding a stripe takes CPU for as long as the
//! stripe is large; callers that must stay responsive do it away from their event loop.

mod checksum;
mod codec;
mod cutter;
mod field;
mod geometry;
mod layout;
mod mask;

pub use checksum::{BlockChecksums, BlockError, Crc32c, block_checksums, verify_blocks};
pub use codec::{Codec, CodecError, EncodedStripe};
pub use cutter::{CutStripe, Cutter};
pub use geometry::Geometry;
pub use layout::{ExtentLayout, ShardPart, StripePart};
pub use mask::SlotMask;
