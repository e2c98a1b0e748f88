//! Limits that all parts agree on, and the relations between them, checked when this compiles.

/// The version of the protocol that this code speaks, and the oldest that it still understands.
pub const PROTOCOL_VERSION: u32 = 1;
/// See [`PROTOCOL_VERSION`].
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// Block of a shard that has its own CRC-32C.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Largest shard of a profile.
pub const SHARD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Smallest shard of a profile.
pub const SHARD_BYTES_MIN: usize = BLOCK_BYTES;
/// Shard of a profile that does not say.
pub const SHARD_BYTES_DEFAULT: usize = 1024 * 1024;
/// The last stripe's shards are a multiple of this, so that kernels see whole cache lines.
pub const SHARD_ALIGN_BYTES: usize = 64;
/// Slots of a group: as many as bits in a `missing` mask that are used.
pub const SLOTS_MAX: usize = 24;

/// Bytes of an object in one extent.
pub const EXTENT_BYTES_MAX: u64 = 1 << 30;
/// Largest object: 5 TiB.
pub const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Extents of the largest object.
pub const EXTENTS_MAX: usize = 5 * 1024;
/// Objects of up to this size lie in the metadata record.
pub const INLINE_BYTES_MAX: usize = 4 * 1024;
/// Objects of up to this size are replicated rather than coded, unless the profile says otherwise.
pub const SMALL_BYTES_MAX_DEFAULT: u32 = 64 * 1024;

/// Longest key of an object, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest name of a tenant, bucket, profile, rack or site.
pub const NAME_BYTES_MAX: usize = 63;
/// User metadata of an object: names and values together.
pub const USER_METADATA_BYTES_MAX: usize = 2 * 1024;
/// Longest content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Longest hint of a shard.
pub const HINT_BYTES_MAX: usize = 2 * 1024;

/// Longest header of a request or reply.
pub const HEADER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest payload of a request or reply: one shard.
pub const PAYLOAD_BYTES_MAX: usize = SHARD_BYTES_MAX;
/// Longest time that a caller may wait for an answer.
pub const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1000;

/// Entries of one page of a listing.
pub const LIST_PAGE_MAX: usize = 1000;
/// Items of one `TakeWork`.
pub const WORK_PAGE_MAX: usize = 256;

/// Cluster time from a grant to the end of its commits.
pub const GRANT_MS: u64 = 60 * 60 * 1000;

const _: () = assert!(SHARD_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SHARD_ALIGN_BYTES));
const _: () = assert!(SHARD_BYTES_MIN >= BLOCK_BYTES && SHARD_BYTES_DEFAULT <= SHARD_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX >= SHARD_BYTES_MAX);
const _: () = assert!(SLOTS_MAX <= u32::BITS as usize);
const _: () = assert!(EXTENTS_MAX as u64 * EXTENT_BYTES_MAX >= OBJECT_BYTES_MAX);
// A page of the largest rows fits a header: key, user metadata, content type and 128 bytes of numbers.
const _: () = assert!(
    LIST_PAGE_MAX * (KEY_BYTES_MAX + USER_METADATA_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + 128)
        <= HEADER_BYTES_MAX
);
// An object's extents, 48 bytes each in a message, fit a header.
const _: () = assert!(EXTENTS_MAX * 48 <= HEADER_BYTES_MAX / 2);
const _: () = assert!(INLINE_BYTES_MAX <= SMALL_BYTES_MAX_DEFAULT as usize);
const _: () = assert!(TIMEOUT_MS_MAX < GRANT_MS);
// A hint holds the longest names and key, and 128 bytes of numbers.
const _: () = assert!(KEY_BYTES_MAX + 2 * NAME_BYTES_MAX + 128 <= HINT_BYTES_MAX);
