//! IPv4 in all forms that inet_aton(3) reads: decimal, octal, hexadecimal, one to four parts.
//!
//! Resolvers and C libraries read `2130706433`, `0177.1` and `0x7f.0.0.1` as 127.0.0.1. The rule for what is a number at all is
//! that of the WHATWG URL standard ("ends in a number"): whatever ends in a number and isn't an address is no name either, for no
//! top-level domain is a number.

use std::net::Ipv4Addr;

/// What a text without a dot at its end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// An address.
    Address(Ipv4Addr),
    /// It ends in a number and is none.
    Broken,
    /// It doesn't end in a number.
    Name,
}

/// Reads a text in small letters.
pub(super) fn ipv4(text: &str) -> Reading {
    let last = text.rsplit('.').next().unwrap_or_default();
    if !ends_as_number(last) {
        return Reading::Name;
    }
    whole(text).map_or(Reading::Broken, Reading::Address)
}

fn ends_as_number(last: &str) -> bool {
    let digits = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    digits || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn whole(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0;
    for part in text.split('.') {
        *parts.get_mut(count)? = number(part)?;
        count += 1;
    }
    // The last part fills all bytes that the others leave.
    let (last, first) = parts[..count].split_last()?;
    let room = 8 * (4 - first.len() as u32);
    if first.iter().any(|part| *part > 255) || u64::from(*last) >= 1_u64 << room {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).fold(0_u32, |sum, (part, shift)| sum | part << shift);
    Some(Ipv4Addr::from(high | last))
}

/// One part; `0x` alone is a number to some and to others not, and is refused.
fn number(part: &str) -> Option<u32> {
    let (digits, radix) = match part.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if part.len() > 1 && part.starts_with('0') => (&part[1..], 8),
        None => (part, 10),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}
