//! The dead-letter index held against the queue, and what it keeps of one letter.
//!
//! Called by `settle` for each letter it puts into the queue, and on the worker's tracker to see what others did to the queue.
//! Looking never loses a letter: the queue is read by rotation, one sweep at a time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{Worker, clock};
use crate::{
    broker::{
        Broker, Delivery, Destination, Message,
        headers::headers_json,
        marks::Marks,
        sweep::{Pace, Verdict, sweep_and},
    },
    domain::{
        event::{Event, MAX_BODY, decode, unreadable_identity},
        ledger::{Entry, Letter},
    },
    letters::{self, Leftovers, LettersError},
    store::{Left, LetterFilter},
};

const RECONCILE: Duration = Duration::from_secs(60);

impl<B: Broker> Worker<B> {
    /// Compares the index with the dead-letter queue and, when they differ twice in a row, reads the queue once.
    pub(super) async fn reconcile_letters(self: Arc<Self>) {
        let mut differed = true;
        loop {
            let differ = tokio::select! {
                () = self.state.stop.cancelled() => return,
                differ = self.letters_differ() => differ,
            };
            match differ {
                Ok(true) if differed => {
                    if let Err(error) = self.read_letters().await
                        && !matches!(error, LettersError::Taken(_))
                    {
                        tracing::warn!(%error, "the dead-letter queue could not be read into the index; it is tried again");
                    }
                    differed = false;
                }
                Ok(now) => differed = now,
                Err(error) => tracing::debug!(%error, "dead letters could not be counted"),
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = tokio::time::sleep(RECONCILE) => {}
            }
        }
    }

    async fn letters_differ(&self) -> anyhow::Result<bool> {
        let depth = self.broker.depth(&self.topology.dead()).await?;
        Ok(depth.ready != u64::try_from(self.store.letter_count(&LetterFilter::default()).await?).unwrap_or(0))
    }

    /// Reads the dead-letter queue once: letters the index does not know are added, those that are gone end as removed. Whoever else
    /// walks the queue meanwhile goes first: then it differs for that reason.
    async fn read_letters(&self) -> Result<(), LettersError> {
        let (dead, owner) = (self.topology.dead(), format!("worker {}", self.store.owner()));
        letters::alone(&self.store, &dead, &owner, &self.state.stop, async |leftovers, stop| {
            self.read_queue(&dead, leftovers, stop).await
        })
        .await
    }

    async fn read_queue(
        &self,
        dead: &str,
        mut leftovers: Leftovers,
        stop: CancellationToken,
    ) -> Result<((), Left), LettersError> {
        let mut known: HashMap<String, Vec<i64>> = HashMap::new();
        let mut page = LetterFilter::default();
        loop {
            let letters = self.store.letters(&page).await?;
            let Some(last) = letters.last() else { break };
            page.below = Some(last.number);
            letters.iter().for_each(|letter| known.entry(key(letter)).or_default().push(letter.number));
        }
        let mut unknown = Vec::new();
        let decide = |delivery: &Delivery| {
            if leftovers.ends(&delivery.message) {
                return (Verdict::Drop, ());
            }
            let mut marks = found_marks(&delivery.message);
            if known.get_mut(&key(&found_letter(&delivery.message, &marks))).and_then(Vec::pop).is_some() {
                return (Verdict::Keep, ());
            }
            // Marked as ours are, so that it is known again and stays as long as they do.
            marks.failed_at.get_or_insert_with(clock::now);
            let mut marked = delivery.message.copy().message;
            marks.write(&mut marked);
            unknown.push(found_letter(&marked, &marks));
            (Verdict::Replace(Destination::Queue(dead.to_owned()), marked), ())
        };
        let pace = Pace { per_second: None, stop: stop.clone() };
        let settle = |_| async { Ok::<(), LettersError>(()) }.boxed();
        sweep_and(&self.broker, dead, &pace, decide, settle).await?;
        if stop.is_cancelled() {
            // What was not seen is not gone.
            self.store.add_letters(unknown).await?;
            return Ok(((), Left::AsBefore));
        }
        let gone: Vec<i64> = known.into_values().flatten().collect();
        if !unknown.is_empty() || !gone.is_empty() {
            tracing::warn!(
                added = unknown.len(),
                removed = gone.len(),
                "the dead-letter queue was changed by others; the index follows"
            );
        }
        self.store.add_letters(unknown).await?;
        self.store.end_letters(&gone, "removed").await?;
        Ok(((), Left::Nothing))
    }
}

/// Returns what the dead-letter index keeps of `message`.
pub(super) fn index_letter(message: &Message, marks: &Marks, entry: Option<&Entry>) -> Letter {
    let kept = &message.body[..message.body.len().min(MAX_BODY)];
    // What a producer wrote into headers may hold anything, and PostgreSQL refuses NUL.
    let clean = |text: &str| text.replace(|c: char| c.is_control(), " ");
    let text = |text: &Option<String>| clean(text.as_deref().unwrap_or_default());
    Letter {
        number: 0,
        id: text(&marks.id),
        identity: entry.map(|entry| entry.identity.clone()),
        session_id: entry.and_then(|entry| entry.session_id.clone()),
        partner_id: entry.and_then(|entry| entry.partner_id.clone()),
        event: entry.and_then(|entry| entry.event.clone()),
        reason: text(&marks.reason),
        error: text(&marks.error),
        route: marks.route.as_deref().map(clean),
        attempt: marks.attempt,
        replay: marks.replay,
        failed_at: marks.failed_at.unwrap_or_default().as_millisecond(),
        first_seen: marks.first_seen.map(|at| at.as_millisecond()),
        headers: headers_json(message),
        content_type: message.properties.content_type().as_ref().map(|text| clean(text.as_str())),
        body: BASE64_STANDARD.encode(kept),
        body_bytes: message.body.len() as i64,
    }
}

/// Names a letter so that index and queue can be compared.
fn key(letter: &Letter) -> String {
    format!("{} {} {}", letter.id, letter.failed_at, letter.replay)
}

/// Returns the marks of a letter found in the queue: herald's own, or what its body and the broker say when it was a fuse or
/// a shovel that put it there.
fn found_marks(message: &Message) -> Marks {
    let mut marks = Marks::of_letter(message);
    if marks.id.is_none() {
        let message_id = message.properties.message_id().as_ref().map(|id| id.to_string());
        // Made from the body, so that the same letter is known again.
        let unnamed = || format!("unreadable-{}", unreadable_identity(&String::from_utf8_lossy(&message.body)));
        marks.id = Some(found_event(message).map(|event| event.id).or(message_id).unwrap_or_else(unnamed));
    }
    if marks.reason.is_none() {
        marks.reason = Some("unknown_origin".into());
    }
    marks
}

/// Returns the index row of a letter found in the queue.
fn found_letter(message: &Message, marks: &Marks) -> Letter {
    let mut letter = index_letter(message, marks, None);
    if let Some(event) = found_event(message) {
        (letter.session_id, letter.partner_id) = (Some(event.session_id), event.partner_id);
        letter.event = Some(event.name);
    }
    letter
}

fn found_event(message: &Message) -> Option<Event> {
    decode(&message.body, &message.meta()).ok()
}
