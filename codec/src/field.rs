//! The code's arithmetic: GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d).
//!
//! The bytes at one place of a stripe's `k` data shards are the values at the points `0..k` of one
//! polynomial of degree below `k`; the shard of slot `x` holds its value at the point `x`. So any `k`
//! shards determine all others by Lagrange's formula: no matrix is ever inverted, and there is no loss
//! pattern for which decoding could fail, as the points are distinct. These are the bytes of the
//! systematic Vandermonde matrix that Backblaze's, klauspost's and the Rust
//! `reed-solomon-erasure` libraries make; a test compares with the latter.
//!
//! The products of whole slices are that library's, which use SIMD. Its own encoder walks over whole
//! shards, and its decoder wants mutable copies of the shards that are present; [`combine`] does neither.

use reed_solomon_erasure::galois_8;

/// Bytes of each shard worked on at a time: one input and all outputs stay in the L1 cache.
pub(crate) const COLUMN_BYTES: usize = 4 * 1024;

/// One coefficient for each input.
pub(crate) type Row = Vec<u8>;

/// What the values at `points` are multiplied by, and added up, to give the value at `target`.
///
/// `points` are distinct, at most 256, and `target` is none of them.
pub(crate) fn lagrange_row(points: &[u8], target: u8) -> Row {
    let basis = |own: u8| {
        let others = points.iter().filter(|other| **other != own);
        let (above, below) = others.fold((1, 1), |(above, below), other| {
            (galois_8::mul(above, target ^ other), galois_8::mul(below, own ^ other))
        });
        galois_8::div(above, below)
    };
    points.iter().map(|own| basis(*own)).collect()
}

/// `outputs[r][x] = Σ rows[r][i] · inputs[i][x]`, whatever stood in `outputs`. All slices have the same
/// length; each row has a coefficient for each input.
pub(crate) fn combine(rows: &[Row], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    assert_eq!(rows.len(), outputs.len(), "rows and outputs");
    let bytes = inputs.first().map_or(0, |input| input.len());
    for start in (0..bytes).step_by(COLUMN_BYTES) {
        let end = bytes.min(start + COLUMN_BYTES);
        for (i, input) in inputs.iter().enumerate() {
            for (row, output) in rows.iter().zip(outputs.iter_mut()) {
                let (input, output) = (&input[start..end], &mut output[start..end]);
                if i == 0 {
                    galois_8::mul_slice(row[i], input, output);
                } else {
                    galois_8::mul_slice_xor(row[i], input, output);
                }
            }
        }
    }
}
