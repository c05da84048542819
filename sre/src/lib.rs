//! SLIs, SLOs, error budgets, burn rates, circuit breakers and trust: numbers in, verdicts out.
