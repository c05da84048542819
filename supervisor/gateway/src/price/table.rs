//! The table in use: prices found by a model's name, charges of what was used.

use super::Money;
use super::spec::{LongSpec, ModelSpec, PerMillion, TableSpec};
use crate::usage::Usage;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The prices that this program knows by itself, with the providers' public pages and when they were read.
const BUILT_IN: &str = include_str!("builtin.json");
/// Longest name of a model that is looked up; a longer one is an unknown model.
const MODEL_NAME_MAX: usize = 256;
/// Most entries in a table.
const MODELS_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuiltIn {
    sources: Vec<Source>,
    unknown: ModelSpec,
    models: BTreeMap<String, ModelSpec>,
}

/// Where built-in prices are from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Whose prices.
    pub provider: String,
    /// The public page.
    pub page: String,
    /// When it was read, `2026-11-22`.
    pub read: String,
    /// What else there is to know.
    pub note: String,
}

fn built_in() -> BuiltIn {
    serde_json::from_str(BUILT_IN).expect("a test loads the built-in table")
}

/// Where the built-in prices are from, and when they were read: prices change more often than programs.
#[must_use]
pub fn sources() -> Vec<Source> {
    built_in().sources
}

/// A price table that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTable {
    /// An unknown model would be free.
    #[error("an unknown model must cost something: `unknown` has a price of 0")]
    FreeUnknown,
    /// Too many entries.
    #[error("{0} models are more than {MODELS_MAX}")]
    TooMany(usize),
    /// A name that can match nothing, or a `*` where it is not the end.
    #[error("{0:?} is no name of a model: letters and digits, at most {MODEL_NAME_MAX}, a `*` only at the end")]
    Name(String),
    /// A model without room for a token.
    #[error("model {0:?}: context and max_output must be above 0")]
    NoRoom(String),
}

/// What tokens of one kind cost, in 1e-12 dollars each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Fresh input.
    pub input: u64,
    /// Output, hidden reasoning included.
    pub output: u64,
    /// Input from the cache.
    pub cached: u64,
    /// Input written to the cache.
    pub cache_write: u64,
    /// Input written to the cache for an hour.
    pub cache_write_long: u64,
}

/// A model's prices and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Prices of a request of usual length.
    pub rates: Rates,
    /// Input tokens above which the other prices hold, and those.
    pub long: Option<(u64, Rates)>,
    /// Most tokens of input.
    pub context: u64,
    /// Most tokens of output.
    pub max_output: u64,
}

/// Whether the table knew the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The model is in the table.
    Listed,
    /// It is not: the worst price was taken.
    Unknown,
}

/// What something costs, and how sure that is.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The cost.
    pub cost: Money,
    /// Whether the price is the model's own.
    pub known: Known,
}

/// Prices by model.
#[derive(Clone, Debug)]
pub struct Table {
    exact: BTreeMap<String, Price>,
    /// Beginnings of names, the longest first.
    beginnings: Vec<(String, Price)>,
    unknown: Price,
}

impl Table {
    /// The built-in prices alone.
    pub fn built_in() -> Self {
        Self::new(&TableSpec::default()).expect("a test loads the built-in table")
    }

    /// The built-in prices with those of `spec` over them.
    pub fn new(spec: &TableSpec) -> Result<Self, BadTable> {
        let built_in = built_in();
        let unknown = Price::of_unknown(spec.unknown.as_ref().unwrap_or(&built_in.unknown))?;
        let entries = built_in.models.len() + spec.models.len();
        if entries > MODELS_MAX {
            return Err(BadTable::TooMany(entries));
        }
        let mut table = Self { exact: BTreeMap::new(), beginnings: Vec::new(), unknown };
        let mut beginnings = BTreeMap::new();
        for (name, model) in built_in.models.iter().chain(&spec.models) {
            let price = Price::of(model, &unknown).ok_or_else(|| BadTable::NoRoom(name.clone()))?;
            let bare = name.strip_suffix('*').unwrap_or(name);
            if bare.is_empty()
                || bare.len() > MODEL_NAME_MAX
                || bare.contains('*')
                || !bare.bytes().all(|b| b.is_ascii_graphic())
            {
                return Err(BadTable::Name(name.chars().take(80).collect()));
            }
            match bare.len() == name.len() {
                true => table.exact.insert(name.clone(), price),
                false => beginnings.insert(bare.to_owned(), price),
            };
        }
        table.beginnings = beginnings.into_iter().collect();
        table.beginnings.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(table)
    }

