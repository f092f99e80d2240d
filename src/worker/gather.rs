//! The third stop: the claim in the ledger, presence, and push tokens.
//!
//! Called by `process`. Asks only what can change the route. A failed look-up is never "no token", and unknown presence never
//! holds an event; a database that is away interrupts the path without using an attempt.

use std::{collections::BTreeMap, pin::pin};

use futures::future::{Either, ready, select};

use super::{Interrupted, Received, Worker, clock, distinct};
use crate::{
    broker::Broker,
    domain::{
        catalogue::RouteRule,
        event::Event,
        judge::{Life, provider_of},
        ledger::{self, ABLY_TARGET, Claim, Entry, Evidence, TargetRecord, Via},
        outcome::{Failure, FailureKind, Provider},
        payload,
        routing::{self, Decision, Presence, Recipient},
        standing::{Arrival, Standing, begin_again, standing},
    },
    provider::expo::is_push_token,
    store::StoreError,
    trace::Span,
};

/// What the ledger answered, and what it means for this delivery.
pub(super) enum Claimed {
    /// Ours to handle.
    Entry(Box<Entry>),
    /// Another worker is at it.
    Elsewhere,
    /// A copy with a higher attempt waits.
    Stale(Box<Entry>),
    /// It was delivered before.
    Repeat(Box<Entry>),
    /// The ledger refuses this very event, and says why: that concerns nobody else.
    Refused(String),
}

/// What is known of the recipient.
pub(super) struct Known {
    pub presence: Presence,
    pub recipient: Recipient,
    /// Usable push tokens by target key.
    pub tokens: BTreeMap<String, String>,
    presence_at: Option<i64>,
}

impl<B: Broker> Worker<B> {
    /// Claims the event, and beside it gathers for one that nobody has seen before, as most are: the ledger's answer takes as long
    /// as a provider's. What was gathered is there only for an event that is ours and not too late when the ledger says so; nothing may
    /// be sent before.
    pub(super) async fn claim_and_gather(
        &self,
        received: &Received,
        event: &Event,
        rule: RouteRule,
    ) -> Result<(Claimed, Option<Known>), Interrupted> {
        let claiming = pin!(self.claim(received, event, false));
        let life = Life { now: clock::now(), expires_at: self.expiry(received, event) };
        if !received.arrival().fresh || life.over() {
            return Ok((claiming.await?, None));
        }
        let gathering = pin!(self.gather(event, rule, None));
        let (claimed, gathering) = match select(claiming, gathering).await {
            Either::Left((claimed, gathering)) => (claimed?, Either::Left(gathering)),
            Either::Right((known, claiming)) => (claiming.await?, Either::Right(ready(known))),
        };
        let wanted = matches!(&claimed, Claimed::Entry(entry) if !entry.any_accepted() && !self.life(entry).over());
        Ok((claimed, if wanted { Some(gathering.await?) } else { None }))
    }

    /// Claims the event and compares the delivery with what the ledger knows of it. `alone`: nothing is handled beside it, so
    /// that it is ours also when workers died over it.
    pub(super) async fn claim(&self, received: &Received, event: &Event, alone: bool) -> Result<Claimed, Interrupted> {
        let span = Span::stop("claim");
        let claimed = self.ask_for(received, event, alone).await;
        span.claimed(&claimed);
        claimed
    }

    async fn ask_for(&self, received: &Received, event: &Event, alone: bool) -> Result<Claimed, Interrupted> {
        let arrival = received.arrival();
        let expires_at = self.expiry(received, event);
        let claim = Claim {
            identity: event.identity(),
            event_id: event.id.clone(),
            session_id: event.session_id.clone(),
            partner_id: event.partner_id.clone(),
            event: event.name.clone(),
            fingerprint: event.fingerprint(),
            attempt: arrival.attempt,
            replay: arrival.replay,
            first_seen: received.marks.first_seen.unwrap_or(received.at).as_millisecond(),
            expires_at: expires_at.as_millisecond(),
        };
        let fingerprint = claim.fingerprint.clone();
        let claimed = match alone {
            true => Box::pin(self.store.claim_alone(claim)).await,
            false => self.store.claim(claim).await,
        };
        let (mut entry, first) = match claimed {
            Ok(ledger::Claimed::Granted { entry, first }) => (entry, first),
            Ok(ledger::Claimed::Foreign { .. }) => return Ok(Claimed::Elsewhere),
            Err(StoreError::Data(error)) => return Ok(Claimed::Refused(error)),
            Err(error) => return Err(self.database_away("store.url", &error)),
        };
        if first {
            return Ok(Claimed::Entry(entry));
        }
        if arrival.fresh {
            entry.repeats += 1;
            metrics::counter!("herald_repeats_total").increment(1);
        }
        if entry.fingerprint != fingerprint {
            entry.id_reused += 1;
            metrics::counter!("herald_id_reused_total").increment(1);
            tracing::warn!(
                event.id = event.id,
                session.id = event.session_id,
                "the same id came with other content: make ids unique per event"
            );
        }
        Ok(match standing(&entry, arrival) {
            Standing::Stale => Claimed::Stale(entry),
            Standing::Repeat => Claimed::Repeat(entry),
            Standing::Continue => {
                // The copy in hand knows better than the row when its confirm outran the row.
                entry.attempt = entry.attempt.max(arrival.attempt);
                Claimed::Entry(entry)
            }
            Standing::Again => {
                begin_again(&mut entry, arrival);
                entry.attempt = arrival.attempt;
                entry.expires_at = expires_at.as_millisecond();
                Claimed::Entry(entry)
            }
        })
    }

