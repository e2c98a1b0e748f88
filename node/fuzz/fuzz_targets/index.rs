//! Rows in an index.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::store::fuzzing::index(bytes));
