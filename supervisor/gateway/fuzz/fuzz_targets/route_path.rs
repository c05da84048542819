//! `agt_gateway::fuzzed::route_path` on any bytes.
//!
//! Run: `cargo +nightly fuzz run route_path fuzz/corpus/route_path fuzz/seeds/route_path` (in `supervisor/gateway/`, with cargo-fuzz from the registry).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agt_gateway::fuzzed::route_path(bytes));