    /// The price of `model`: by its name, by its name without a date or revision, by the longest beginning, else the worst.
    pub fn price(&self, model: &str) -> (&Price, Known) {
        // Gemini says `models/NAME` in places.
        let name = model.strip_prefix("models/").unwrap_or(model);
        if name.len() > MODEL_NAME_MAX {
            return (&self.unknown, Known::Unknown);
        }
        if let Some(price) = self.exact.get(name).or_else(|| self.exact.get(undated(name))) {
            return (price, Known::Listed);
        }
        match self.beginnings.iter().find(|(beginning, _)| name.starts_with(beginning.as_str())) {
            Some((_, price)) => (price, Known::Listed),
            None => (&self.unknown, Known::Unknown),
        }
    }

    /// What `usage` of `model` costs.
    pub fn charge(&self, model: &str, usage: &Usage) -> Charge {
        let (price, known) = self.price(model);
        Charge { cost: price.cost(usage), known }
    }

    /// The most that `input` and `output` tokens of `model` can cost, however the provider counts them: all input at its dearest
    /// (a cache write), and at the prices of long requests where they are higher.
    pub fn worst(&self, model: &str, input: u64, output: u64) -> Charge {
        let (price, known) = self.price(model);
        Charge { cost: price.worst(input, output), known }
    }
}

impl Price {
    fn of(model: &ModelSpec, unknown: &Self) -> Option<Self> {
        let rates = Rates::of(model.input, model.output, model.cached, model.cache_write, model.cache_write_long);
        let long = model.long.as_ref().map(|long| (long.above, Rates::of_long(long)));
        let price = Self {
            rates,
            long,
            context: model.context.unwrap_or(unknown.context),
            max_output: model.max_output.unwrap_or(unknown.max_output),
        };
        (price.context > 0 && price.max_output > 0).then_some(price)
    }

    fn of_unknown(model: &ModelSpec) -> Result<Self, BadTable> {
        let sizes = Self {
            rates: Rates::of(model.input, model.output, None, None, None),
            long: None,
            context: UNKNOWN_CONTEXT,
            max_output: UNKNOWN_MAX_OUTPUT,
        };
        let price = Self::of(model, &sizes).ok_or_else(|| BadTable::NoRoom("unknown".to_owned()))?;
        match price.rates.input == 0 || price.rates.output == 0 {
            true => Err(BadTable::FreeUnknown),
            false => Ok(price),
        }
    }

    fn cost(&self, usage: &Usage) -> Money {
        let rates = match &self.long {
            Some((above, long)) if usage.input_total() > *above => long,
            _ => &self.rates,
        };
        let parts = [
            (usage.input, rates.input),
            (usage.cached, rates.cached),
            (usage.cache_write, rates.cache_write),
            (usage.cache_write_long, rates.cache_write_long),
            (usage.output, rates.output),
        ];
        sum(&parts)
    }

    fn worst(&self, input: u64, output: u64) -> Money {
        let usual = sum(&[(input, self.rates.dearest_input()), (output, self.rates.output)]);
        match &self.long {
            Some((above, long)) if input > *above => {
                usual.max(sum(&[(input, long.dearest_input()), (output, long.output)]))
            }
            _ => usual,
        }
    }
}

/// Sizes of an unknown model where the table does not give them: those of the largest models on offer.
const UNKNOWN_CONTEXT: u64 = 2_000_000;
const UNKNOWN_MAX_OUTPUT: u64 = 128_000;

impl Rates {
    fn of(
        input: PerMillion,
        output: PerMillion,
        cached: Option<PerMillion>,
        write: Option<PerMillion>,
        write_long: Option<PerMillion>,
    ) -> Self {
        let (input, or) =
            (input.pico_per_token, |given: Option<PerMillion>, other: u64| given.map_or(other, |p| p.pico_per_token));
        Self {
            input,
            output: output.pico_per_token,
            cached: or(cached, input),
            cache_write: or(write, input.saturating_add(input.div_ceil(4))),
            cache_write_long: or(write_long, input.saturating_mul(2)),
        }
    }

