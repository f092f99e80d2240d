//! Replays and drops: exactly what a preview has picked, in the background, one at a time.
//!
//! Called by the API. A preview is good for ten minutes and once. How letters are found again in the queue, and how nothing is
//! lost, is `letters`' business.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, sweep::Pace},
    domain::{
        action::{BEGUN, Deed},
        redact,
    },
    letters::{Action, Done, LettersError, Picked, carry_out, this_process},
    store::{NewAction, StoreError},
};

use super::Desk;

/// Previews kept at once; the oldest goes.
const PREVIEWS: usize = 8;
/// How long a preview may be acted on.
const VALID: Duration = Duration::from_secs(600);
/// How often, and after which pause, a queue that somebody else walks is tried again.
const TURNS: (u32, Duration) = (10, Duration::from_secs(1));

/// A replay or drop, as far as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// `replay` or `drop`.
    pub action: &'static str,
    pub who: String,
    /// Milliseconds since the epoch.
    pub started: i64,
    pub wanted: u64,
    pub done: u64,
    /// Letters looked at, of so many that lay in the queue at the start.
    pub looked: u64,
    pub total: u64,
    pub state: State,
    pub ended: Option<i64>,
    pub error: Option<String>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Done,
    /// Told to stop before the end: the rest lies in the queue as before.
    Stopped,
    Failed,
}

