//! `agt_gateway::fuzzed::events` on any bytes.
//!
//! Run: `cargo +nightly fuzz run events fuzz/corpus/events fuzz/seeds/events` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::events(bytes));
