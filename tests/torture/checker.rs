//! The total-queue checker: what became of every confirmed event, from three records that know nothing of each other.
//!
//! The publisher's confirms, the sandbox's effects, and the ledger with the dead-letter queue. Pure: given the records it returns
//! a verdict. An event is lost when it was confirmed and no record shows an end for it, or the end that the ledger claims did
//! not happen; what nobody sent is unexpected.

use std::collections::{HashMap, HashSet};

use herald::sandbox::{Effect, Provider};

use crate::publisher::{Kind, Script, Sent};

/// What the ledger says of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub state: String,
    pub reason: String,
    pub via: String,
    pub attempt: i64,
    /// Times the row was claimed or written; 2 for what went straight through.
    pub version: i64,
}

/// The three records of a round.
pub struct Records {
    pub sent: Vec<Sent>,
    /// In the order of their first time.
    pub effects: Vec<Effect>,
    pub ledger: HashMap<String, Row>,
    /// Event ids in the dead-letter queue, with the reason on the letter; one for each letter.
    pub letters: Vec<(String, String)>,
    /// Messages still in queues, apart from dead letters.
    pub queued: u64,
    /// What the ledger's own books say: received, and whether they close.
    pub received: i64,
    pub closed: bool,
    /// Events that may have been delivered more than once by the broker: they do not count for the order.
    pub redelivered: HashSet<u64>,
    /// How many messages an operator destroyed, and the events they may have been.
    pub destroyed: u64,
    pub destroyable: u64,
}

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub confirmed: u64,
    pub lost: Vec<String>,
    pub unexpected: Vec<String>,
    pub destroyed: u64,
    pub repeats_ably: u64,
    pub repeats_expo: u64,
    /// Events that reached both the channel and the phone although one of them was meant.
    pub crossed: u64,
    pub dead: HashMap<String, u64>,
    /// Same event twice in the dead-letter queue.
    pub twice_dead: u64,
    pub out_of_order: Vec<String>,
    pub ordered: u64,
    /// Why the books do not close.
    pub books: Vec<String>,
}

impl Verdict {
    /// Tells what is wrong, whatever the fault was.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (what, list) in [
            ("lost", &self.lost),
            ("unexpected", &self.unexpected),
            ("out of order", &self.out_of_order),
            ("books", &self.books),
        ] {
            if !list.is_empty() {
                wrong.push(format!("{what}: {} ({})", list.len(), list[..list.len().min(5)].join("; ")));
            }
        }
        wrong
    }

    pub fn dead_total(&self) -> u64 {
        self.dead.values().sum()
    }
}

/// What happened to one event at the providers: how often on the channel and on the phone.
#[derive(Default, Clone, Copy)]
struct Seen {
    ably: u64,
    expo: u64,
    /// Position among the first effects.
    first: usize,
}

