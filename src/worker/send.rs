//! The fifth stop: one send per open target, side by side, and what came of each.
//!
//! Called by `process`. Sends only to targets without an accepted outcome; records every attempt. Never decides what happens
//! next, and never lets one provider wait for the other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::{
    Counted, Worker, clock,
    gather::{Known, token_gone},
    tokens::Source,
};
use crate::{
    broker::Broker,
    domain::{
        catalogue::Text,
        event::Event,
        judge::{apply, provider_of},
        ledger::{AttemptRecord, Entry, TargetKey, Ticket},
        outcome::{FailureKind, HoldCause, Outcome, Provider},
        payload,
    },
    provider::{ably::Publish, expo::Push},
    trace::Span,
};

/// What came of the sends of one attempt.
pub(super) struct Sent {
    pub outcomes: BTreeMap<TargetKey, Outcome>,
    /// Tickets of accepted pushes, to be stored with the ledger row.
    pub tickets: Vec<Ticket>,
}

impl<B: Broker> Worker<B> {
    /// Sends to every open target and writes outcomes and attempts into the row.
    pub(super) async fn send(&self, event: &Event, text: &Text, entry: &mut Entry, known: &mut Known) -> Sent {
        for (key, record) in &mut entry.targets {
            if provider_of(key) == Provider::Expo && !record.accepted && !known.tokens.contains_key(key) {
                token_gone(record);
            }
        }
        let unknown_repeats = self.policy.unknown_repeats;
        let open = entry.targets.iter().filter(|(_, r)| !r.accepted && !r.closed && r.unknown <= unknown_repeats);
        let left_ms = entry.expires_at.saturating_sub(clock::now_ms()).max(0).unsigned_abs();
        let until = Instant::now().checked_add(Duration::from_millis(left_ms));
        let sends = open.map(|(key, _)| async {
            let span = Span::stop("send");
            let (at, started) = (clock::now_ms(), Instant::now());
            let outcome = match known.tokens.get(key) {
                Some(token) => span.run(self.push(event, text, token, left_ms, until)).await,
                None => span.run(self.publish(event, until)).await,
            };
            span.sent(key, &outcome);
            (key.clone(), at, started.elapsed(), outcome)
        });
        let results = join_all(sends).await;

        let receipts_after = i64::try_from(self.settings.receipts_after.as_millis()).unwrap_or(i64::MAX);
        let mut sent = Sent { outcomes: BTreeMap::new(), tickets: Vec::new() };
        let mut attempts = Vec::with_capacity(results.len());
        for (key, at, took, outcome) in results {
            let provider = provider_of(&key);
            metrics::counter!("herald_attempts_total", "provider" => provider.as_str(), "result" => outcome_name(&outcome))
                .increment(1);
            apply(entry.targets.entry(key.clone()).or_default(), provider, &outcome);
            if let (Some(token), Some(user)) = (known.tokens.get(&key), &event.partner_id) {
                match &outcome {
                    Outcome::Accepted { provider_id } => {
                        self.device_seen(Source::Ticket, false);
                        sent.tickets.extend(provider_id.clone().map(|id| Ticket {
                            id,
                            identity: entry.identity.clone(),
                            target: key.clone(),
                            user_id: user.clone(),
                            token: token.clone(),
                            sent_at: at,
                            due_at: at.saturating_add(receipts_after),
                        }));
                    }
                    Outcome::Failed(failure) if failure.kind == FailureKind::Unregistered => {
                        self.device_seen(Source::Ticket, true);
                        // A failure costs nothing: the next send meets the same answer.
                        let _ = self.clear_token(user, token).await;
                    }
                    Outcome::Failed(_) | Outcome::Held(_) => {}
                }
            }
            attempts.push(attempt_record(entry.attempt, &key, at, took, &outcome));
            sent.outcomes.insert(key, outcome);
        }
        entry.add_attempts(attempts);
        sent
    }

    async fn publish(&self, event: &Event, until: Option<Instant>) -> Outcome {
        if self.crowded(Provider::Ably) {
            return Outcome::Held(HoldCause::Backlog);
        }
        let _waiting = Counted::new(self.waiting(Provider::Ably));
        let publish = Publish {
            channel: payload::channel(&self.settings.session_channel, &event.session_id),
            name: event.name.clone(),
            data: payload::published_data(event),
            id: payload::message_id(event),
            until,
        };
        match self.ably.publish(publish).await {
            Ok(id) => Outcome::Accepted { provider_id: Some(id) },
            Err(refusal) => refusal.into(),
        }
    }

    async fn push(&self, event: &Event, text: &Text, token: &str, left_ms: u64, until: Option<Instant>) -> Outcome {
        if self.crowded(Provider::Expo) {
            return Outcome::Held(HoldCause::Backlog);
        }
        let _waiting = Counted::new(self.waiting(Provider::Expo));
        let push = Push {
            token: token.to_owned(),
            title: text.title.clone(),
            body: text.body.clone(),
            data: payload::pushed_data(event, text),
            collapse_id: payload::collapse_id(event),
            // Rounded up: a ttl of 0 may never reach a dozing phone.
            ttl_seconds: left_ms.div_ceil(1000).max(1),
            channel_id: text.channel_id.clone(),
            priority: text.priority.clone(),
            until,
        };
        match self.expo.send(push).await {
            Ok(ticket) => Outcome::Accepted { provider_id: ticket },
            Err(refusal) => refusal.into(),
        }
    }
}

fn attempt_record(attempt: u32, key: &str, at: i64, took: std::time::Duration, outcome: &Outcome) -> AttemptRecord {
    let (provider_id, failure, held) = match outcome {
        Outcome::Accepted { provider_id } => (provider_id.clone(), None, None),
        Outcome::Failed(failure) => (None, Some(failure.clone()), None),
        Outcome::Held(cause) => (None, None, Some(*cause)),
    };
    AttemptRecord {
        at,
        attempt,
        target: key.to_owned(),
        provider: provider_of(key),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        outcome: outcome_name(outcome).to_owned(),
        provider_id,
        failure,
        held,
    }
}

/// Returns an outcome as it stands in the ledger and in metric labels.
fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Failed(failure) => failure.kind.as_str(),
        Outcome::Held(_) => "held",
    }
}