/// Why nothing is begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    #[error("there is no such preview, or it is older than ten minutes")]
    NoPreview,
    #[error("a {0} is running; one at a time")]
    Running(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A preview that may be acted on.
pub(super) struct Kept {
    pub token: String,
    pub made: Instant,
    pub action: Action,
    pub picked: Picked,
    /// What stands in the record.
    pub parameters: Value,
}

/// Previews, and the sweep that runs or ran last.
#[derive(Default)]
pub struct Sweeps(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    previews: VecDeque<Kept>,
    progress: Option<Arc<Mutex<Progress>>>,
    stop: CancellationToken,
}

impl Sweeps {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// Keeps a preview.
    pub(super) fn keep(&self, kept: Kept) {
        let mut inner = self.lock();
        if inner.previews.len() == PREVIEWS {
            inner.previews.pop_front();
        }
        inner.previews.push_back(kept);
    }
}

impl Inner {
    /// Takes a preview of `verb` that may still be acted on; once only, and only while nothing runs.
    fn take(&mut self, token: &str, verb: &str) -> Result<Kept, NotBegun> {
        if let Some(progress) = &self.progress {
            let progress = lock(progress);
            if progress.state == State::Running {
                return Err(NotBegun::Running(progress.action));
            }
        }
        self.previews.retain(|kept| kept.made.elapsed() < VALID);
        let at = self.previews.iter().position(|kept| kept.token == token && name(kept.action) == verb);
        at.and_then(|at| self.previews.remove(at)).ok_or(NotBegun::NoPreview)
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().expect("no panic while the lock is held")
}

fn name(action: Action) -> &'static str {
    match action {
        Action::Replay { .. } => "replay",
        Action::Drop => "drop",
    }
}

impl<B: Broker> Desk<B> {
    /// Begins what a preview of `verb` said, at most `rate` letters a second, and returns how it stands.
    pub async fn begin(&self, token: &str, verb: &str, rate: Option<u32>, who: &str) -> Result<Progress, NotBegun> {
        let total = self.dead_letters();
        let (Kept { action, picked, mut parameters, .. }, progress, shared, pace) = {
            let mut inner = self.0.sweeps.lock();
            let kept = inner.take(token, verb)?;
            let progress = Progress {
                action: name(kept.action),
                who: who.to_owned(),
                started: Timestamp::now().as_millisecond(),
                wanted: kept.picked.count(),
                done: 0,
                looked: 0,
                total,
                state: State::Running,
                ended: None,
                error: None,
            };
            let shared = Arc::new(Mutex::new(progress.clone()));
            inner.progress = Some(shared.clone());
            inner.stop = self.0.stop.child_token();
            (kept, progress, shared, Pace { per_second: rate, stop: inner.stop.clone() })
        };
        parameters["rate"] = rate.into();
        let deed = if verb == "replay" { Deed::Replay } else { Deed::Drop };
        let (desk, who) = (self.clone(), who.to_owned());
        let (begun, noted) = oneshot::channel();
        // On its own from here: whoever asked may go away.
        self.0.tracker.spawn(async move {
            let noted = NewAction { who: &who, what: deed, why: None, parameters, affected: None, outcome: BEGUN };
            // Nothing is done that does not stand in the record.
            match desk.0.store.note_action(&noted).await {
                Ok(number) => {
                    let _ = begun.send(Ok(()));
                    desk.walk(&shared, picked, action, &pace, number).await;
                }
                Err(error) => {
                    let mut failed = lock(&shared);
                    (failed.state, failed.error) = (State::Failed, Some(redact(&error.to_string())));
                    failed.ended = Some(Timestamp::now().as_millisecond());
                    let _ = begun.send(Err(error));
                }
            }
        });
        noted.await.unwrap_or_else(|_| Err(StoreError::Unavailable("herald is stopping".to_owned())))?;
        Ok(progress)
    }

    /// Tells the sweep that runs to stop after what it has in hand.
    pub fn stop_sweep(&self) {
        self.0.sweeps.lock().stop.cancel();
    }

    /// Returns how the sweep stands that runs or ran last.
    pub fn progress(&self) -> Option<Progress> {
        self.0.sweeps.lock().progress.as_ref().map(|progress| lock(progress).clone())
    }

    async fn walk(&self, shared: &Mutex<Progress>, picked: Picked, action: Action, pace: &Pace, number: i64) {
        let walked = self.take_turn(shared, picked, action, pace).await;
        let mut ended = lock(shared).clone();
        ended.ended = Some(Timestamp::now().as_millisecond());
        (ended.state, ended.error) = match &walked {
            Ok(Done { interrupted: true, .. }) => (State::Stopped, Some("it was told to stop".to_owned())),
            Ok(_) => (State::Done, None),
            Err(error) => (State::Failed, Some(redact(&error.to_string()))),
        };
        if let Ok(done) = &walked {
            ended.done = done.done;
        }
        let outcome = match &ended.error {
            None => "done".to_owned(),
            Some(error) => format!("ended before the end: {error}"),
        };
        tracing::info!(
            action = ended.action,
            who = ended.who,
            wanted = ended.wanted,
            done = ended.done,
            outcome,
            "dead letters were handled on an operator's word"
        );
        if let Err(error) = self.0.store.end_action(number, Some(ended.done), &outcome).await {
            tracing::warn!(%error, "how a replay or drop ended could not be recorded");
        }
        *lock(shared) = ended;
    }

    /// Walks the queue as soon as nobody else does.
    async fn take_turn(
        &self,
        shared: &Mutex<Progress>,
        picked: Picked,
        action: Action,
        pace: &Pace,
    ) -> Result<Done, LettersError> {
        let (turns, pause) = TURNS;
        let owner = this_process("the page of herald");
        for _ in 1..turns {
            match self.walk_once(shared, picked.clone(), action, pace, &owner).await {
                Err(LettersError::Taken(_)) if !pace.stop.is_cancelled() => tokio::time::sleep(pause).await,
                walked => return walked,
            }
        }
        self.walk_once(shared, picked, action, pace, &owner).await
    }

    async fn walk_once(
        &self,
        shared: &Mutex<Progress>,
        picked: Picked,
        action: Action,
        pace: &Pace,
        owner: &str,
    ) -> Result<Done, LettersError> {
        let place = (&self.0.broker, &self.0.store, &self.0.topology);
        let seen = |chosen: bool| {
            let mut progress = lock(shared);
            progress.looked += 1;
            progress.done += u64::from(chosen);
        };
        carry_out(place, owner, picked, action, pace, seen).await
    }

    /// Returns how many letters lie in the queue, as far as was seen last.
    fn dead_letters(&self) -> u64 {
        let dead = self.0.topology.dead();
        let queues = self.0.board.last().sample.into_iter().flat_map(|sample| sample.queues);
        queues.filter(|queue| queue.name == dead).find_map(|queue| queue.ready).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(token: &str, action: Action) -> Kept {
        Kept { token: token.to_owned(), made: Instant::now(), action, picked: Picked::default(), parameters: json!({}) }
    }

    fn progress(state: State) -> Progress {
        Progress {
            action: "drop",
            who: "page".into(),
            started: 0,
            wanted: 1,
            done: 0,
            looked: 0,
            total: 1,
            state,
            ended: None,
            error: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preview_counts_once_for_its_own_verb_and_not_for_long() {
        let replay = Action::Replay { ignore_expiry: false };
        let sweeps = Sweeps::default();
        sweeps.keep(kept("a", replay));
        assert!(matches!(sweeps.lock().take("a", "drop"), Err(NotBegun::NoPreview)), "it said that it would replay");
        assert!(sweeps.lock().take("a", "replay").is_ok());
        assert!(matches!(sweeps.lock().take("a", "replay"), Err(NotBegun::NoPreview)), "once only");
        sweeps.keep(kept("b", Action::Drop));
        tokio::time::advance(VALID).await;
        assert!(matches!(sweeps.lock().take("b", "drop"), Err(NotBegun::NoPreview)), "too old");
        for number in 0..=PREVIEWS {
            sweeps.keep(kept(&number.to_string(), Action::Drop));
        }
        assert!(sweeps.lock().take("0", "drop").is_err() && sweeps.lock().take("1", "drop").is_ok(), "the oldest went");
    }

    #[test]
    fn one_sweep_at_a_time() {
        let sweeps = Sweeps::default();
        for (state, free) in
            [(State::Running, false), (State::Done, true), (State::Failed, true), (State::Stopped, true)]
        {
            sweeps.keep(kept("a", Action::Drop));
            sweeps.lock().progress = Some(Arc::new(Mutex::new(progress(state))));
            assert_eq!(sweeps.lock().take("a", "drop").is_ok(), free, "{state:?}");
        }
    }
}
