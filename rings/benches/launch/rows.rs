//! Times by name, and what is said about them.

use std::time::Duration;

/// Times of one interleaved run; the first row is what the others are compared with.
#[derive(Default)]
pub(crate) struct Rows(Vec<(String, Vec<Duration>)>);

impl Rows {
    pub(crate) fn add(&mut self, name: &str, took: Duration) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, times)) => times.push(took),
            None => self.0.push((name.to_owned(), vec![took])),
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> &mut Rows {
        for (name, _) in self.0.iter_mut().filter(|(name, _)| name == from) {
            to.clone_into(name);
        }
        self
    }

    /// Prints every row, and for those asked for the ratio to the first one.
    pub(crate) fn report(&mut self, ratios: &[&str]) {
        for (name, times) in &mut self.0 {
            times.sort_unstable();
            println!("{name}: p50 {:?} p95 {:?} min {:?} of {}", at(times, 50), at(times, 95), times[0], times.len());
        }
        let Some((_, base)) = self.0.first() else { return };
        for name in ratios {
            for quantile in [50, 95] {
                if let Some(times) = self.times(name) {
                    let ratio = at(times, quantile).as_secs_f64() / at(base, quantile).as_secs_f64();
                    println!("RATIO {name}_p{quantile}={ratio:.2}");
                }
            }
            if let Some(times) = self.times(name) {
                println!("{name}: {:.2} by the fastest of each", times[0].as_secs_f64() / base[0].as_secs_f64());
            }
        }
    }

    /// Prints how many times as long `slow` takes as `fast`, where both were measured.
    pub(crate) fn faster(&self, fast: &str, slow: &str, as_name: &str) {
        if let (Some(fast), Some(slow)) = (self.times(fast), self.times(slow)) {
            println!("RATIO {as_name}={:.2}", at(slow, 50).as_secs_f64() / at(fast, 50).as_secs_f64());
        }
    }

    fn times(&self, name: &str) -> Option<&[Duration]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, times)| times.as_slice())
    }
}

fn at(sorted: &[Duration], quantile: usize) -> Duration {
    sorted[sorted.len() * quantile / 100]
}
