//! Numbers by name over the rounds, and what is said of them.

/// Numbers of each name, in the order of the rounds.
#[derive(Default)]
pub(crate) struct Rows(Vec<(String, Vec<f64>)>);

impl Rows {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn values(&self, name: &str) -> Option<&[f64]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, values)| values.as_slice())
    }

    /// The median of a row.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.values(name).map(|values| median(values.to_vec()))
    }

    /// All rounds together.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.values(name).map_or(f64::NAN, |values| values.iter().sum())
    }

    /// The median of the rounds' quotients, and prints it.
    pub(crate) fn ratio(&self, name: &str, of: &str, to: &str) {
        self.pairs(name, of, to, |of, to| of / to, 2);
    }

    /// The median of the rounds' differences, and prints it.
    pub(crate) fn added(&self, name: &str, of: &str, to: &str, digits: usize) {
        self.pairs(name, of, to, |of, to| of - to, digits);
    }

    fn pairs(&self, name: &str, of: &str, to: &str, with: impl Fn(f64, f64) -> f64, digits: usize) {
        if let (Some(of), Some(to)) = (self.values(of), self.values(to)) {
            say(name, median(of.iter().zip(to).map(|(of, to)| with(*of, *to)).collect()), digits);
        }
    }

    /// Prints every row: its median, least and most.
    pub(crate) fn report(&self) {
        for (name, values) in &self.0 {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            println!("{name}: median {:.2} ({least:.2} to {most:.2}) of {}", median(values.clone()), values.len());
        }
    }
}

/// A line that is compared with what must be.
pub(crate) fn say(name: &str, value: f64, digits: usize) {
    println!("RATIO {name}={value:.digits$}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
