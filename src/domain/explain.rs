//! What became of an event, why, and what would change it: the ledger's row read aloud, as data.
//!
//! Called by `herald explain` and the page, which only print it. Pure: rows, letters, settings and now go in, sentences come
//! out. Every event has an answer here, also one that waits, that a worker has in hand, or that nobody knows.

mod next;
mod why;

use std::time::Duration;

use serde::Serialize;

use super::{
    ledger::{AttemptRecord, Entry, State, TargetRecord},
    outcome::Provider,
    retry::delay_name,
};

/// Nothing stays in hand longer, and nothing that waits is late by more, when all is well.
pub const OVERDUE: i64 = 5 * 60_000;

/// Who has claimed an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// `<instance>/<start>`.
    pub owner: String,
    /// Milliseconds since the epoch.
    pub since: i64,
    /// Whether the claim holds: a dead worker's does not.
    pub living: bool,
}

/// A row of the ledger, and who is at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub entry: Entry,
    pub holder: Option<Holder>,
}

/// A dead letter without headers and body, also of one that has left the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterMark {
    pub number: i64,
    pub id: String,
    pub identity: Option<String>,
    pub session_id: Option<String>,
    pub partner_id: Option<String>,
    pub event: Option<String>,
    pub reason: String,
    pub error: String,
    pub replay: u32,
    /// Milliseconds since the epoch.
    pub failed_at: i64,
    /// How it left the queue, if it did: `replayed`, `dropped` or `removed`; and when.
    pub ended: Option<String>,
    pub ended_at: Option<i64>,
}

/// What is asked about: an event id, a recipient or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    Id(String),
    User(String),
    Session(String),
}

/// What the store knows: rows, those first seen last first, and the letters of these events, the newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    pub rows: Vec<Found>,
    pub letters: Vec<LetterMark>,
}

/// What the answer depends on beside the findings.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Milliseconds since the epoch.
    pub now: i64,
    /// Name of the events queue.
    pub events: &'a str,
    /// Name of the dead-letter queue.
    pub dead: &'a str,
    /// `retry.schedule`.
    pub schedule: &'a [Duration],
    /// `store.retention`.
    pub retention: Duration,
    /// `receipts.after`.
    pub receipts_after: Duration,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Newest first.
    pub events: Vec<Explanation>,
    /// Dead letters that the ledger has no row for.
    pub letters: Vec<LetterTold>,
    /// What it can mean that nothing is known; absent when something is.
    pub nothing: Option<String>,
}

/// The account of one event. As JSON it has the fields of the row beside its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    #[serde(flatten)]
    pub entry: Entry,
    /// Who has it in hand at this moment.
    pub in_hand: Option<Holder>,
    /// Its newest dead letter, also one that has left the queue.
    pub letter: Option<LetterMark>,
    /// How old the knowledge of the presence was when it was acted on first.
    pub presence_age_ms: Option<i64>,
    /// How old it was at the last attempt, when that was a later one.
    pub presence_age_last_ms: Option<i64>,
    /// Why it went no other way.
    pub why_not: Vec<WhyNot>,
    /// Attempts that the schedule allows.
    pub attempts_allowed: u32,
    /// Where it stands, as a sentence.
    pub verdict: String,
    /// What happens next, or what would change the outcome.
    pub next: Option<String>,
    /// What else should be known.
    pub notes: Vec<String>,
}

/// Why an event did not go through one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyNot {
    pub provider: Provider,
    pub because: String,
}

/// The account of a letter whose event the ledger does not know: the broker or somebody else put it there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterTold {
    #[serde(flatten)]
    pub letter: LetterMark,
    pub verdict: String,
    pub next: String,
}

impl Find {
    /// Names what is asked about, as in "nothing is known of the user `u2`".
    pub fn name(&self) -> String {
        match self {
            Find::Id(id) => format!("the id `{id}`"),
            Find::User(user) => format!("the user `{user}`"),
            Find::Session(session) => format!("the session `{session}`"),
        }
    }
}

