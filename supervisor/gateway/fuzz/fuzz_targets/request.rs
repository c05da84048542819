//! `agt_gateway::fuzzed::request` on any bytes.
//!
//! Run: `cargo +nightly fuzz run request fuzz/corpus/request fuzz/seeds/request` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::request(bytes));
