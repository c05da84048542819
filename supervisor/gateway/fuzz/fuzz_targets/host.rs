//! `agt_gateway::fuzzed::host` on any bytes.
//!
//! Run: `cargo +nightly fuzz run host fuzz/corpus/host fuzz/seeds/host` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::host(bytes));
