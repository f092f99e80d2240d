//! Ctrl-C and SIGTERM during long work: it stops in order; a second signal ends the process at once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Returns a token that the first SIGINT or SIGTERM cancels, after `say` was told on standard error (nothing when empty). At the
/// second, or when stopping takes half a minute, the process ends with 128 + the signal's number.
pub(super) fn on_signal(say: &'static str) -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => 15,
                _ = interrupt.recv() => 2,
            }
        };
        let first = next().await;
        if !say.is_empty() {
            eprintln!("herald: {say}");
        }
        stop.cancel();
        let signal = tokio::time::timeout(Duration::from_secs(30), next()).await.unwrap_or(first);
        std::process::exit(128 + signal);
    });
    token
}