/// Compares the records.
pub fn check(script: &Script, records: &Records, one_replica: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    for (position, effect) in records.effects.iter().enumerate() {
        let Some(n) =
            script.number(&effect.event).filter(|n| records.sent.get(*n as usize).is_some_and(|s| s.publishes > 0))
        else {
            verdict.unexpected.push(format!("{} at {}", effect.event, effect.target));
            continue;
        };
        let session = script.session(n);
        let expected = match effect.provider {
            Provider::Ably => format!("beheard:session:{}", script.session_id(session)),
            Provider::Expo => script.token(session),
        };
        if *effect.target != *expected {
            verdict.unexpected.push(format!("{} went to {} instead of {expected}", effect.event, effect.target));
        }
        let seen = seen.entry(n).or_insert(Seen { first: position, ..Seen::default() });
        match effect.provider {
            Provider::Ably => {
                seen.ably += effect.count;
                verdict.repeats_ably += effect.count - 1;
            }
            Provider::Expo => {
                seen.expo += effect.count;
                verdict.repeats_expo += effect.count - 1;
            }
        }
    }
    let mut letters: HashMap<&str, u64> = HashMap::new();
    for (id, reason) in &records.letters {
        let first = letters.entry(id).or_default();
        verdict.twice_dead += u64::from(*first > 0);
        *first += 1;
        *verdict.dead.entry(reason.clone()).or_default() += 1;
        if script.number(id).is_none() {
            verdict.unexpected.push(format!("a letter of {id}"));
        }
    }
    for id in records.ledger.keys() {
        if script.number(id).is_none_or(|n| records.sent.get(n as usize).is_none_or(|sent| sent.publishes == 0)) {
            verdict.unexpected.push(format!("a row of {id}"));
        }
    }
    let mut missing = Vec::new();
    for (n, sent) in records.sent.iter().enumerate().map(|(n, sent)| (n as u64, sent)) {
        let id = script.id(n);
        let arrived = seen.get(&n).copied().unwrap_or_default();
        let row = records.ledger.get(&id);
        let end = end(row, arrived, letters.get(id.as_str()).copied().unwrap_or_default());
        if script.kind(n) != Kind::Always && arrived.ably > 0 && arrived.expo > 0 {
            verdict.crossed += 1;
        }
        if !sent.confirmed {
            continue;
        }
        verdict.confirmed += 1;
        if let Err(why) = end {
            // Only what had not ended when the operator acted, and nothing that the ledger says was delivered.
            let unfinished = row.is_none_or(|row| row.state == "waiting");
            if unfinished && n < records.destroyable {
                missing.push(format!("{id}: {why}"));
            } else {
                verdict.lost.push(format!("{id}: {why}"));
            }
        }
    }
    verdict.destroyed = (missing.len() as u64).min(records.destroyed);
    verdict.lost.extend(missing.into_iter().skip(records.destroyed as usize));
    books(&mut verdict, records);
    if one_replica {
        order(&mut verdict, script, records, &seen);
    }
    verdict
}

/// Tells whether an event has ended as the ledger says.
fn end(row: Option<&Row>, arrived: Seen, letters: u64) -> Result<(), String> {
    let Some(row) = row else { return Err("no row in the ledger".into()) };
    match (row.state.as_str(), row.via.as_str()) {
        ("done", "realtime") if arrived.ably > 0 => Ok(()),
        ("done", "push") if arrived.expo > 0 => Ok(()),
        ("done", "both") if arrived.ably > 0 && arrived.expo > 0 => Ok(()),
        ("dead", _) if letters > 0 => Ok(()),
        ("dead", _) => Err(format!("dead ({}) without a letter", row.reason)),
        ("done", via) => Err(format!("done via {via}, and it never arrived there")),
        // Every session has a user with a good token.
        ("skipped", _) => Err(format!("skipped: {}", row.reason)),
        (state, _) => Err(format!("still {state} ({}), attempt {}", row.reason, row.attempt)),
    }
}

fn books(verdict: &mut Verdict, records: &Records) {
    let rows = records.ledger.len() as i64;
    if !records.closed || records.received != rows {
        let (received, closed) = (records.received, records.closed);
        verdict.books.push(format!("{received} received, {rows} rows, closed: {closed}"));
    }
    if records.queued > 0 {
        verdict.books.push(format!("{} messages are still in queues", records.queued));
    }
    let dead = records.ledger.values().filter(|row| row.state == "dead").count() as u64;
    let letters = records.letters.len() as u64 - verdict.twice_dead;
    if dead != letters {
        verdict.books.push(format!("{dead} dead rows, letters of {letters} events"));
    }
}

/// First effects of a session's events come in the order of publishing, among those that went straight through.
fn order(verdict: &mut Verdict, script: &Script, records: &Records, seen: &HashMap<u64, Seen>) {
    let mut last: HashMap<u64, (u64, usize)> = HashMap::new();
    for (n, sent) in records.sent.iter().enumerate().map(|(n, sent)| (n as u64, sent)) {
        let straight = records.ledger.get(&script.id(n)).is_some_and(|row| row.version == 2 && row.attempt == 0);
        let Some(seen) = seen.get(&n).filter(|_| straight) else { continue };
        if sent.publishes != 1 || records.redelivered.contains(&n) {
            continue;
        }
        verdict.ordered += 1;
        if let Some((before, position)) = last.insert(script.session(n), (n, seen.first))
            && position > seen.first
        {
            verdict.out_of_order.push(format!("{} came before {}", script.id(n), script.id(before)));
        }
    }
}
