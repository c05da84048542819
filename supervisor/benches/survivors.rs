//! Over 1,000 kills of every kind of tree and 200 deaths of the supervisor of every kind: how many processes were left.
//!
//! `cargo bench -p agt-supervise --bench survivors`: the long run of `tests/survivors.rs`, whose variables set other numbers. Root on
//! a host with control groups. It stops at the first survivor and names it.

#![allow(missing_docs, clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/survivors.rs"]
mod survivors;

fn main() {
    if !support::is_root() {
        return println!("SKIP survivors: needs root");
    }
    let kills = survivors::all_kills(1_000);
    let deaths = survivors::all_deaths(200);
    println!("RATIO survivor_kills={}", kills.times);
    println!("RATIO survivor_deaths={}", deaths.times);
    println!("RATIO survivors={}", kills.survivors + deaths.survivors);
}
