//! The hot path in cases: what every event costs beside the waiting, without a broker, a provider or a database.
//!
//! Run by `criterion.rs` (time) and by `count.rs` (instructions, held against `baseline`). A case prepares outside and returns one run of
//! itself, the same every time; it must never skip work that a worker does, or the guard would guard nothing.

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use herald::{
    config::MESSAGES,
    domain::{
        catalogue::{Catalogue, Text},
        event::{Event, Meta, decode},
        judge::{Disposition, Life, Policy, apply, judge, provider_of},
        ledger::{ABLY_TARGET, AttemptRecord, Claim, Entry, Evidence, State, Via},
        outcome::{Failure, FailureKind, Outcome},
        payload,
        routing::{self, Decision, Presence, Recipient},
    },
    provider::coalescer::{Coalescer, Limits},
    worker::lanes::{Entered, Lanes},
};
use jiff::Timestamp;

/// One run of a case.
pub type Run = Box<dyn FnMut()>;
/// A case's name in the baseline, and what prepares it.
pub type Case = (&'static str, fn() -> Run);

pub const CASES: [Case; 4] = [("pure_path", pure_path), ("row", row), ("coalescer", coalescer), ("lanes", lanes)];

/// As long as a backend's: ids of 25 characters and one of the domain's payloads.
const BODY: &[u8] = br#"{"id":"e000000010000000000000042","sessionId":"ses0000000000000000000042","event":"session.paused","partnerId":"usr0000000000000000000042","excludeUserId":"act0000000000000000000042","data":{"pausedAt":"2026-05-01T10:20:30.456Z","reason":"I need some time before we go on"}}"#;
const MESSAGE_ID: &str = "e000000010000000000000042";
const TOKEN: &str = "ExponentPushToken[0000000000000000000042]";
const NOW: Timestamp = Timestamp::constant(1_777_630_830, 0);

/// What is decided about one event: read, then once for a recipient who is present and once for one who is not.
fn pure_path() -> Run {
    let catalogue = Catalogue::parse(MESSAGES).expect("the compiled-in catalogue is read by the tests");
    let policy = Policy { schedule: [5, 30, 120, 600].map(Duration::from_secs).to_vec(), unknown_repeats: 2 };
    Box::new(move || {
        let event = read();
        let text = catalogue.text(&event.name);
        black_box(routing::questions(&event, text.route));
        let claim = claim(&event, text);

        let decision = route(&event, text, Presence::Present { members: 1 }, Recipient::NotAsked);
        assert!(matches!(decision, Decision::Send { via: Via::Realtime, .. }), "{decision:?}");
        black_box((
            payload::channel("beheard:session:{sessionId}", &event.session_id),
            payload::published_data(&event),
            payload::message_id(&event),
        ));
        let accepted = Outcome::Accepted { provider_id: None };
        let disposition = judged(&mut Entry::first(&claim), ABLY_TARGET.to_owned(), accepted, &policy);
        assert!(matches!(disposition, Disposition::Done(Via::Realtime)), "{disposition:?}");

        let decision = route(&event, text, Presence::Absent, Recipient::Tokens { usable: 1, invalid: 0 });
        assert!(matches!(decision, Decision::Send { via: Via::Push, .. }), "{decision:?}");
        black_box((payload::pushed_data(&event, text), payload::collapse_id(&event), payload::token_end(TOKEN)));
        let failed = Outcome::Failed(Failure::new(FailureKind::Transient, "timeout", "no answer within 10 s"));
        let disposition = judged(&mut Entry::first(&claim), payload::token_target(TOKEN), failed, &policy);
        assert!(matches!(disposition, Disposition::Retry { attempts: 1, .. }), "{disposition:?}");
    })
}

fn read() -> Event {
    let meta =
        Meta { message_id: Some(MESSAGE_ID), content_type: Some("application/json"), headers: Default::default() };
    decode(black_box(BODY), &meta).expect("a well-formed event")
}

fn claim(event: &Event, text: &Text) -> Claim {
    Claim {
        identity: event.identity(),
        event_id: event.id.clone(),
        session_id: event.session_id.clone(),
        partner_id: event.partner_id.clone(),
        event: event.name.clone(),
        fingerprint: event.fingerprint(),
        attempt: 0,
        replay: 0,
        first_seen: NOW.as_millisecond(),
        expires_at: routing::expires_at(event, text, NOW, false).as_millisecond(),
    }
}

fn route(event: &Event, text: &Text, presence: Presence, recipient: Recipient) -> Decision {
    routing::route(event, text, black_box(&presence), black_box(&recipient), false)
}

/// Writes one outcome into the row and judges it.
fn judged(entry: &mut Entry, target: String, outcome: Outcome, policy: &Policy) -> Disposition {
    apply(entry.targets.entry(target.clone()).or_default(), provider_of(&target), &outcome);
    let expires_at = Timestamp::from_millisecond(entry.expires_at).unwrap_or(Timestamp::MAX);
    let outcomes = BTreeMap::from([(target, outcome)]);
    judge(&entry.targets, black_box(&outcomes), entry.attempt, Life { now: NOW, expires_at }, policy)
}

/// The row of a pushed event, as JSON for the ledger's statement.
fn row() -> Run {
    let catalogue = Catalogue::parse(MESSAGES).expect("the compiled-in catalogue is read by the tests");
    let event = read();
    let text = catalogue.text(&event.name);
    let target = payload::token_target(TOKEN);
    let provider_id = Some("0197a3e2-0000-7000-8000-000000000042".to_owned());
    let mut entry = Entry::first(&claim(&event, text));
    entry.state = State::Done;
    (entry.via, entry.route) = (Some(Via::Push), Some(Via::Push.as_str().to_owned()));
    entry.evidence = Evidence {
        presence: Some("absent".to_owned()),
        presence_at: Some(NOW.as_millisecond()),
        members: Some(0),
        tokens: vec![payload::token_end(TOKEN)],
        rule: "route presence: the recipient is not present".to_owned(),
        by: Some(text.route),
        ..Evidence::default()
    };
    let record = entry.targets.entry(target.clone()).or_default();
    record.token = Some(payload::token_end(TOKEN));
    apply(record, provider_of(&target), &Outcome::Accepted { provider_id: provider_id.clone() });
    entry.add_attempts(vec![AttemptRecord {
        at: NOW.as_millisecond(),
        attempt: 0,
        provider: provider_of(&target),
        target,
        duration_ms: 41,
        outcome: "accepted".to_owned(),
        provider_id,
        failure: None,
        held: None,
    }]);
    Box::new(move || {
        black_box(serde_json::to_string(black_box(&entry)).expect("a row is JSON"));
    })
}

/// 200 callers at once, each a task as a lane is, ask a coalescer whose requests are answered at once.
fn coalescer() -> Run {
    const CALLERS: u64 = 200;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    let limits = Limits { requests: 4, eager: 4, items: 100, weight: usize::MAX };
    let coalescer = Coalescer::traced("hot", limits, |items: Vec<u64>| Box::pin(async { items }));
    Box::new(move || {
        runtime.block_on(async {
            let ask = |item| {
                let coalescer = coalescer.clone();
                tokio::spawn(async move { coalescer.ask(item, 64).await })
            };
            let callers: Vec<_> = (0..CALLERS).map(ask).collect();
            for (item, caller) in (0..CALLERS).zip(callers) {
                assert_eq!(caller.await.expect("no caller panics"), Ok(item));
            }
        });
    })
}

/// A prefetch of 2,048 events of 500 sessions enters; every lane is then taken to its end.
fn lanes() -> Run {
    const EVENTS: usize = 2048;
    let sessions: Vec<String> = (0..500).map(|session| format!("ses{session:022}")).collect();
    let lanes = Lanes::default();
    Box::new(move || {
        let mut begun = Vec::new();
        let mut handled = 0;
        for n in 0..EVENTS {
            // Coprime with 500: sessions take turns, in an order that is not that of their names.
            let session = &sessions[n * 373 % sessions.len()];
            match lanes.enter(session, Box::new(n)) {
                Entered::First(_) => begun.push(session),
                Entered::Waits => {}
                Entered::Full(n) => panic!("event {n} found a full lane"),
            }
        }
        for session in begun {
            handled += 1;
            while lanes.next(session).is_some() {
                handled += 1;
            }
        }
        assert_eq!((handled, lanes.len()), (EVENTS, 0));
    })
}
