//! The gate of one provider: whether requests may go out now, and if not, why and until when.
//!
//! Called by the provider clients around every request and by the worker, which moves held events to the provider's hold
//! queue and drains it again. One gate per provider: one being down never slows the other. Never decides about an event.

use jiff::Timestamp;

use crate::domain::outcome::{HoldCause, Provider};

/// What an operator or a page is told of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct GateState {
    pub provider: Provider,
    /// `None`: open.
    pub shut: Option<HoldCause>,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// The failure that shut it, as a bounded, redacted sentence.
    pub why: String,
}

/// Whether held events may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Requests go out.
    Open,
    /// One request may go out, to see whether the provider is back.
    Probe,
    /// Nothing goes out.
    Shut(HoldCause),
}

/// The gate of one provider. Shared by reference.
#[derive(Debug)]
pub struct Gate {}

impl Gate {
    /// Makes an open gate.
    pub fn new(_provider: Provider) -> Self {
        todo!()
    }

    /// Tells whether requests may go out now; takes no permit.
    pub fn admission(&self) -> Admission {
        todo!()
    }

    /// Returns when [`Gate::admission`] may have changed.
    pub async fn changed(&self) {
        todo!()
    }

    /// Returns what to show.
    pub fn state(&self) -> GateState {
        todo!()
    }
}
