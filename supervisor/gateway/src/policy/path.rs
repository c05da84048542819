//! Which paths an entry means, and how the path of a request is read before it is compared.
//!
//! A path that a server may read in another way than we do (`/a/../b`, `/a%2fb`, `//a`, `/a;x/b`, bad escapes) has two readings:
//! it is allowed by no entry that lists paths, and denied by each that denies some. Everything else is compared with its escapes of
//! plain characters undone, so that `/%61dmin` is `/admin`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::host::Shown;

/// The longest pattern, in bytes.
pub const PATTERN_MAX: usize = 1024;
/// The longest path that is read; a longer one has no reading.
const PATH_MAX: usize = 16 * 1024;

/// Paths as an entry writes them: `/v1/models`, `/v1/files/*/content` (one segment), `/v1/**` (whatever is at or below).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    segments: Box<[Segment]>,
    below: Below,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    This(Box<str>),
    One,
}

/// Whether segments may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Below {
    None,
    Any,
}

/// Why a text is no pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It doesn't begin with a slash.
    #[error("`{0}`: a path begins with `/`")]
    NoSlash(Shown),
    /// A star within a segment, or `**` before the end.
    #[error("`{0}`: `*` stands for one whole segment, `**` for the rest, at the end")]
    Star(Shown),
    /// It has a query, dot segments, empty segments, escapes of slashes, or characters that no path has.
    #[error("`{0}`: no query, no `..`, no `//`, no `;`, no escaped slashes: a path with one reading")]
    TwoReadings(Shown),
    /// Too long.
    #[error("a path pattern of {length} bytes: at most {PATTERN_MAX} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// The path of a request, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its segments; the last is empty when a slash ends it.
    Clear(Vec<String>),
    /// Servers differ over what it means.
    TwoReadings,
}

impl Asked {
    pub(super) fn read(raw: &str) -> Asked {
        let path = raw.split(['?', '#']).next().unwrap_or_default();
        let Some(inside) = path.strip_prefix('/').filter(|_| path.len() <= PATH_MAX) else {
            return Asked::TwoReadings;
        };
        let Some(segments) = inside.split('/').map(segment).collect::<Option<Vec<String>>>() else {
            return Asked::TwoReadings;
        };
        let (_, inner) = segments.split_last().expect("split gives at least one part");
        if inner.iter().any(String::is_empty) {
            return Asked::TwoReadings;
        }
        Asked::Clear(segments)
    }
}

/// One segment with the escapes of plain characters undone; nothing if it has two readings.
fn segment(raw: &str) -> Option<String> {
    let mut read = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next()?, bytes.next()?];
                let value = u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?;
                match value {
                    // An escaped escape is undone twice by some.
                    b'/' | b'\\' | b'%' | b';' => return None,
                    0..=0x1f | 0x7f => return None,
                    b'?' | b'#' | b' ' | 0x80.. => read.push_str(&format!("%{value:02X}")),
                    plain => read.push(char::from(plain)),
                }
            }
            b'\\' | b';' => return None,
            0x21..=0x7e => read.push(char::from(byte)),
            _ => return None,
        }
    }
    if read == "." || read == ".." { None } else { Some(read) }
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`BadPath`].
    pub fn parse(text: &str) -> Result<PathPattern, BadPath> {
        if text.len() > PATTERN_MAX {
            return Err(BadPath::TooLong { length: text.len() });
        }
        if !text.starts_with('/') {
            return Err(BadPath::NoSlash(Shown::of(text)));
        }
        let (fixed, below) = match text.strip_suffix("/**") {
            Some(rest) => (rest, Below::Any),
            None => (text, Below::None),
        };
        if fixed.is_empty() {
            return Ok(PathPattern { segments: Box::new([]), below });
        }
        if fixed.contains(['?', '#']) {
            return Err(BadPath::TwoReadings(Shown::of(text)));
        }
        let Asked::Clear(read) = Asked::read(fixed) else {
            return Err(BadPath::TwoReadings(Shown::of(text)));
        };
        if below == Below::Any && read.last().is_some_and(String::is_empty) {
            return Err(BadPath::TwoReadings(Shown::of(text)));
        }
        let mut segments = Vec::with_capacity(read.len());
        for (raw, read) in fixed[1..].split('/').zip(read) {
            segments.push(match raw {
                "*" => Segment::One,
                raw if raw.contains('*') => return Err(BadPath::Star(Shown::of(text))),
                _ => Segment::This(read.into()),
            });
        }
        Ok(PathPattern { segments: segments.into(), below })
    }

    /// Whether it allows a path: to the letter.
    pub(super) fn allows(&self, asked: &Asked) -> bool {
        let Asked::Clear(asked) = asked else { return false };
        self.fits(asked, |mine, asked| mine == asked)
    }

    /// Whether it denies a path: also with a slash at the end, in other letters' case, or in two readings, for to some servers
    /// these are the same.
    pub(super) fn denies(&self, asked: &Asked) -> bool {
        let Asked::Clear(asked) = asked else { return true };
        let same = |mine: &str, asked: &str| mine.eq_ignore_ascii_case(asked);
        let bare = match asked.split_last() {
            Some((last, rest)) if last.is_empty() && !rest.is_empty() => rest,
            _ => asked,
        };
        let slashed = [bare, &[String::new()]].concat();
        self.fits(asked, same) || self.fits(bare, same) || self.fits(&slashed, same)
    }

    fn fits(&self, asked: &[String], same: impl Fn(&str, &str) -> bool) -> bool {
        let enough = match self.below {
            Below::None => asked.len() == self.segments.len(),
            Below::Any => asked.len() >= self.segments.len(),
        };
        enough
            && self.segments.iter().zip(asked).all(|(mine, asked)| match mine {
                Segment::One => !asked.is_empty(),
                Segment::This(mine) => same(mine, asked),
            })
    }

    /// Whether it means every path that `other` means.
    #[must_use]
    pub fn covers(&self, other: &PathPattern) -> bool {
        let enough = match (self.below, other.below) {
            (Below::None, Below::None) => self.segments.len() == other.segments.len(),
            (Below::None, Below::Any) => false,
            (Below::Any, _) => self.segments.len() <= other.segments.len(),
        };
        enough
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::One, Segment::One) => true,
                (Segment::One, Segment::This(theirs)) => !theirs.is_empty(),
                (Segment::This(mine), Segment::This(theirs)) => mine == theirs,
                (Segment::This(_), Segment::One) => false,
            })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                // A star that was escaped is a star of the path: bare, it would be read back as any segment.
                Segment::This(text) => write!(f, "/{}", text.replace('*', "%2A"))?,
                Segment::One => f.write_str("/*")?,
            }
        }
        match self.below {
            Below::Any => f.write_str("/**"),
            Below::None => Ok(()),
        }
    }
}

impl FromStr for PathPattern {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<PathPattern, BadPath> {
        PathPattern::parse(text)
    }
}

impl TryFrom<String> for PathPattern {
    type Error = BadPath;

    fn try_from(text: String) -> Result<PathPattern, BadPath> {
        PathPattern::parse(&text)
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> String {
        pattern.to_string()
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^/",
            "maxLength": PATTERN_MAX,
            "x-check": "path-pattern",
            "examples": ["/v1/models", "/v1/**"]
        })
    }
}
