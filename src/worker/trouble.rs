//! Trouble with a database: while the ledger or the users database is away, nothing is taken in.
//!
//! Called by the stops that met it (raise) and by the intake (wait, probe, clear). Never a reason to use up an attempt.

use tokio::sync::watch;

/// What is wrong, if anything.
pub struct Trouble {
    what: watch::Sender<Option<String>>,
}

impl Default for Trouble {
    fn default() -> Self {
        Trouble { what: watch::Sender::new(None) }
    }
}

impl Trouble {
    /// Says what is wrong; the first word stays until it is cleared.
    pub fn raise(&self, what: &str) {
        self.what.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(what, "a database is away: intake stops until it is back");
                *current = Some(what.to_owned());
            }
            first
        });
    }

    /// Returns once something is wrong, with what it is.
    pub async fn raised(&self) -> String {
        let mut receiver = self.what.subscribe();
        let what = receiver.wait_for(Option::is_some).await;
        what.ok().and_then(|what| what.clone()).unwrap_or_default()
    }

    /// Returns once all is well.
    pub async fn cleared(&self) {
        // An error means that the worker is gone, and with it whoever waits here.
        let _ = self.what.subscribe().wait_for(Option::is_none).await;
    }

    /// Says that all is well again.
    pub fn clear(&self) {
        self.what.send_if_modified(|current| {
            let was_raised = current.take().is_some();
            if was_raised {
                tracing::info!("the databases are back: intake starts again");
            }
            was_raised
        });
    }
}
