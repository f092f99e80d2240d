//! `herald sandbox`: a local Ably REST and Expo push, until SIGINT or SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Config,
    sandbox::{DEFAULT_KEY, MAGIC, Sandbox},
    telemetry,
};

use super::{
    output::{line, table},
    stop::Stop,
};

pub(super) async fn run(config: Config) -> Result<(), Stop> {
    telemetry::init(&config.log);
    let sandbox = Sandbox::start(config.sandbox.listen).await?;
    line(&greeting(&sandbox.url()))?;
    let watch = |kind| signal(kind).map_err(|error| Stop::failed(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

fn greeting(url: &str) -> String {
    let mut faults = vec![vec!["put this into an id or push token".to_owned(), "and the sandbox".to_owned()]];
    faults.extend(MAGIC.iter().map(|(id, what)| vec![(*id).to_owned(), (*what).to_owned()]));
    format!(
        "sandbox: Ably REST and Expo push on {url}\n\n\
         To use it:\n  \
         export HERALD_ABLY__URL={url} ABLY_API_KEY={DEFAULT_KEY}\n  \
         export HERALD_EXPO__URL={url}\n\n{}\n\nCtrl-C ends it.",
        table(&faults)
    )
}
