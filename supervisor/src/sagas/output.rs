//! What a step prints, and what of it is its output.
//!
//! A step answers with one JSON object: its whole standard output, or its last line. Anything else it prints is for people
//! and goes to the log. A last line that begins like an object and is none is not taken for prose: the effect is there and
//! its data is damaged, which the engine must know.

use agt_saga::outcome::{Ending, OUTPUT_BYTES_MAX};
use serde_json::Value;

/// The most of a step's standard output that is looked at for its answer: room for the largest answer that is kept and as
/// much again for what stands before it. More is read (a full pipe would hold the step up), logged and not kept.
pub const STDOUT_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX;
/// The end of its standard error that is kept with the outcome.
pub const STDERR_TAIL_BYTES: usize = 1024;

/// The last bytes of a stream, within a limit.
#[derive(Debug)]
pub struct Tail {
    bytes: Vec<u8>,
    limit: usize,
    dropped: u64,
}

impl Tail {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Tail {
        Tail { bytes: Vec::new(), limit, dropped: 0 }
    }

    /// Takes more in, and lets the oldest go.
    pub fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        if self.bytes.len() > self.limit {
            let surplus = self.bytes.len() - self.limit;
            self.bytes.drain(..surplus);
            self.dropped += surplus as u64;
        }
    }

    /// What is kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim().to_owned()
    }
}

/// The output of a step that exited with 0.
///
/// # Errors
/// [`Ending::BadOutput`].
pub fn answer(stdout: &Tail) -> Result<Value, Ending> {
    let text = stdout.text();
    if stdout.dropped == 0
        && let Ok(value @ Value::Object(_)) = serde_json::from_str(&text)
    {
        return Ok(value);
    }
    let last = text.lines().next_back().unwrap_or_default().trim();
    match serde_json::from_str(last) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Err(e) if last.starts_with('{') || (last.ends_with('}') && stdout.dropped > 0) => {
            Err(Ending::BadOutput { reason: format!("the last line of its output is no JSON: {e}") })
        }
        _ => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn of(text: &str) -> Result<Value, Ending> {
        let mut tail = Tail::new(STDOUT_BYTES_MAX);
        tail.push(text.as_bytes());
        answer(&tail)
    }

    #[test]
    fn the_answer_is_the_whole_output_or_its_last_line() {
        assert_eq!(of("{\n \"id\": 7\n}\n").unwrap(), json!({"id": 7}));
        assert_eq!(of("booking ...\n{\"id\": 7}\n").unwrap(), json!({"id": 7}));
        assert_eq!(of("").unwrap(), Value::Null);
        assert_eq!(of("done\n").unwrap(), Value::Null);
        assert_eq!(of("7\n").unwrap(), Value::Null);
    }

    #[test]
    fn a_damaged_answer_is_named_and_never_taken_for_prose() {
        assert!(matches!(of("booked\n{\"id\": 7"), Err(Ending::BadOutput { .. })));
        let mut tail = Tail::new(8);
        tail.push(b"{\"id\": \"0123456789\"}");
        assert!(matches!(answer(&tail), Err(Ending::BadOutput { .. })));
    }

    #[test]
    fn a_tail_keeps_the_end_and_never_more_than_its_limit() {
        let mut tail = Tail::new(4);
        for _ in 0..1000 {
            tail.push(b"abc");
        }
        tail.push(b"wxyz");
        assert_eq!(tail.text(), "wxyz");
        assert!(tail.bytes.len() <= 4);
    }
}
