//! Paths in one spelling, or refused.
//!
//! What is checked must be what the upstream reads. Upstreams disagree on `%2e%2e`, `//`, `\` and `%2f`: none of these has a use in
//! a provider's paths, so they are refused; the rest is decoded, checked, and sent on in the spelling that was checked.

/// Longest path that is looked at.
const PATH_BYTES_MAX: usize = 1024;

/// A path that is not passed on, whatever it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Over the bound.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    Long,
    /// Not beginning with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// An empty part, `.` or `..`, however it is spelled.
    #[error("the path has an empty, `.` or `..` part")]
    Dots,
    /// Per-cent encoding that is broken, or of a character that would change the path's meaning.
    #[error("the path has an encoded character that is not allowed there")]
    Encoding,
    /// A character that no provider's path has.
    #[error("the path has a character that is not allowed there")]
    Character,
}

/// `path` (without a query) in its one spelling.
pub fn normal(path: &str) -> Result<String, BadPath> {
    if path.len() > PATH_BYTES_MAX {
        return Err(BadPath::Long);
    }
    let parts = path.strip_prefix('/').ok_or(BadPath::Relative)?;
    let mut out = String::with_capacity(path.len());
    for part in parts.split('/') {
        out.push('/');
        let from = out.len();
        let mut bytes = part.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'%' => decoded(bytes.next(), bytes.next())?,
                plain => plain,
            };
            if !harmless(byte) {
                return Err(BadPath::Character);
            }
            out.push(char::from(byte));
        }
        if matches!(&out[from..], "" | "." | "..") {
            return Err(BadPath::Dots);
        }
    }
    Ok(out)
}

/// Letters, digits, and what providers have in the names of models and methods.
fn harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+' | b',')
}

fn decoded(high: Option<u8>, low: Option<u8>) -> Result<u8, BadPath> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(BadPath::Encoding) };
    let byte = u8::try_from(high * 16 + low).map_err(|_| BadPath::Encoding)?;
    match harmless(byte) {
        true => Ok(byte),
        false => Err(BadPath::Encoding),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_detour_is_refused() {
        for bad in [
            "",
            "v1",
            "//v1",
            "/v1//models",
            "/v1/",
            "/",
            "/v1/../files",
            "/v1/./models",
            "/v1/%2e%2e/files",
            "/v1/.%2E/files",
            "/v1/models%2f..%2ffiles",
            "/v1/models%2Fx",
            "/v1/models%5c..",
            "/v1\\models",
            "/v1/models%00",
            "/v1/models%0a",
            "/v1/%252e%252e/x",
            "/v1/models;x=1",
            "/v1/mod els",
            "/v1/models%",
            "/v1/models%2",
            "/v1/models%zz",
            "/v1/modéls",
            "/v1/models%c3%a9",
            "/v1/models%3f",
            "/v1/models%23",
            "/v1/models?x",
            "/v1/*",
        ] {
            assert!(normal(bad).is_err(), "{bad}");
        }
        assert_eq!(normal(&format!("/{}", "a".repeat(PATH_BYTES_MAX))), Err(BadPath::Long));
    }

    #[test]
    fn harmless_encoding_is_read() {
        assert_eq!(
            normal("/v1beta/models/gemini-2.5-pro%3AgenerateContent").unwrap(),
            "/v1beta/models/gemini-2.5-pro:generateContent"
        );
        assert_eq!(normal("/%76%31/models").unwrap(), "/v1/models");
    }

    proptest! {
        /// What comes out means itself, and has no part that leads elsewhere.
        #[test]
        fn what_passes_is_its_own_spelling(path in "(/[a-z.%2eEfF0-9:]{0,6}){1,5}") {
            if let Ok(normal_path) = normal(&path) {
                prop_assert_eq!(normal(&normal_path).unwrap(), normal_path.clone());
                prop_assert!(!normal_path.contains('%'));
                prop_assert!(normal_path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
