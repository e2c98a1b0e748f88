//! The code is a format: these bytes lie on disks.

// clippy.toml allows this in test functions; the helpers beside them are as much a test.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use codec::{Codec, Crc32c, Geometry};

fn codec(k: u32, m: u32) -> Codec {
    Codec::new(Geometry::new(k, m, 65_536).unwrap())
}

/// The input of the golden vectors.
fn stripe(bytes: usize) -> Bytes {
    (0..bytes).map(|i| u8::try_from(((i * i * 7 + i * 13 + 3) ^ (i >> 8)) % 256).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.finish()
}

/// The first 16 bytes and the CRC-32C of each parity shard.
fn parity(k: u32, m: u32, bytes: usize) -> Vec<(String, u32)> {
    let encoded = codec(k, m).encode(stripe(bytes)).unwrap();
    let parity = &encoded.shards()[usize::try_from(k).unwrap()..];
    parity.iter().map(|shard| (hex(&shard[..16]), crc32c(shard))).collect()
}

#[track_caller]
fn assert_parity(found: &[(String, u32)], expected: &[(&str, u32)]) {
    let found: Vec<(&str, u32)> = found.iter().map(|(hex, crc)| (hex.as_str(), *crc)).collect();
    assert_eq!(found, expected);
}

/// Parity bytes are those of the systematic Vandermonde code over 0x11d. The expected bytes were made
/// by a separate program, with bitwise multiplication and Gaussian elimination.
#[test]
fn parity_bytes_never_change() {
    assert_parity(
        &parity(4, 2, 250),
        &[
            ("1e7e2474baee24dc36c628fc925608f0", 0x051f_71e8),
            ("5ebe6434faaee41c7606e8bcd21648b0", 0x15ea_39b7),
        ],
    );
    assert_parity(
        &parity(8, 4, 500),
        &[
            ("acab96c6085cf1098413fd4e20e4ba42", 0x48b5_8048),
            ("ec6bd686481c31c9c4d33d0e60a4fa02", 0x614d_9f66),
            ("2c2b164688dc718904937dcea0643ac2", 0xfc59_a757),
            ("6ceb5606c89cb1494453bd8ee0247a82", 0x6cf3_ddc2),
        ],
    );
    assert_parity(
        &parity(1, 2, 40),
        &[
            ("03173969a7f34db52baf41e18f4b15ed", 0xee1d_d7d8),
            ("03173969a7f34db52baf41e18f4b15ed", 0xee1d_d7d8),
        ],
    );
}

/// Parity bytes are those of `reed_solomon_erasure::ReedSolomon`, for every profile that there can be.
#[test]
fn agrees_with_the_library() {
    for k in 1..24_u32 {
        for m in 1..=24 - k {
            let encoded = codec(k, m).encode(stripe(1_000)).unwrap();
            let mut expected: Vec<Vec<u8>> = encoded.shards().iter().map(|shard| shard.to_vec()).collect();
            let (k, m) = (usize::try_from(k).unwrap(), usize::try_from(m).unwrap());
            expected[k..].iter_mut().for_each(|parity| parity.fill(0));
            reed_solomon_erasure::galois_8::ReedSolomon::new(k, m).unwrap().encode(&mut expected).unwrap();
            assert_eq!(encoded.shards(), &expected[..], "{k}+{m}");
        }
    }
}

/// At `k = 1` all shards have the same bytes, and the same memory.
#[test]
fn replicas_are_equal() {
    let full = stripe(65_536);
    for shard in codec(1, 4).encode(full.clone()).unwrap().shards() {
        assert_eq!(shard, &full);
        assert_eq!(shard.as_ptr(), full.as_ptr(), "copied");
    }
}

/// Data shards of a full stripe are slices of it, not copies.
#[test]
fn a_full_stripe_is_not_copied() {
    let full = stripe(4 * 65_536);
    let encoded = codec(4, 2).encode(full.clone()).unwrap();
    for (slot, shard) in encoded.shards()[..4].iter().enumerate() {
        assert_eq!(shard.as_ptr(), full[slot * 65_536..].as_ptr(), "slot {slot} was copied");
    }
}

/// The data shards are the stripe and then zeros, whether it ends in the first shard, the last, or between.
#[test]
fn short_stripes_end_in_zeros() {
    for bytes in [1, 63, 64, 65, 128, 129, 200, 255, 256, 257, 4 * 65_536 - 1] {
        let encoded = codec(4, 2).encode(stripe(bytes)).unwrap();
        let data = encoded.shards()[..4].concat();
        let (object, padding) = data.split_at(bytes);
        assert_eq!(object, stripe(bytes), "{bytes} bytes");
        assert!(padding.iter().all(|byte| *byte == 0), "{bytes} bytes: padding is not zero");
        assert_eq!(encoded.shard_bytes(), bytes.div_ceil(4).div_ceil(64) * 64);
    }
}
