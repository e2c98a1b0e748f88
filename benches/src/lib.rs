//! Criterion benches, `cargo bench --package cadole-benches`, and what they share with `bench-store`.
//!
//! Times belong here and in `cargo xtask bench`, never into a test that passes or fails. Compare
//! ratios of one run: machines are noisy.

pub mod bare;
pub mod counted;
pub mod memory;
pub mod shards;
