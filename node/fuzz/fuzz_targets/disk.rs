//! Whole disks and their indexes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node::store::fuzzing::disk(bytes));
