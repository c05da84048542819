//! Chaos experiments: fault catalogue, seeded schedules, experiment machine, guardian.
