//! Push tokens of devices that are gone: cleared one by one, and none at all while suspiciously many are said to be gone.
//!
//! Called by the fifth stop (tickets) and by the receipts. Clears only the token that was sent to; never clears during a wave,
//! and never says a token.

use std::time::Duration;

use tokio::time::Instant;

use super::{Worker, clock};
use crate::{domain::wave::Wave, store::StoreError};

/// Pause between two alarms of the same kind.
pub(super) const ALARM_PAUSE: Duration = Duration::from_secs(60);

/// Who says that a device is gone. Each has a window of its own: a good ticket must not outweigh a bad receipt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Ticket,
    Receipt,
}

/// What was said of the devices lately.
#[derive(Debug, Default)]
pub(super) struct Devices {
    tickets: Wave,
    receipts: Wave,
    alarmed: Option<Instant>,
}

impl<B> Worker<B> {
    /// Notes what a ticket or receipt says of a device.
    pub(super) fn device_seen(&self, source: Source, gone: bool) {
        let mut devices = self.state.devices.lock().expect("no panic while the lock is held");
        match source {
            Source::Ticket => devices.tickets.add(clock::now_ms(), gone),
            Source::Receipt => devices.receipts.add(clock::now_ms(), gone),
        }
    }

    /// Clears a token whose device is gone, if it is still the one sent to; during a wave nothing is cleared and that is no
    /// error.
    pub(super) async fn clear_token(&self, user: &str, token: &str) -> Result<(), StoreError> {
        let Some(users) = &self.users else { return Ok(()) };
        if self.wave() {
            metrics::counter!("herald_tokens_kept_total").increment(1);
            return Ok(());
        }
        match users.clear(user, token).await {
            Ok(true) => metrics::counter!("herald_tokens_cleared_total").increment(1),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(user.id = user, %error, "the push token of a device that is gone was not cleared");
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells whether suspiciously many devices are said to be gone, and raises an alarm about it, at most once a minute.
    fn wave(&self) -> bool {
        let share = self.settings.unregistered_share;
        let mut devices = self.state.devices.lock().expect("no panic while the lock is held");
        let wave = [&devices.tickets, &devices.receipts].into_iter().find(|wave| wave.is_on(share));
        let Some((gone, answers)) = wave.map(Wave::counts) else { return false };
        if devices.alarmed.is_none_or(|at| at.elapsed() >= ALARM_PAUSE) {
            devices.alarmed = Some(Instant::now());
            tracing::error!(
                gone,
                answers,
                share,
                "Expo says of {gone} of the last {answers} devices that they are gone (DeviceNotRegistered): push tokens are no \
                 longer cleared; check the project's push credentials at Expo; expo.unregistered_share sets the limit"
            );
        }
        true
    }
}
