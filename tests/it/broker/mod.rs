//! Both brokers against one contract, and RabbitMQ against everything that goes wrong with it.

mod contract;
mod faults;
mod memory;
mod setup;
mod tls;
mod topology;