    fn of_long(long: &LongSpec) -> Self {
        Self::of(long.input, long.output, long.cached, long.cache_write, long.cache_write_long)
    }

    fn dearest_input(&self) -> u64 {
        self.input.max(self.cached).max(self.cache_write).max(self.cache_write_long)
    }
}

/// The sum of tokens times prices, rounded up to a billionth: what was used is never free unless its price is.
fn sum(parts: &[(u64, u64)]) -> Money {
    let pico =
        parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).fold(0u128, u128::saturating_add);
    Money::from_nanos(u64::try_from(pico.div_ceil(1_000)).unwrap_or(u64::MAX))
}

/// A model's name without what providers put at its end to name a release: `-2024-08-06`, `-20250219`, `-latest`, `-001`.
fn undated(name: &str) -> &str {
    if let Some(bare) = name.strip_suffix("-latest") {
        return bare;
    }
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let Some((bare, last)) = name.rsplit_once('-') else { return name };
    if digits(last, 8) || digits(last, 3) {
        return bare;
    }
    // Year, month and day with dashes.
    let mut parts = name.rsplitn(4, '-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(day), Some(month), Some(year), Some(bare)) if digits(day, 2) && digits(month, 2) && digits(year, 4) => {
            bare
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn with(json: &str) -> Result<Table, BadTable> {
        Table::new(&serde_json::from_str(json).unwrap())
    }

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage { input, cached, output, ..Usage::default() }
    }

    #[test]
    fn the_built_in_table_loads_and_its_unknown_model_is_the_dearest() {
        let table = Table::built_in();
        assert!(table.exact.len() > 40);
        for (name, price) in &table.exact {
            for rates in [Some(price.rates), price.long.map(|(_, rates)| rates)].into_iter().flatten() {
                assert!(
                    rates.input <= table.unknown.rates.input && rates.output <= table.unknown.rates.output,
                    "{name}"
                );
                assert!(rates.dearest_input() <= table.unknown.rates.dearest_input(), "{name}");
                assert!(rates.input > 0 && rates.cached > 0 && rates.cached <= rates.input, "{name}");
            }
        }
    }

    #[test]
    fn the_built_in_table_says_from_which_page_and_when_each_providers_prices_are() {
        let sources = sources();
        for provider in ["anthropic", "openai", "gemini"] {
            let source = sources.iter().find(|source| source.provider == provider).unwrap();
            assert!(source.page.starts_with("https://"), "{source:?}");
            let digits = source.read.split('-').map(str::len).collect::<Vec<_>>();
            assert!(digits == [4, 2, 2] && source.read.bytes().all(|b| b.is_ascii_digit() || b == b'-'), "{source:?}");
        }
    }

    #[test]
    fn newer_models_have_the_prices_of_their_pages() {
        let table = Table::built_in();
        let million = usage(100_000, 0, 100_000);
        for (model, cost) in [
            ("claude-fable-5-1", "$6.00"),
            ("claude-fable-5-2", "$4.80"),
            ("claude-opus-5-5", "$2.40"),
            ("claude-haiku-5-5", "$0.06"),
            ("gpt-6.2-sol", "$1.20"),
            ("gpt-6-astra", "$6.00"),
            ("gpt-5.5", "$3.50"),
            ("gemini-3.5-flash", "$1.05"),
        ] {
            let charge = table.charge(model, &million);
            assert_eq!((charge.cost.to_string().as_str(), charge.known), (cost, Known::Listed), "{model}");
        }
        // Five times as much above 100,000 tokens of input, for all of them.
        assert_eq!(table.charge("claude-haiku-5-5", &usage(100_001, 0, 0)).cost.nanos(), 50_000_500);
    }

    #[test]
    fn a_bill_is_what_the_price_list_says() {
        let table = Table::built_in();
        // gpt-4o: 2.50, 1.25 cached, 10 a million.
        let charge = table.charge("gpt-4o-2024-08-06", &usage(1_000_000, 1_000_000, 100_000));
        assert_eq!((charge.cost.to_string().as_str(), charge.known), ("$4.75", Known::Listed));
        // claude-sonnet-4-5: 3, 0.30 read, 3.75 and 6 written, 15.
        let written =
            Usage { input: 1000, cached: 1000, cache_write: 1000, cache_write_long: 1000, output: 1000, reasoning: 0 };
        assert_eq!(table.charge("claude-sonnet-4-5-20250929", &written).cost.to_string(), "$0.02805");
        // gemini-2.5-pro above 200,000 tokens: 2.50 and 15, for all of them.
        assert_eq!(table.charge("models/gemini-2.5-pro", &usage(200_000, 0, 0)).cost.to_string(), "$0.25");
        assert_eq!(table.charge("gemini-2.5-pro", &usage(200_001, 0, 1_000)).cost.nanos(), 500_002_500 + 15_000_000);
        // One token of the cheapest is not free.
        assert!(!table.charge("gpt-5-nano", &usage(0, 1, 0)).cost.is_zero());
    }

    #[test]
    fn an_unknown_model_is_flagged_and_dear() {
        let table = Table::built_in();
        for name in ["gpt-99", "", "gpt-4o-audio-preview", "gpt-4ominious", "ft:gpt-4o:acme::1", &"x".repeat(5_000)] {
            let charge = table.charge(name, &usage(1_000, 0, 1_000));
            assert_eq!((charge.known, charge.cost.to_string().as_str()), (Known::Unknown, "$0.75"), "{name}");
        }
    }

    #[test]
    fn a_table_of_the_users_lies_over_the_built_in_one() {
        let table = with(
            r#"{"unknown": {"input": 40, "output": "90"}, "models": {
                "gpt-4o": {"input": "1", "output": "2"}, "local-*": {"input": 0, "output": 0}, "local-big-*": {"input": 1, "output": 1.5},
                "odd": {"input": 0.000001, "output": 1, "context": 10, "max_output": 5}}}"#,
        )
        .unwrap();
        let million = usage(1_000_000, 0, 1_000_000);
        assert_eq!(table.charge("gpt-4o", &million).cost.to_string(), "$3.00");
        assert_eq!(table.charge("gpt-4o-mini", &million).cost.to_string(), "$0.75");
        assert_eq!(table.charge("local-7b", &million), Charge { cost: Money::ZERO, known: Known::Listed });
        assert_eq!(table.charge("local-big-70b", &million).cost.to_string(), "$2.50");
        assert_eq!(table.charge("nobody-knows", &million).cost.to_string(), "$130.00");
        assert_eq!(table.price("odd").0.max_output, 5);
        assert_eq!(table.charge("odd", &usage(1, 0, 0)).cost.nanos(), 1, "a thousandth of a billionth is not free");
        for (bad, expected) in [
            (r#"{"unknown": {"input": 0, "output": 1}}"#, BadTable::FreeUnknown),
            (r#"{"models": {"a*b": {"input": 1, "output": 1}}}"#, BadTable::Name("a*b".into())),
            (r#"{"models": {"*": {"input": 1, "output": 1}}}"#, BadTable::Name("*".into())),
            (r#"{"models": {"m": {"input": 1, "output": 1, "context": 0}}}"#, BadTable::NoRoom("m".into())),
        ] {
            assert_eq!(with(bad).unwrap_err(), expected);
        }
        assert!(
            serde_json::from_str::<TableSpec>(r#"{"models": {"m": {"input": 1, "output": 1, "ouput": 1}}}"#).is_err()
        );
    }

    proptest! {
        /// Whatever the provider counts within what was reserved, the worst case pays for it.
        #[test]
        fn the_worst_case_is_the_worst(
            model in prop::sample::select(vec!["gpt-4o", "claude-sonnet-4-5", "claude-opus-4-6", "gemini-2.5-pro", "gpt-5.4", "?"]),
            parts in prop::array::uniform4(0u64..300_000), output in 0u64..200_000, more in 0u64..1_000,
        ) {
            let table = Table::built_in();
            let [input, cached, cache_write, cache_write_long] = parts;
            let usage = Usage { input, cached, cache_write, cache_write_long, output, reasoning: 0 };
            let worst = table.worst(model, usage.input_total() + more, output + more);
            prop_assert!(table.charge(model, &usage).cost <= worst.cost);
        }
    }
}
