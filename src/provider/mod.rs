//! The two providers and what they share: gathering requests, breaking circuits, keeping to rates.
//!
//! Called by the worker's fifth stop (and third, for presence). A provider turns HTTP into outcomes; it never decides what
//! becomes of an event, and never lets a key or push token into a failure.

pub mod ably;
pub mod coalescer;
pub mod expo;
pub mod gate;

mod parts;
mod tries;
pub(crate) mod http;
