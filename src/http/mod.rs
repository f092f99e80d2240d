//! What herald serves over HTTP: health, readiness, metrics, and the operator's page with its API.
//!
//! Started by the worker. The first three and the page's files are open to everybody who reaches the port; whatever else comes
//! here goes through `guard`. Nothing served here holds up an event: what is told is known already, or asked beside the path.

mod server;
mod guard;
mod answer;
mod health;
mod metrics;
mod page;
mod api;

pub use api::Api;
pub use health::Readiness;
pub use server::serve;
