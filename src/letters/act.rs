//! Replaying and dropping what was picked, in one walk through the queue.
//!
//! A letter's replacement is confirmed before the index hears of it, and the index before the letter is acknowledged: a
//! crash in between leaves the letter twice, never gone.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{
        Broker, Delivery, Message, Topology,
        marks::{self, Marks},
        sweep::{Pace, Verdict, sweep_and},
    },
    store::{Left, Store},
};

use super::{LettersError, Picked, alone};

/// What is done with the letters that were picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sent back to where they came from.
    Replay { ignore_expiry: bool },
    /// Deleted for good.
    Drop,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub wanted: u64,
    pub done: u64,
    /// It was told to stop before the end.
    pub interrupted: bool,
}

impl Action {
    /// Returns how the index names a letter's end.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Replay { .. } => "replayed",
            Action::Drop => "dropped",
        }
    }

    fn verdict(self, message: &Message, events: &str) -> Verdict {
        let Action::Replay { ignore_expiry } = self else { return Verdict::Drop };
        let marks = Marks::of_letter(message);
        let (to, mut replayed) = marks::replayed(message, &marks, events);
        if ignore_expiry {
            let marks = Marks { ignore_expiry: true, ..Marks::read(&replayed) };
            marks.write(&mut replayed);
        }
        Verdict::Replace(to, replayed)
    }
}

/// Walks the dead-letter queue and does `action` with each letter that was picked; `owner` names this process for others. Ends
/// with the last of them, at the end of the queue, or when `pace.stop` is cancelled. `seen` is called for each letter, with whether it is one of those.
pub async fn carry_out<B: Broker>(
    (broker, store, topology): (&B, &Store, &Topology),
    owner: &str,
    mut picked: Picked,
    action: Action,
    pace: &Pace,
    mut seen: impl FnMut(bool),
) -> Result<Done, LettersError> {
    let (queue, events, wanted) = (topology.dead(), topology.events(), picked.count());
    let done = Arc::new(AtomicU64::new(0));
    alone(store, &queue, owner, &pace.stop, async |mut leftovers, stop: CancellationToken| {
        // The rest of the queue need not be walked once all are found.
        let enough = stop.child_token();
        let decide = |delivery: &Delivery| {
            if leftovers.ends(&delivery.message) {
                return (Verdict::Drop, None);
            }
            let number = picked.take(&delivery.message);
            seen(number.is_some());
            if picked.all_taken() && !leftovers.any() {
                enough.cancel();
            }
            match number {
                Some(_) => (action.verdict(&delivery.message, &events), number),
                None => (Verdict::Keep, None),
            }
        };
        let settle = |numbers: Vec<Option<i64>>| {
            let (store, done) = (store.clone(), done.clone());
            async move {
                let numbers: Vec<i64> = numbers.into_iter().flatten().collect();
                store.end_letters(&numbers, action.as_str()).await?;
                done.fetch_add(numbers.len() as u64, Ordering::Relaxed);
                Ok::<(), LettersError>(())
            }
            .boxed()
        };
        let pace = Pace { per_second: pace.per_second, stop: enough.clone() };
        sweep_and(broker, &queue, &pace, decide, settle).await?;
        let left = if enough.is_cancelled() { Left::AsBefore } else { Left::Nothing };
        Ok(((), left))
    })
    .await?;
    let done = done.load(Ordering::Relaxed);
    Ok(Done { wanted, done, interrupted: pace.stop.is_cancelled() && done < wanted })
}
