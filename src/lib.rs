//! herald delivers session events: from RabbitMQ through Ably presence to an Ably channel or an Expo push, with retries, a
//! dead-letter queue and a ledger that can explain every decision.

pub mod domain;
pub mod worker;
pub mod outbox;
pub mod provider;
pub mod broker;
pub mod store;
pub mod letters;
pub mod desk;
pub mod sandbox;
pub mod http;
pub mod demo;
pub mod cli;
pub mod config;
pub mod telemetry;
mod trace;
