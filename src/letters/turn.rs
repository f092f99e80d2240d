//! One process at a time walks the dead-letter queue: the turn is a row in the store, kept by a heartbeat.
//!
//! Called around every sweep. Whoever comes second is told who is at it; a process that was killed loses its turn after ten
//! seconds, and the next one deals with what it left.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    broker::BrokerError,
    domain::when::{span, time},
    store::{Left, Store, StoreError, Sweeper, Turn},
};

use super::Leftovers;

/// A turn is lost after ten seconds of silence.
const BEAT: Duration = Duration::from_secs(2);

/// Why acting on letters failed. What was done until then is done; the rest lies in the queue as before.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    #[error(
        "`{}` is walking the dead letters since {} (last heard of {} ago); one at a time: try again when it is done, or ten \
         seconds after it was killed", .0.owner, time(.0.since), span(.0.silent_ms)
    )]
    Taken(Sweeper),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the name of the machine, as it stands in records of who did something.
pub fn this_host() -> String {
    hostname::get().ok().and_then(|host| host.into_string().ok()).unwrap_or_else(|| "unknown host".to_owned())
}

/// Names this process for whoever comes second: what it does, where, and its process id.
pub fn this_process(what: &str) -> String {
    let host = this_host();
    // Process ids come again, and in containers they are all alike.
    let start = &uuid::Uuid::new_v4().simple().to_string()[..8];
    format!("{what} on {host}, process {} ({start})", std::process::id())
}

/// Does `work` while nobody else walks `queue`. `work` gets what earlier walks have left, and a token that is cancelled when it
/// is to stop in order; it says what it leaves in turn.
pub async fn alone<T>(
    store: &Store,
    queue: &str,
    owner: &str,
    stop: &CancellationToken,
    work: impl AsyncFnOnce(Leftovers, CancellationToken) -> Result<(T, Left), LettersError>,
) -> Result<T, LettersError> {
    let unfinished_since = match store.begin_sweep(queue, owner).await? {
        Turn::Ours { unfinished_since } => unfinished_since,
        Turn::Taken(sweeper) => return Err(LettersError::Taken(sweeper)),
    };
    let ours = stop.child_token();
    let worked = async {
        let leftovers = match unfinished_since {
            Some(since) => Leftovers::of(store.acted_letters(since).await?),
            None => Leftovers::none(),
        };
        work(leftovers, ours.clone()).await
    };
    let worked = tokio::select! {
        worked = worked => worked,
        never = keep(store, queue, owner, &ours) => match never {},
    };
    let left = worked.as_ref().map_or(Left::Something, |(_, left)| *left);
    if let Err(error) = store.end_sweep(queue, owner, left).await {
        tracing::debug!(%error, "the turn was not given up; it is free in ten seconds");
    }
    worked.map(|(done, _)| done)
}

/// Keeps the turn for as long as it is polled. Lost, the work is stopped in order: somebody took this process for dead.
async fn keep(store: &Store, queue: &str, owner: &str, ours: &CancellationToken) -> std::convert::Infallible {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match store.beat_sweep(queue, owner).await {
            Ok(true) => {}
            Ok(false) => ours.cancel(),
            Err(error) => tracing::debug!(%error, "the turn was not kept; trying again"),
        }
    }
}
