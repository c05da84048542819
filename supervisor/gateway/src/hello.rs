//! The ClientHello of a tunnel, read within bounds: which name it asks for, and whether it hides another.
//!
//! A ClientHello may be cut over TCP segments and over TLS records (RFC 8446, 5.1), so bytes are put together until the whole
//! message is there; it is then read once. rustls reads it too, but shows no encrypted ClientHello (extension 0xfe0d), which is what
//! has to be noticed. Whatever breaks a rule of the RFC is bad, not guessed: the server might read it otherwise.

use std::collections::BTreeSet;

use crate::host::{Host, Name};

/// The longest ClientHello message, without the headers of its records. With post-quantum key shares and tickets they have about
/// 2 KiB.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Records that a ClientHello may be cut into.
pub const RECORDS_MAX: usize = 16;
/// The longest record (RFC 8446, 5.1).
const RECORD_MAX: usize = 1 << 14;
/// Bytes kept until the hello is whole, its records' headers included.
pub const BYTES_MAX: usize = MESSAGE_MAX + 4 + RECORDS_MAX * HEADER;

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// Extensions that carry a hidden name: ESNI, the drafts of encrypted ClientHello, and RFC 9849 (0xfe0d).
const HIDING: [std::ops::RangeInclusive<u16>; 2] = [0xffce..=0xffce, 0xfe08..=0xfe0d];

/// How far the reading is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Not whole yet.
    NeedMore,
    /// It doesn't begin like TLS.
    NotTls,
    /// A whole ClientHello.
    Hello {
        /// The name that it asks for.
        sni: Option<Name>,
        /// Whether it hides another name, or pretends to.
        ech: bool,
    },
    /// It begins like TLS and breaks its rules.
    Bad(BadHello),
}

/// Which rule a ClientHello breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// A record is empty, too long, or of another kind than the first.
    #[error("a TLS record is empty, too long, or no handshake")]
    Record,
    /// Longer or in more records than is read.
    #[error("a ClientHello of more than {MESSAGE_MAX} bytes or {RECORDS_MAX} records")]
    TooLong,
    /// Another message than a ClientHello comes first, or one follows in its record.
    #[error("the first message is not a ClientHello alone in its records")]
    NotAlone,
    /// Lengths in it don't fit together.
    #[error("lengths in the ClientHello don't fit together")]
    Lengths,
    /// An extension comes twice.
    #[error("an extension comes twice")]
    Twice,
    /// The server name is no DNS name in ASCII, or there are several.
    #[error("the server name is not one DNS name")]
    Name,
}

/// Reads the beginning of a tunnel, and keeps it to be passed on.
#[derive(Debug, Default)]
pub struct Hello {
    bytes: Vec<u8>,
    /// Where the next record begins.
    record: usize,
    records: usize,
    /// The message so far, without headers of records.
    message: Vec<u8>,
    done: Option<Progress>,
}

impl Hello {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Hello {
        Hello::default()
    }

    /// Takes the next bytes. Once the answer is not [`Progress::NeedMore`] it stays, and bytes are only kept.
    ///
    /// The caller bounds one call by its buffer; what is kept before the answer is known is at most [`BYTES_MAX`] and that buffer.
    pub fn read(&mut self, fresh: &[u8]) -> Progress {
        self.bytes.extend_from_slice(fresh);
        if self.done.is_none() {
            self.done = self.advance();
        }
        self.done.clone().unwrap_or(Progress::NeedMore)
    }

