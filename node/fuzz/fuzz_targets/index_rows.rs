//! Keys and values of an index.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::store::fuzzing::index_rows(bytes));
