//! What was asked of the sandbox and what came of it: entries, counters and effects.
//!
//! Written by the server once per request; read by tests, the demo's table and checkers. Bounded in entries and bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use serde::Serialize;

use super::{
    call::Call,
    effects::{Effect, Effects},
    entry::{Entry, Item, ItemOutcome, Kept, draft},
    lock,
    route::{Endpoint, Provider},
    settings::Settings,
};

/// Totals of one endpoint since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub requests: u64,
    pub accepted: u64,
    pub deduped: u64,
    pub refused: u64,
    pub faults: u64,
    /// Requests answered with 400 or more, or not at all.
    pub failed: u64,
    /// Most requests in the house at once.
    pub peak: u64,
    /// Requests in the house now.
    pub in_flight: u64,
}

#[derive(Debug, Default)]
struct Books {
    entries: VecDeque<Kept>,
    bytes: usize,
    last: u64,
    counts: [Count; Endpoint::ALL.len()],
    effects: Effects,
}

#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Books>);

impl Journal {
    /// Notes that `call` has come in. What is returned writes the entry, at the latest when it is dropped.
    pub fn open(self: &Arc<Self>, call: &Call, limits: &Settings) -> Open {
        let count = &mut self.books().counts[call.route.endpoint as usize];
        count.requests += 1;
        count.in_flight += 1;
        count.peak = count.peak.max(count.in_flight);
        Open {
            journal: self.clone(),
            draft: Some(draft(call)),
            endpoint: call.route.endpoint,
            max_entries: limits.journal_entries,
            max_bytes: limits.journal_bytes,
        }
    }

    /// Notes that a client or phone received the event; called where the providers accept.
    pub fn effect(&self, effect: Effect, limit: usize) {
        self.books().effects.add(effect, limit);
    }

    /// Returns up to `limit` entries after number `since`, oldest first.
    pub fn entries(&self, since: u64, provider: Option<Provider>, limit: usize) -> Vec<Entry> {
        let kept: Vec<Kept> = {
            let books = self.books();
            let oldest = books.last - books.entries.len() as u64;
            let skip = usize::try_from(since.saturating_sub(oldest)).unwrap_or(usize::MAX);
            let wanted = books.entries.iter().skip(skip);
            wanted
                .filter(|kept| provider.is_none_or(|provider| provider == kept.entry.provider))
                .take(limit)
                .cloned()
                .collect()
        };
        // Decoded after the lock is gone: a long page must not keep requests waiting.
        kept.into_iter().map(Kept::decoded).collect()
    }

    /// Returns the number of the last entry.
    pub fn last(&self) -> u64 {
        self.books().last
    }

    pub fn counts(&self) -> BTreeMap<&'static str, Count> {
        let books = self.books();
        Endpoint::ALL.into_iter().map(|endpoint| (endpoint.name(), books.counts[endpoint as usize])).collect()
    }

    /// Returns up to `limit` effects from the position `from`, in the order in which they first happened.
    pub fn effects(&self, from: usize, limit: usize) -> Vec<Effect> {
        self.books().effects.list(from, limit)
    }

    /// Returns how many distinct effects there are, and how many happened that are not listed.
    pub fn effect_totals(&self) -> (usize, u64) {
        self.books().effects.totals()
    }

    /// Forgets entries, counters and effects; numbers go on.
    pub fn reset(&self) {
        let mut books = self.books();
        let in_flight = books.counts.map(|count| count.in_flight);
        *books = Books { last: books.last, ..Books::default() };
        for (count, in_flight) in books.counts.iter_mut().zip(in_flight) {
            *count = Count { in_flight, peak: in_flight, ..Count::default() };
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.0)
    }
}

/// The entry of a request that is being handled.
pub(super) struct Open {
    journal: Arc<Journal>,
    draft: Option<Kept>,
    endpoint: Endpoint,
    max_entries: usize,
    max_bytes: usize,
}

