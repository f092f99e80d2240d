//! Listening for the trigger's notifications, and what else runs beside the rounds: gauges and pruning.
//!
//! Started by `run`, on its tracker. Only wakes the relay: a lost notification costs no more than one poll.

use std::{convert::Infallible, time::Duration};

use sqlx::Executor;
use tokio::time::{sleep, timeout};

use super::relay::Relay;
use crate::domain::outbox::pause;

/// A connection that has been silent for so long is asked whether it still stands.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
const GAUGES: Duration = Duration::from_secs(5);
const PRUNE: Duration = Duration::from_secs(60);

impl Relay {
    /// Listens, again and again.
    pub(super) async fn listen(&self) -> Infallible {
        let mut failures = 0u32;
        loop {
            match self.outbox.listen().await {
                Ok(mut listener) => {
                    failures = 0;
                    // Whatever was notified before was lost.
                    self.wake.notify_one();
                    let why = self.hear(&mut listener).await;
                    tracing::debug!(why, "the connection for notifications is gone");
                }
                Err(error) => tracing::debug!(%error, "no notifications; polling goes on"),
            }
            failures = failures.saturating_add(1);
            sleep(pause(failures, rand::random())).await;
        }
    }

    /// Wakes the relay at each notification for its table; returns why there are no more.
    async fn hear(&self, listener: &mut sqlx::postgres::PgListener) -> String {
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    if [self.outbox.name(), ""].contains(&notification.payload()) {
                        metrics::counter!("herald_outbox_notifications_total").increment(1);
                        self.wake.notify_one();
                    }
                }
                // It has connected anew by itself.
                Ok(Ok(None)) => self.wake.notify_one(),
                Ok(Err(error)) => return crate::domain::redact(&error.to_string()),
                Err(_) => match timeout(ANSWER, listener.execute("SELECT 1")).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return crate::domain::redact(&error.to_string()),
                    Err(_) => return format!("no answer within {} s", ANSWER.as_secs()),
                },
            }
        }
    }

    /// Keeps the gauges.
    pub(super) async fn gauge(&self) -> Infallible {
        loop {
            if let Ok(look) = self.outbox.look().await {
                metrics::gauge!("herald_outbox_waiting").set(look.waiting as f64);
                metrics::gauge!("herald_outbox_failed").set(look.failed as f64);
                metrics::gauge!("herald_outbox_lag_seconds").set(look.oldest.as_secs_f64());
            }
            sleep(GAUGES).await;
        }
    }

    /// Deletes what is past its retention.
    pub(super) async fn prune(&self) -> Infallible {
        loop {
            match self.outbox.prune(self.settings.retention).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "deleted published rows past outbox.retention"),
                Err(error) => tracing::debug!(%error, "pruning failed; it is tried again"),
            }
            sleep(PRUNE.min(self.settings.retention.max(GAUGES))).await;
        }
    }
}