    fn expiry(&self, received: &Received, event: &Event) -> jiff::Timestamp {
        let text = self.catalogue.text(&event.name);
        routing::expires_at(event, text, received.life_from(event), received.marks.ignore_expiry)
    }

    /// Looks up presence, and the push tokens when presence does not make them unnecessary. `entry`: its row, if it had one.
    pub(super) async fn gather(
        &self,
        event: &Event,
        rule: RouteRule,
        entry: Option<&Entry>,
    ) -> Result<Known, Interrupted> {
        let span = Span::stop("gather");
        let mut known = Known::nothing();
        let questions = routing::questions(event, rule);
        let Some(partner) = &event.partner_id else { return Ok(known) };
        if let Some(entry) = entry.filter(|entry| entry.any_accepted()) {
            // The route stands; only the tokens of targets still open are needed.
            if entry.targets.keys().any(|key| provider_of(key) == Provider::Expo) {
                self.look_up(&span, partner, &mut known).await?;
            }
            return Ok(known);
        }
        if questions.presence {
            let channel = payload::channel(&self.settings.presence_channel, &event.session_id);
            let asking = span.part("presence");
            known.presence = match asking.run(self.ably.presence(&channel, partner)).await {
                Ok(seen) if seen.members > 0 => Presence::Present { members: seen.members },
                Ok(_) => Presence::Absent,
                Err(failure) => Presence::Unknown(failure),
            };
            asking.present(&known.presence, known.presence_name());
            known.presence_at = Some(clock::now_ms());
            metrics::counter!("herald_presence_total", "result" => known.presence_name()).increment(1);
        }
        if questions.tokens && !matches!(known.presence, Presence::Present { .. }) {
            self.look_up(&span, partner, &mut known).await?;
        }
        Ok(known)
    }

    async fn look_up(&self, gathering: &Span, partner: &str, known: &mut Known) -> Result<(), Interrupted> {
        let Some(users) = &self.users else {
            known.recipient = Recipient::NoDatabase;
            return Ok(());
        };
        let span = gathering.part("tokens");
        let user = match users.look_up(partner).await {
            Ok(user) => user,
            // The database refuses this very id: no user can have it.
            Err(StoreError::Data(_)) => Default::default(),
            Err(error) => {
                span.failed(|| "database_away");
                return Err(self.database_away("users.url", &error));
            }
        };
        let all = user.tokens.len();
        let usable = distinct(user.tokens.into_iter().filter(|token| is_push_token(token)));
        known.recipient = match (user.found, user.skip_reason) {
            (false, _) => Recipient::NoUser,
            (true, Some(_)) => Recipient::OptedOut,
            (true, None) => Recipient::Tokens { usable: usable.len(), invalid: all - usable.len() },
        };
        span.found(&known.recipient);
        known.tokens = usable.into_iter().map(|token| (payload::token_target(&token), token)).collect();
        Ok(())
    }

    /// Remembers the claim of an event that leaves the path without a row, so that no other worker waits for it.
    pub(super) fn keep_claim(&self, received: &Received, interrupted: &Interrupted) {
        if let (Interrupted::DatabaseAway, Ok(event)) = (interrupted, &received.event) {
            self.unsettled().insert(event.identity());
        }
    }

    /// Raises the trouble that stops the intake. A configuration error of a running worker is waited out like an outage.
    pub(super) fn database_away(&self, key: &str, error: &StoreError) -> Interrupted {
        self.state.trouble.raise(&format!("{key}: {error}"));
        Interrupted::DatabaseAway
    }
}

