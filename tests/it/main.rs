//! Integration tests, one binary: everything that is not pure, against real RabbitMQ, real PostgreSQL and the sandbox.
//!
//! Services come from `HERALD_TEST_AMQP_URL` and `HERALD_TEST_DATABASE_URL` (`make test` provides both). Without them a test
//! says that it is skipped; under `CI` a skipped test fails. Each test has its own prefix and its own schema.

mod cli;
mod config;
mod http;
mod broker;
mod relay;
mod collector;
mod support;
mod store;
mod sandbox;
mod npm;
mod python;
mod clients;
mod schema;
mod cloudevents;
mod typescript;
mod examples;
mod walk;
mod commands;
mod journal;
mod servers;
mod rig;
mod main_job;
mod contract;
mod survival;
mod windows;
mod bad_input;
mod panics;
mod receipts;
mod steering;
mod users_command;
mod outages;
mod repeats;
mod outbox;
mod redaction;
mod explain;
mod letters;
mod status;
mod desk;
mod page;
mod traces;
mod provider;
mod observe;