    /// All bytes taken: they go to the destination as they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes taken.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes whole records; nothing while more bytes are needed.
    fn advance(&mut self) -> Option<Progress> {
        loop {
            let rest = &self.bytes[self.record..];
            if self.records == 0 && !begins_as_tls(rest) {
                return Some(Progress::NotTls);
            }
            let &[kind, major, _, high, low, ref body @ ..] = rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != HANDSHAKE || major != 3 || length == 0 || length > RECORD_MAX {
                return Some(Progress::Bad(BadHello::Record));
            }
            if self.records == RECORDS_MAX {
                return Some(Progress::Bad(BadHello::TooLong));
            }
            // A record's beginning is enough to refuse a message that is too long or another one.
            let body = &body[..body.len().min(length)];
            if let Err(bad) = announced(if self.message.is_empty() { body } else { &self.message }) {
                return Some(Progress::Bad(bad));
            }
            if body.len() < length {
                return None;
            }
            self.message.extend_from_slice(body);
            self.record += HEADER + length;
            self.records += 1;
            match announced(&self.message) {
                Err(bad) => return Some(Progress::Bad(bad)),
                Ok(Some(whole)) if self.message.len() > whole => return Some(Progress::Bad(BadHello::NotAlone)),
                Ok(Some(whole)) if self.message.len() == whole => {
                    let read = client_hello(&self.message[4..]);
                    return Some(read.map_or_else(Progress::Bad, |(sni, ech)| Progress::Hello { sni, ech }));
                }
                Ok(_) => {}
            }
        }
    }
}

fn begins_as_tls(bytes: &[u8]) -> bool {
    bytes.iter().zip([HANDSHAKE, 3]).all(|(byte, wanted)| *byte == wanted)
}

/// The length of the message with its header, once that is known.
fn announced(message: &[u8]) -> Result<Option<usize>, BadHello> {
    match message {
        [kind, ..] if *kind != CLIENT_HELLO => Err(BadHello::NotAlone),
        [_, a, b, c, ..] => {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > MESSAGE_MAX { Err(BadHello::TooLong) } else { Ok(Some(4 + length)) }
        }
        _ => Ok(None),
    }
}

/// Reads a whole message (RFC 8446, 4.1.2).
fn client_hello(body: &[u8]) -> Result<(Option<Name>, bool), BadHello> {
    let mut body = Bytes(body);
    body.take(2 + 32)?;
    let session = body.short_vector()?;
    let ciphers = body.long_vector()?;
    let compressions = body.short_vector()?;
    if session.0.len() > 32 || ciphers.0.len() < 2 || ciphers.0.len() % 2 != 0 || compressions.0.is_empty() {
        return Err(BadHello::Lengths);
    }
    let (mut sni, mut ech) = (None, false);
    // TLS 1.2 and older may end here.
    if body.0.is_empty() {
        return Ok((sni, ech));
    }
    let mut extensions = body.long_vector()?;
    body.end()?;
    let mut seen = BTreeSet::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.long_vector()?;
        if !seen.insert(kind) {
            return Err(BadHello::Twice);
        }
        if kind == SERVER_NAME {
            sni = Some(server_name(content)?);
        }
        ech |= HIDING.iter().any(|range| range.contains(&kind));
    }
    Ok((sni, ech))
}

/// One DNS name and nothing else (RFC 6066, 3).
fn server_name(mut content: Bytes<'_>) -> Result<Name, BadHello> {
    let mut list = content.long_vector()?;
    content.end()?;
    let kind = list.take(1)?[0];
    let name = list.long_vector()?.0;
    if kind != 0 || !list.0.is_empty() {
        return Err(BadHello::Name);
    }
    // ASCII only: what a server makes of other letters is not for us to know.
    let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii()).ok_or(BadHello::Name)?;
    match Host::parse(text) {
        Ok(Host::Name(name)) => Ok(name),
        _ => Err(BadHello::Name),
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadHello::Lengths)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, BadHello> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn short_vector(&mut self) -> Result<Bytes<'a>, BadHello> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Bytes)
    }

    fn long_vector(&mut self) -> Result<Bytes<'a>, BadHello> {
        let length = usize::from(self.number()?);
        self.take(length).map(Bytes)
    }

    fn end(&self) -> Result<(), BadHello> {
        if self.0.is_empty() { Ok(()) } else { Err(BadHello::Lengths) }
    }
}

#[cfg(test)]
mod tests;