/// Answers `question` from what the store found.
pub fn answer(question: &Find, findings: Findings, about: &About<'_>) -> Answer {
    let Findings { rows, letters } = findings;
    let unclaimed = |letter: &LetterMark| !rows.iter().any(|row| belongs(letter, &row.entry));
    let strays: Vec<LetterTold> = match question {
        Find::Id(_) => letters.iter().filter(|letter| unclaimed(letter)).map(|l| next::stray(l, about)).collect(),
        Find::User(_) | Find::Session(_) => Vec::new(),
    };
    let events: Vec<Explanation> = rows.into_iter().map(|row| explain(row, &letters, about)).collect();
    let nothing = (events.is_empty() && strays.is_empty()).then(|| nothing(question, about));
    Answer { events, letters: strays, nothing }
}

/// Explains one row; `letters` are those of this and other events, the newest first.
pub fn explain(found: Found, letters: &[LetterMark], about: &About<'_>) -> Explanation {
    let Found { entry, holder } = found;
    // What lies in the queue can be replayed; of what left it the newest tells most.
    let ours = || letters.iter().filter(|letter| belongs(letter, &entry));
    let letter = ours().find(|letter| letter.ended.is_none()).or_else(|| ours().next()).cloned();
    let ages = presence_ages(&entry);
    let facts = next::Facts { entry: &entry, holder: holder.as_ref(), letter: letter.as_ref(), about };
    Explanation {
        presence_age_ms: ages.first().copied(),
        presence_age_last_ms: ages.get(1).copied(),
        why_not: why::why_not(&entry),
        attempts_allowed: allowed(about.schedule),
        verdict: facts.verdict(),
        next: facts.next(),
        notes: facts.notes(),
        in_hand: holder.filter(|holder| holder.living),
        letter,
        entry,
    }
}

impl Explanation {
    /// Returns what is known of an attempt's target: its token's last characters, its receipt.
    pub fn target(&self, attempt: &AttemptRecord) -> Option<&TargetRecord> {
        self.entry.targets.get(&attempt.target).map(AsRef::as_ref)
    }
}

/// Returns how many attempts `schedule` allows: the first, and one after each delay.
fn allowed(schedule: &[Duration]) -> u32 {
    u32::try_from(schedule.len()).unwrap_or(u32::MAX).saturating_add(1)
}

/// A letter that the broker put into the queue has no identity; its id and where it went to must do then.
fn belongs(letter: &LetterMark, entry: &Entry) -> bool {
    match &letter.identity {
        Some(identity) => *identity == entry.identity,
        None => {
            letter.id == entry.event_id
                && letter.session_id == entry.session_id
                && letter.partner_id == entry.partner_id
        }
    }
}

/// Returns how old the knowledge of the presence was when it was acted on: first, and last when that was another attempt.
fn presence_ages(entry: &Entry) -> Vec<i64> {
    let Some(known_at) = entry.evidence.presence_at else { return Vec::new() };
    let used = |attempt: &&AttemptRecord| attempt.at >= known_at;
    let mut uses = entry.attempts.iter().filter(used);
    match (uses.next(), uses.next_back()) {
        (Some(first), Some(last)) if last.attempt > first.attempt => vec![first.at - known_at, last.at - known_at],
        (Some(first), _) => vec![first.at - known_at],
        // Decided without a send.
        (None, _) if entry.state == State::Skipped => vec![(entry.updated_at - known_at).max(0)],
        (None, _) => Vec::new(),
    }
}

fn nothing(question: &Find, about: &About<'_>) -> String {
    let (events, retention) = (about.events, delay_name(about.retention));
    format!(
        "nothing in the ledger for {}: it was never received (was it sent, and with this very {}?), or it lies in {events} (or, put \
         off, in a retry queue) and no worker has begun with it yet (`herald status`), or it ended more than {retention} ago (store.retention)",
        question.name(),
        match question {
            Find::Id(_) => "id",
            Find::User(_) => "partnerId",
            Find::Session(_) => "sessionId",
        }
    )
}

#[cfg(test)]
mod tests;
