//! Where an answer ends: by its Content-Length alone, which is what all servers here say.

use std::io::{self, ErrorKind};

/// Reads answers from the bytes that came so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    kept: Vec<u8>,
}

impl Reading {
    /// Room for what comes next.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.kept.reserve(8192);
        &mut self.kept
    }

    /// Whether an answer is there as a whole; it is taken out then.
    ///
    /// # Errors
    /// An answer that is not 200, or says no length.
    pub(super) fn whole(&mut self) -> io::Result<bool> {
        let Some(end) = head_end(&self.kept) else { return Ok(false) };
        let head = &self.kept[..end];
        check(head)?;
        let whole = end + length(head).ok_or_else(|| bad(head))?;
        if self.kept.len() < whole {
            return Ok(false);
        }
        if self.kept.len() == whole {
            self.kept.clear();
        } else {
            self.kept.drain(..whole);
        }
        Ok(true)
    }

    /// Whether the head of an answer without a body that ends is there; it is taken out then.
    ///
    /// # Errors
    /// An answer that is not 200.
    pub(super) fn head(&mut self) -> io::Result<bool> {
        let Some(end) = head_end(&self.kept) else { return Ok(false) };
        check(&self.kept[..end])?;
        self.kept.drain(..end);
        Ok(true)
    }

    /// What came beyond what was taken out.
    pub(super) fn rest(&mut self) -> &mut Vec<u8> {
        &mut self.kept
    }
}

/// A connection that ended where it should not.
pub(super) fn ended() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the connection ended before the answer did")
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn check(head: &[u8]) -> io::Result<()> {
    match head.get(8..12) {
        Some(b" 200") => Ok(()),
        _ => Err(bad(head)),
    }
}

fn bad(head: &[u8]) -> io::Error {
    io::Error::other(format!("the answer was {:?}", String::from_utf8_lossy(head)))
}

fn length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| std::str::from_utf8(value).ok()?.trim().parse().ok())?
    })
}
