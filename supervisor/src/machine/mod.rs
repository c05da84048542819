//! The pure machines of the supervisor: the only place that decides. Performing is the driver's.

pub mod ended;
pub mod health;
pub mod lifecycle;
pub mod limit_events;
pub mod restart;
pub mod rules;
