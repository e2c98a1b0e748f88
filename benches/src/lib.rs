//! Criterion benches: `cargo bench --package cadole-benches`.
//!
//! Times belong here and in `cargo xtask bench`, never into a test that passes or fails. Compare
//! ratios of one run: machines are noisy.
