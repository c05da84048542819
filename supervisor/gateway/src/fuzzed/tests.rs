//! The fuzz targets as ordinary tests: their seeds and a bounded number of mutations of them, the same in every run.
//!
//! This finds little that is new; it keeps what was found once, and the targets themselves, from rotting.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

/// A xorshift generator (Marsaglia, 2003): no clock, no seed from outside.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

/// What mutations put in: what readers stumble over.
const PIECES: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b"%2e",
    b"%252f",
    b"..",
    b"/",
    b"\\",
    b"@",
    b":",
    b"[",
    b"]",
    b"data: ",
    b"\"usage\"",
    b"{",
    b"}",
    b"0x7f",
    b"\xff",
    b"\xef\xbc\x91",
    b" ",
    b"Transfer-Encoding: chunked",
    b"Host: x",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let until = (at + dice.below(16)).min(bytes.len());
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
            2 => drop(bytes.drain(at..until)),
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
            5 => {
                let again = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn hold(target: &str, check: fn(&[u8]), mutations: usize) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 4, "{target}: {} seeds", seeds.len());
    seeds.iter().for_each(|seed| check(seed));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..mutations {
        let bytes = mutate(&mut dice, &seeds);
        let shown = bytes.clone();
        if let Err(panic) = std::panic::catch_unwind(|| check(&bytes)) {
            eprintln!("{target} falls over {:?}", String::from_utf8_lossy(&shown));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn requests_have_one_meaning_or_none() {
    hold("request", request, 3_000);
}

#[test]
fn hellos_are_read_alike_however_they_are_cut_and_as_rustls_reads_them() {
    hold("hello", hello, 20_000);
}

#[test]
fn hosts_have_one_spelling() {
    hold("host", host, 20_000);
}

#[test]
fn events_are_neither_lost_nor_merged_by_a_cut() {
    hold("events", events, 10_000);
}

#[test]
fn usage_is_read_alike_however_it_is_cut() {
    hold("usage", usage, 10_000);
}

#[test]
fn paths_have_one_spelling() {
    hold("route_path", route_path, 20_000);
}
