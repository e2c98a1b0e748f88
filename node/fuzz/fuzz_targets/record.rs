//! Pages of records.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::store::fuzzing::record(bytes));