impl Known {
    fn nothing() -> Self {
        let (presence, recipient) = (Presence::NotAsked, Recipient::NotAsked);
        Known { presence, recipient, tokens: BTreeMap::new(), presence_at: None }
    }

    fn presence_name(&self) -> &'static str {
        match self.presence {
            Presence::NotAsked => "not_asked",
            Presence::Present { .. } => "present",
            Presence::Absent => "absent",
            Presence::Unknown(_) => "unknown",
        }
    }

    /// Returns what the ledger keeps of this, so that `explain` can tell why.
    pub(super) fn evidence(&self, event: &Event, by: RouteRule, decision: &Decision) -> Evidence {
        let (members, failure) = match &self.presence {
            Presence::Present { members } => (Some(*members), None),
            Presence::Absent => (Some(0), None),
            Presence::Unknown(failure) => (None, Some(failure.clone())),
            Presence::NotAsked => (None, None),
        };
        let invalid_tokens = match self.recipient {
            Recipient::Tokens { invalid, .. } => invalid as u32,
            Recipient::NotAsked | Recipient::NoDatabase | Recipient::NoUser | Recipient::OptedOut => 0,
        };
        let rule = match decision {
            Decision::Send { rule, .. } | Decision::Skip { rule, .. } | Decision::AskAgain { rule } => rule.clone(),
        };
        let asked = self.recipient != Recipient::NotAsked || event.excludes_recipient();
        Evidence {
            presence: (self.presence != Presence::NotAsked).then(|| self.presence_name().to_owned()),
            presence_at: self.presence_at,
            members,
            presence_failure: failure,
            tokens: self.tokens.values().map(|token| payload::token_end(token)).collect(),
            invalid_tokens,
            rule,
            by: Some(by),
            obstacle: asked.then(|| routing::obstacle(event, &self.recipient)).flatten().map(|(_, why)| why.to_owned()),
            copied: None,
        }
    }
}

impl Entry {
    /// Sets the targets of a route decided anew; what is known of a target tried before stays.
    pub(super) fn plan(&mut self, via: Via, known: &Known) {
        let mut targets = BTreeMap::new();
        let mut add = |key: &str, token: Option<&str>| {
            let mut record = self.targets.remove(key).unwrap_or_default();
            record.token = token.map(payload::token_end);
            targets.insert(key.to_owned(), record);
        };
        if matches!(via, Via::Realtime | Via::Both) {
            add(ABLY_TARGET, None);
        }
        if matches!(via, Via::Push | Via::Both) {
            known.tokens.iter().for_each(|(key, token)| add(key, Some(token)));
        }
        self.targets = targets;
        self.route = Some(via.as_str().to_owned());
    }
}

/// Marks a push target whose token the user no longer has: there is nothing left to send to.
pub(super) fn token_gone(record: &mut TargetRecord) {
    record.closed = true;
    record.failure =
        Some(Failure::new(FailureKind::Unregistered, "token_gone", "the user no longer has this push token"));
}

impl Received {
    pub(super) fn arrival(&self) -> Arrival {
        let fresh = !self.delivery.redelivered && self.marks.is_empty();
        Arrival { attempt: self.marks.attempt, replay: self.marks.replay, fresh }
    }

    /// Returns when the event's life began: when it occurred, else the broker's timestamp, else first receipt; a replay
    /// begins a new life.
    pub(super) fn life_from(&self, event: &Event) -> jiff::Timestamp {
        let first_receipt = self.marks.first_seen.unwrap_or(self.at);
        if self.marks.replay > 0 {
            return first_receipt;
        }
        event.occurred_at.or(self.sent()).unwrap_or(first_receipt)
    }

    /// Returns the broker's timestamp.
    fn sent(&self) -> Option<jiff::Timestamp> {
        let seconds = self.delivery.message.properties.timestamp().as_ref()?;
        jiff::Timestamp::from_second(i64::try_from(*seconds).ok()?).ok()
    }

    /// Returns when it was put into the events queue, in milliseconds since the epoch, as far as the message tells; `None` for
    /// a copy, which came by another way and later.
    pub(super) fn published(&self) -> Option<i64> {
        let occurred = || self.event.as_ref().ok().and_then(|event| event.occurred_at);
        let published = self.sent().or_else(occurred).unwrap_or(self.at);
        self.marks.is_empty().then(|| published.min(self.at).as_millisecond())
    }
}
