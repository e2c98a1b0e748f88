//! Hints that are kept with shards.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::store::fuzzing::hint(bytes));
