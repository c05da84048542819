//! One line from the attacker to the probe. The attacker is our own code in a cage, but what it prints is still only read,
//! never believed further than its own verdict.

use super::attack::Got;

/// What the line begins with; anything else on the output is no answer.
const PREFIX: &str = "agt-probe-got ";
/// The most bytes that are read of an attacker.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// The line that says `got`.
pub(super) fn line(got: &Got) -> String {
    format!("{PREFIX}{}", serde_json::to_string(got).expect("an outcome is plain data"))
}

/// The first answer in an output.
pub(super) fn parse(output: &[u8]) -> Option<Got> {
    let text = String::from_utf8_lossy(output);
    text.lines().find_map(|line| serde_json::from_str(line.strip_prefix(PREFIX)?).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_outcome_survives_the_wire() {
        let all = [
            Got::Ok,
            Got::Errno(13),
            Got::Signal(9),
            Got::Nothing("an \"empty\" mask\n".to_owned()),
            Got::Setup("no".to_owned()),
            Got::Silent("no answer".to_owned()),
            Got::Late,
        ];
        for got in all {
            let output = format!("noise\n{}\nmore", line(&got));
            assert_eq!(parse(output.as_bytes()).unwrap(), got);
        }
    }

    #[test]
    fn noise_is_no_answer() {
        assert_eq!(parse(b"\"ok\"\nok\n"), None);
        assert_eq!(parse(b"\xff\xfe agt-probe-got nonsense"), None);
    }
}