impl Open {
    pub fn fault(&mut self, label: &str) {
        if let Some(kept) = &mut self.draft {
            kept.entry.fault = Some(label.to_owned());
        }
    }

    pub fn items(&mut self, items: Vec<Item>) {
        if let Some(kept) = &mut self.draft {
            kept.entry.items = items;
        }
    }

    /// Writes the entry; `status` is `None` when the client gets no answer. The request counts as in the house until
    /// this is dropped.
    pub fn write(&mut self, status: Option<u16>) {
        let Some(mut kept) = self.draft.take() else { return };
        kept.entry.status = status;
        let mut books = self.journal.books();
        let count = &mut books.counts[self.endpoint as usize];
        count.faults += u64::from(kept.entry.fault.is_some());
        count.failed += u64::from(status.is_none_or(|status| status >= 400));
        for item in &kept.entry.items {
            match item.outcome {
                ItemOutcome::Accepted => count.accepted += 1,
                ItemOutcome::Deduped => count.deduped += 1,
                ItemOutcome::Refused => count.refused += 1,
            }
        }
        books.last += 1;
        kept.entry.number = books.last;
        books.bytes += kept.bytes();
        books.entries.push_back(kept);
        while (books.entries.len() > self.max_entries || books.bytes > self.max_bytes)
            && let Some(oldest) = books.entries.pop_front()
        {
            books.bytes -= oldest.bytes();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.write(None);
        let count = &mut self.journal.books().counts[self.endpoint as usize];
        count.in_flight = count.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn journal_of(entries: usize, bytes: usize, posts: &[&'static str]) -> Arc<Journal> {
        let journal = Arc::new(Journal::default());
        let limits = Settings { journal_entries: entries, journal_bytes: bytes, ..Settings::default() };
        for body in posts {
            let call = Call { body: Bytes::from_static(body.as_bytes()), ..Call::empty("POST", "/messages") };
            journal.open(&call, &limits).write(Some(201));
        }
        journal
    }

    fn numbers(journal: &Journal, since: u64) -> Vec<u64> {
        journal.entries(since, None, 10).iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn the_oldest_entries_make_room_and_the_counters_keep_counting() {
        let journal = journal_of(3, 1000, &["[]"; 5]);
        assert_eq!(numbers(&journal, 0), [3, 4, 5]);
        assert_eq!(numbers(&journal, 4), [5]);
        assert!(numbers(&journal, 99).is_empty());
        assert_eq!(journal.counts()["batch_publish"].requests, 5);
        let bytes = 2 * size_of::<Kept>() + 100;
        assert_eq!(numbers(&journal_of(100, bytes, &["[1]", "[2]", "[]"]), 0), [2, 3], "bytes are bounded too");
    }

    #[test]
    fn a_request_whose_client_left_is_written_as_unanswered() {
        let journal = Arc::new(Journal::default());
        let open = journal.open(&Call::empty("GET", "/time"), &Settings::default());
        assert_eq!(journal.counts()["time"].in_flight, 1);
        drop(open);
        assert_eq!(journal.entries(0, None, 10)[0].status, None);
        let count = journal.counts()["time"];
        assert_eq!((count.failed, count.in_flight, count.peak), (1, 0, 1));
    }

    #[test]
    fn credentials_are_not_kept_and_bodies_are_decoded() {
        let mut call = Call { body: Bytes::from_static(b"{\"a\":1}"), ..Call::empty("POST", "/messages") };
        call.headers.insert("authorization", "Basic c2VjcmV0".parse().unwrap());
        let journal = Arc::new(Journal::default());
        drop(journal.open(&call, &Settings::default()));
        let entry = &journal.entries(0, Some(Provider::Ably), 10)[0];
        assert_eq!(entry.headers["authorization"], "Basic");
        assert_eq!(entry.body, serde_json::json!({"a": 1}));
        journal.reset();
        assert_eq!((journal.entries(0, None, 10).len(), journal.last()), (0, 1));
    }
}
