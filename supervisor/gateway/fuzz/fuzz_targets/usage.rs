//! `agt_gateway::fuzzed::usage` on any bytes.
//!
//! Run: `cargo +nightly fuzz run usage fuzz/corpus/usage fuzz/seeds/usage` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::usage(bytes));
