//! Finds a few fields in a JSON document that passes by, in memory that does not grow with it.
//!
//! An answer can be a gigabyte and its usage stands at the end: it is not kept to be parsed. A machine over its bytes knows only
//! strings and depth; it keeps the values of the wanted fields where they stand at the top (or at the top of the elements of an
//! array, as Gemini streams them), each within a bound, and the last one wins. What it keeps is then parsed as JSON.

/// Longest value that is kept.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Longest name of a field that is looked at.
const NAME_BYTES_MAX: usize = 32;

/// One wanted field.
#[derive(Debug)]
struct Wanted {
    name: &'static str,
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between tokens.
    Out,
    /// In a string.
    Text,
    /// In a string, behind a backslash.
    Escape,
}

/// What the machine is at.
#[derive(Debug)]
pub(super) struct Scanner {
    wanted: Vec<Wanted>,
    place: Place,
    depth: usize,
    /// The depth at which fields are looked at: 1, or 2 where the document is an array.
    level: usize,
    /// The string that was just read at that depth, while it can be the name of a field.
    name: Vec<u8>,
    naming: bool,
    /// Which wanted field's value is being read, and whether it still fits.
    keeping: Option<usize>,
    fits: bool,
    value: Vec<u8>,
    began: bool,
}

impl Scanner {
    pub(super) fn new(names: &[&'static str]) -> Self {
        let wanted = names.iter().map(|name| Wanted { name, value: Vec::new() }).collect();
        Self {
            wanted,
            place: Place::Out,
            depth: 0,
            level: 1,
            name: Vec::with_capacity(NAME_BYTES_MAX),
            naming: false,
            keeping: None,
            fits: true,
            value: Vec::new(),
            began: false,
        }
    }

    /// The value of a field as it was last seen, as JSON.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.wanted
            .iter()
            .find(|wanted| wanted.name == name)
            .map(|wanted| &wanted.value[..])
            .filter(|value| !value.is_empty())
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        // Where in `bytes` the value that is being kept goes on.
        let (mut from, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            match self.place {
                // Text that nobody wants is most of an answer.
                Place::Text => {
                    let length = bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\'));
                    let end = length.map_or(bytes.len(), |length| at + length);
                    self.take_name(&bytes[at..end]);
                    at = end + 1;
                    match bytes.get(end) {
                        Some(b'"') => (self.place, self.naming) = (Place::Out, false),
                        Some(backslash) => {
                            self.take_name(&[*backslash]);
                            self.place = Place::Escape;
                        }
                        None => {}
                    }
                }
                Place::Escape => {
                    self.take_name(&[byte]);
                    self.place = Place::Text;
                    at += 1;
                }
                Place::Out => {
                    let kept = self.keeping;
                    if kept.is_some() && self.ends_value(byte) {
                        self.keep(&bytes[from..at]);
                    }
                    self.out(byte);
                    at += 1;
                    if kept.is_none() {
                        from = at;
                    }
                }
            }
        }
        if self.keeping.is_some() {
            self.keep(&bytes[from.min(bytes.len())..]);
        }
    }

    /// Whether `byte` stands behind the value that is being kept.
    fn ends_value(&self, byte: u8) -> bool {
        self.depth == self.level && matches!(byte, b',' | b'}')
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.fits &= self.value.len() + bytes.len() <= VALUE_BYTES_MAX;
        if self.fits {
            self.value.extend_from_slice(bytes);
        }
    }

    fn take_name(&mut self, bytes: &[u8]) {
        // No wanted field is called what does not fit.
        self.naming &= self.name.len() + bytes.len() <= NAME_BYTES_MAX;
        match self.naming {
            true => self.name.extend_from_slice(bytes),
            false => self.name.clear(),
        }
    }

    fn out(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.place = Place::Text;
                self.naming = self.depth == self.level && self.keeping.is_none();
                if self.naming {
                    self.name.clear();
                }
            }
            b'{' | b'[' => {
                if !self.began {
                    self.began = true;
                    self.level = if byte == b'[' { 2 } else { 1 };
                }
                self.depth += 1;
                self.name.clear();
            }
            b'}' | b']' => {
                self.end_value(byte);
                self.depth = self.depth.saturating_sub(1);
                self.name.clear();
            }
            b',' => {
                self.end_value(byte);
                if self.depth == self.level {
                    self.name.clear();
                }
            }
            b':' if self.depth == self.level && self.keeping.is_none() => {
                self.keeping = self.wanted.iter().position(|wanted| wanted.name.as_bytes() == self.name);
                self.fits = true;
                self.value.clear();
                self.name.clear();
            }
            _ => {}
        }
    }

    fn end_value(&mut self, byte: u8) {
        if !self.ends_value(byte) {
            return;
        }
        if let Some(field) = self.keeping.take()
            && self.fits
        {
            std::mem::swap(&mut self.wanted[field].value, &mut self.value);
        }
        self.value.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn scanned(text: &[u8], cut: usize, name: &'static str) -> Option<Value> {
        let mut scanner = Scanner::new(&[name, "model"]);
        for piece in text.chunks(cut.max(1)) {
            scanner.feed(piece);
        }
        scanner.value(name).map(|value| serde_json::from_slice(value).unwrap())
    }

    #[test]
    fn only_fields_at_the_top_count_and_the_last_wins() {
        let text = br#"{"a":{"usage":{"x":9}},"b":"\"usage\":{\"x\":8}", "usage" : {"x":[1,{"usage":7}]} ,"c":["usage",{"usage":6}]}"#;
        for cut in 1..text.len() {
            assert_eq!(scanned(text, cut, "usage"), Some(json!({"x": [1, {"usage": 7}]})), "cut {cut}");
        }
        assert_eq!(scanned(br#"{"usage":null,"usage":{"x":1}}"#, 3, "usage"), Some(json!({"x": 1})));
        assert_eq!(scanned(br#"{"x":"usage","y":{"z":1}}"#, 3, "usage"), None);
    }

    #[test]
    fn an_array_counts_by_its_elements() {
        let text = br#"[{"usageMetadata":{"t":1}},
            {"usageMetadata":{"t":2},"c":[{"usageMetadata":{"t":3}}]}]"#;
        assert_eq!(scanned(text, 5, "usageMetadata"), Some(json!({"t": 2})));
    }

    #[test]
    fn a_value_without_end_is_not_kept_and_memory_stays() {
        let mut scanner = Scanner::new(&["usage"]);
        scanner.feed(br#"{"usage":""#);
        for _ in 0..1_000 {
            scanner.feed(&[b'x'; 1_000]);
        }
        assert!(scanner.value.len() <= VALUE_BYTES_MAX);
        scanner.feed(br#"","usage":{"y":1}}"#);
        assert_eq!(scanner.value("usage"), Some(&br#"{"y":1}"#[..]));
    }

    proptest! {
        /// Whatever stands around it and however it is cut, the field is found as a parser of JSON would find it.
        #[test]
        fn agrees_with_a_parser(
            before in "[a-z\"\\\\{}\\[\\]:,]{0,20}", count in any::<u64>(), after in any::<String>(), cut in 1usize..50,
        ) {
            let text = json!({"before": before, "deep": {"usage": 3, (before.clone()): [before]}, "usage": {"count": count},
                (after.clone()): after}).to_string();
            let whole: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(scanned(text.as_bytes(), cut, "usage").unwrap(), whole["usage"].clone());
        }

        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut scanner = Scanner::new(&["usage"]);
            scanner.feed(&bytes);
        }
    }
}
