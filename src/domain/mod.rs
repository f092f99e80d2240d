//! The functional core: what an event is, where it goes, what a provider's answer means and what happens next.
//!
//! Everything here is pure: no clock, no I/O, no randomness, no environment; time and chance are arguments.
//! Called by `worker`, read by everything else. If something in here needs an `await`, the design is wrong.

pub mod event;
pub mod catalogue;
pub mod routing;
pub mod outcome;
pub mod payload;
pub mod judge;
pub mod retry;
pub mod ledger;
pub mod receipt;
pub mod wave;
pub mod standing;
pub mod steering;
pub mod action;
pub mod explain;
pub mod symptoms;
pub mod when;
pub mod outbox;

mod duration;
mod nearest;
mod text;

pub use duration::parse_duration;
pub use nearest::did_you_mean;
pub use text::{bounded, redact};
