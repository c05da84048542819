//! Any bytes as agent.yaml and as the operator's file: no panic, no hang, no unbounded memory, and a message that can't
//! act on a terminal.
//!
//! Run: `cargo +nightly fuzz run agent_yaml corpus seeds` (in `supervisor/`, with cargo-fuzz from the registry).
#![no_main]

use std::path::Path;
use std::sync::Arc;

use agt_supervise::config::spec::split_words;
use agt_supervise::config::units::{ByteSize, Cpu, Share, Span};
use agt_supervise::config::{AgentSpec, Color, ConfigError, Kind, OperatorSpec, parse_typed};
use libfuzzer_sys::fuzz_target;

fn check(result: Result<(), ConfigError>) {
    if let Err(error) = result {
        let text = error.render(Color::Never);
        assert!(text.ends_with('\n') && text.contains("nothing was started"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert_eq!(error.exit_code(), 64);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (ByteSize::parse(text), Span::parse(text), Cpu::parse(text), Share::parse(text), split_words(text));
    let text: Arc<str> = Arc::from(text);
    check(parse_typed::<AgentSpec>(&text, Path::new("agent.yaml"), Kind::Agent).map(drop));
    check(parse_typed::<OperatorSpec>(&text, Path::new("operator.yaml"), Kind::Operator).map(drop));
});
