//! Compensating sagas over a durable journal: pure machine, replay, driver.

pub mod journal;
