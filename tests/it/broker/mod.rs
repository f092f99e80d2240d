//! Both brokers against one contract, and RabbitMQ against everything that goes wrong with it.

mod contract;
mod faults;
mod memory;
pub mod setup;
pub mod tls;
mod topology;
