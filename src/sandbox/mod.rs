//! A faithful local Ably REST and Expo push server: `herald sandbox`, the demo, tests and benches talk to it as they would
//! to the providers, and the official npm clients do too.
//!
//! Both providers answer under one URL: Ably's paths at the root, Expo's under `/--/api/v2/push`, the control API under
//! `/_sandbox/` ([`Control`] is the same for users in the process). The providers' real limits are in force ([`Settings`]).
//! Everything is kept in memory and bounded. Nothing here may be used to deliver anything.
//!
//! Faults come from rules ([`Fault`]) or from magic ids in the data ([`MAGIC`] is the one table). A request-level fault
//! strikes the whole request, also when only one of a hundred channels carries the id; `fault-denied`,
//! `fault-throttled` and `fault-rejected` concern their channel only, where Ably would answer per channel. A request that
//! matches a rule is not looked at for magic ids.
//!
//! Where nobody knows what the provider does, the sandbox takes the side that hurts: ids are not deduplicated inside a
//! batch, recipients are not deduplicated, a null where none is documented is refused.

mod settings;
mod route;
mod magic;
mod fault;
mod body;
mod call;
mod reply;
mod line;
mod server;
mod ably;
mod expo;
mod window;
mod entry;
mod journal;
mod effects;
mod control;
mod control_http;

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use control::Control;
pub use effects::Effect;
pub use entry::{Entry, Item, ItemOutcome};
pub use fault::{Action, Fault, Match, Phase, Waiting};
pub use journal::Count;
pub use magic::MAGIC;
pub use route::{Endpoint, Provider};
pub use settings::{
    ACCESS_TOKEN, Capability, Credential, DEFAULT_KEY, Device, FOREIGN_ACCESS_TOKEN, Settings, Standing,
};

/// A running sandbox; it ends when stopped or dropped.
#[derive(Debug)]
pub struct Sandbox {
    control: Control,
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts a sandbox with default settings on `listen` (port 0: a free one).
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        Self::start_with(listen, Settings::default()).await
    }

    /// Starts a sandbox with `settings` on `listen` (port 0: a free one).
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start_with(listen: SocketAddr, settings: Settings) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("sandbox cannot listen on {listen}"))?;
        let address = listener.local_addr().context("sandbox has no address")?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the sandbox has no access control and listens beyond this machine");
        }
        let stop = CancellationToken::new();
        let control = Control::new(settings);
        let task = tokio::spawn(server::serve(listener, control.clone(), stop.clone()));
        Ok(Self { control, address, stop, task: Some(task) })
    }

    /// Returns the URL of both providers, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the control API for users in this process.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops listening, cuts what hangs or is held, lets other answers go out for at most a second.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(Duration::from_secs(1), &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Locks state that a panicking request cannot leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
