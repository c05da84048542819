//! `agt_gateway::fuzzed::hello` on any bytes.
//!
//! Run: `cargo +nightly fuzz run hello fuzz/corpus/hello fuzz/seeds/hello` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::hello(bytes));
