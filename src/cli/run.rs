//! `herald run`: the worker, until SIGTERM.

use crate::{config::Config, telemetry, worker};

use super::stop::Stop;

pub(super) async fn run(config: Config) -> Result<(), Stop> {
    telemetry::init(&config.log);
    worker::run(config).await?;
    Ok(())
}
