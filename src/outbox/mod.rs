//! The relay: takes the events that a backend wrote into its own database, in its own transaction, and publishes them.
//!
//! Called by `herald outbox`. A row leaves the table only after RabbitMQ has confirmed its event; what is in between when a
//! relay dies is published again, and the ledger suppresses the repeat. Which rows may go is decided in `domain::outbox`,
//! what the table gives and keeps is `store::outbox`. Never holds more than one batch, never waits without a timeout.

mod relay;
mod listen;
mod run;

pub use run::{open, run};
