//! What herald serves over HTTP: health, readiness and metrics.
//!
//! Started by the worker. The three addresses are open to everybody who reaches the port; whatever else comes here goes
//! through `guard`. Never waits for the broker or a database: an answer tells what is known.

mod guard;
mod health;
mod metrics;
mod server;

pub use health::Readiness;
pub use server::serve;
