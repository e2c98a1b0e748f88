//! Encoding, rebuilding and checksums, against a copy of the same bytes as the yardstick.
#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use bytes::Bytes;
use codec::{Codec, Geometry, SlotMask, block_checksums};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::SlotIndex;

const SHAPES: [(u32, u32); 3] = [(4, 2), (8, 3), (8, 4)];
const SHARD_BYTES: u32 = 1 << 20;

fn stripe(k: u32) -> Bytes {
    let bytes = (0..k * SHARD_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    bytes.collect::<Vec<_>>().into()
}

fn coding(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for (k, m) in SHAPES {
        let codec = Codec::new(Geometry::new(k, m, SHARD_BYTES).expect("a shape"));
        let stripe = stripe(k);
        group.throughput(Throughput::Bytes(stripe.len() as u64));
        let name = format!("rs-{k}-{m}");
        group.bench_function(BenchmarkId::new("copy", &name), |b| {
            b.iter(|| black_box(stripe.to_vec()));
        });
        group.bench_function(BenchmarkId::new("encode", &name), |b| {
            b.iter(|| codec.encode(black_box(stripe.clone())).expect("encoded"));
        });
        group.bench_function(BenchmarkId::new("checksums", &name), |b| {
            b.iter(|| block_checksums(black_box(&stripe)));
        });
        let shards = codec.encode(stripe).expect("encoded").into_shards();
        for lost in [1, u8::try_from(m).expect("small")] {
            let wanted: SlotMask = (0..lost).map(SlotIndex).collect();
            group.bench_function(BenchmarkId::new(format!("rebuild {lost}"), &name), |b| {
                b.iter(|| {
                    let mut left: Vec<_> = shards.iter().cloned().map(Some).collect();
                    left[..usize::from(lost)].fill(None);
                    codec.reconstruct(&mut left, wanted).expect("rebuilt");
                    left
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, coding);
criterion_main!(benches);
