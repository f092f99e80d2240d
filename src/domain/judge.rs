//! The judgement: what becomes of an event once its targets have been tried.
//!
//! Called by the worker's sixth stop, and for events that end without a send. Pure: `now` is an argument and the answer says
//! everything the settling needs. No event leaves here without a reason.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    ledger::{ABLY_TARGET, DeadReason, SkipReason, TargetKey, TargetRecord, Targets, Via},
    outcome::{Failure, FailureKind, HoldCause, Outcome, Provider},
    retry::{NoDelay, next_delay},
};

/// Repeats of an Expo push of unknown fate wait at least this long (design rule; Expo has no idempotency key).
pub const UNKNOWN_PAUSE: Duration = Duration::from_secs(30);
/// Workers that may die over one event before it is handled alone.
pub const CRASHES_ALONE: u32 = 3;
/// Workers that may die over one event before it is dead.
pub const CRASHES_DEAD: u32 = 10;

/// The configured part of every judgement.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `retry.schedule`, shortest first.
    pub schedule: Vec<Duration>,
    /// `expo.unknown_repeats`.
    pub unknown_repeats: u32,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    Done(Via),
    Skip {
        reason: SkipReason,
        detail: String,
    },
    /// Tried again after `delay`, with `attempts` made by then.
    Retry {
        delay: Duration,
        attempts: u32,
        reason: String,
    },
    /// Waits for the provider, no attempt used.
    Hold {
        provider: Provider,
        cause: HoldCause,
    },
    /// Given up, with `attempts` made, the last one included.
    Dead {
        reason: DeadReason,
        attempts: u32,
        detail: String,
    },
}

/// Times that bound a judgement.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub now: Timestamp,
    pub expires_at: Timestamp,
}

impl Life {
    /// Returns what is left, zero when it is over.
    pub fn remaining(&self) -> Duration {
        Duration::try_from(self.expires_at.duration_since(self.now)).unwrap_or(Duration::ZERO)
    }

    /// Tells whether the event is too late to matter.
    pub fn over(&self) -> bool {
        self.now >= self.expires_at
    }
}

/// Returns the provider that `target` belongs to.
pub fn provider_of(target: &str) -> Provider {
    if target == ABLY_TARGET { Provider::Ably } else { Provider::Expo }
}

/// Writes one outcome into what is known of its target.
pub fn apply(record: &mut TargetRecord, provider: Provider, outcome: &Outcome) {
    match outcome {
        Outcome::Accepted { provider_id } => {
            record.accepted = true;
            record.provider_id.clone_from(provider_id);
            record.failure = None;
        }
        Outcome::Failed(failure) => {
            record.failure = Some(failure.clone());
            match failure.kind {
                FailureKind::Rejected | FailureKind::Unregistered => record.closed = true,
                // Ably drops a repeat by its id; only Expo's phones ring twice, so only its unknowns are counted.
                FailureKind::Unknown => record.unknown += u32::from(provider == Provider::Expo),
                FailureKind::Transient | FailureKind::Throttled | FailureKind::Unauthorised => {}
            }
        }
        Outcome::Held(_) => {}
    }
}

/// Judges an event after its open targets were tried. `targets` holds every planned target with the outcomes applied,
/// `outcomes` what happened in this attempt, `attempts` how many were made before it.
pub fn judge(
    targets: &Targets,
    outcomes: &BTreeMap<TargetKey, Outcome>,
    attempts: u32,
    life: Life,
    policy: &Policy,
) -> Disposition {
    let open = || targets.iter().filter(|(_, record)| !record.accepted && !record.closed);
    let too_often = |record: &TargetRecord| record.unknown > policy.unknown_repeats;

    // Whatever was asked of a provider now counts, unless it refused us as such.
    let made = attempts + u32::from(outcomes.values().any(charged));
    if open().next().is_none() {
        return ended(targets, made);
    }
    if open().all(|(_, record)| too_often(record)) {
        return dead(DeadReason::Unknown, targets, made);
    }
    let open_outcomes = || open().filter(|(_, r)| !too_often(r)).filter_map(|(key, _)| Some((key, outcomes.get(key)?)));

    // What was charged decides before what was held: a retry tries the held ones, too.
    let mut wait = Duration::ZERO;
    let mut charged = None;
    for (key, outcome) in open_outcomes() {
        let Outcome::Failed(failure) = outcome else { continue };
        if failure.kind == FailureKind::Unauthorised {
            continue;
        }
        let pause = match (failure.kind, provider_of(key)) {
            (FailureKind::Unknown, Provider::Expo) => UNKNOWN_PAUSE,
            _ => Duration::ZERO,
        };
        wait = wait.max(pause).max(failure.retry_after.unwrap_or_default());
        charged = Some(failure);
    }
    if let Some(failure) = charged {
        return again(targets, failure.to_string(), attempts + 1, wait, life, policy);
    }
    let held = open_outcomes().find_map(|(key, outcome)| match outcome {
        Outcome::Held(cause) => Some((provider_of(key), *cause)),
        Outcome::Failed(_) => Some((provider_of(key), HoldCause::Unauthorised)),
        Outcome::Accepted { .. } => None,
    });
    match held {
        // It waited here, be it in hand, until it was too late.
        Some(_) if life.over() => expired(true, made, life),
        Some((provider, cause)) => Disposition::Hold { provider, cause },
        // A target that was planned and not tried: only possible when its send was never begun.
        None => again(targets, "a target was not tried".into(), attempts + 1, wait, life, policy),
    }
}

/// Judges an event about which too little is known to decide a route; `unknown` is why presence is. When that is because an
/// operator holds Ably, the event waits for Ably like those that are to be published.
pub fn ask_again(why: &str, unknown: Option<&Failure>, attempts: u32, life: Life, policy: &Policy) -> Disposition {
    if unknown.is_some_and(|failure| failure.code == HoldCause::Operator.not_asked()) {
        return Disposition::Hold { provider: Provider::Ably, cause: HoldCause::Operator };
    }
    again(&BTreeMap::new(), why.to_owned(), attempts + 1, Duration::ZERO, life, policy)
}

/// Judges an event whose life is over: skipped when nobody ever tried or held it, dead otherwise.
pub fn expired(ever_tried: bool, attempts: u32, life: Life) -> Disposition {
    if ever_tried {
        let detail = format!("its life ended at {}, while it waited", life.expires_at);
        Disposition::Dead { reason: DeadReason::Expired, detail, attempts }
    } else {
        let detail = format!("its life had ended at {}, before it came", life.expires_at);
        Disposition::Skip { reason: SkipReason::Expired, detail }
    }
}

/// Returns the ways in which targets accepted, if any did.
pub fn accepted_via(targets: &Targets) -> Option<Via> {
    let accepted = |provider| targets.iter().any(|(key, record)| record.accepted && provider_of(key) == provider);
    match (accepted(Provider::Ably), accepted(Provider::Expo)) {
        (true, true) => Some(Via::Both),
        (true, false) => Some(Via::Realtime),
        (false, true) => Some(Via::Push),
        (false, false) => None,
    }
}

/// Returns the targets that have not accepted, as they stand in `herald-route`: `ably,expo:0123456789ab`.
pub fn missing(targets: &Targets) -> Vec<&str> {
    targets.iter().filter(|(_, record)| !record.accepted).map(|(key, _)| key.as_str()).collect()
}

/// Tells whether `outcome` is an attempt made: being held, or refused for our credentials, uses none.
fn charged(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Accepted { .. } => true,
        Outcome::Failed(failure) => failure.kind != FailureKind::Unauthorised,
        Outcome::Held(_) => false,
    }
}

/// Every target has accepted or never will.
fn ended(targets: &Targets, attempts: u32) -> Disposition {
    let unregistered =
        |record: &TargetRecord| record.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Unregistered);
    let refused = targets.values().any(|record| !record.accepted && !unregistered(record));
    match accepted_via(targets) {
        _ if refused => dead(DeadReason::Rejected, targets, attempts),
        // An unregistered token beside an accepted one is nothing missed: that device is gone.
        Some(via) => Disposition::Done(via),
        None => {
            let detail = "every device it could be pushed to is gone".to_owned();
            Disposition::Skip { reason: SkipReason::InvalidToken, detail }
        }
    }
}

fn again(targets: &Targets, reason: String, attempts: u32, wait: Duration, life: Life, policy: &Policy) -> Disposition {
    match next_delay(&policy.schedule, attempts, wait, life.remaining()) {
        Ok(delay) => Disposition::Retry { delay, attempts, reason },
        Err(no_delay) => {
            let unknown = targets.values().any(|record| !record.accepted && record.unknown > 0);
            match no_delay {
                _ if unknown => dead(DeadReason::Unknown, targets, attempts),
                NoDelay::Exhausted => {
                    let detail = format!("{attempts} attempts were made; the last: {reason}");
                    Disposition::Dead { reason: DeadReason::Exhausted, detail, attempts }
                }
                NoDelay::Expired => {
                    let detail =
                        format!("its life ends at {}, before another attempt; the last: {reason}", life.expires_at);
                    Disposition::Dead { reason: DeadReason::Expired, detail, attempts }
                }
            }
        }
    }
}

/// Ends an event as dead, telling what the failing targets said.
fn dead(reason: DeadReason, targets: &Targets, attempts: u32) -> Disposition {
    let said: Vec<String> = targets
        .iter()
        .filter(|(_, record)| !record.accepted)
        .filter_map(|(key, record)| Some(format!("{key}: {}", record.failure.as_ref()?)))
        .collect();
    Disposition::Dead { reason, detail: super::bounded(&said.join("; "), 600), attempts }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = ABLY_TARGET;
    const X: &str = "expo:x";
    const Y: &str = "expo:y";

    fn policy() -> Policy {
        Policy { schedule: [5, 30, 120].map(Duration::from_secs).to_vec(), unknown_repeats: 2 }
    }

    fn life(seconds: i64) -> Life {
        Life { now: Timestamp::UNIX_EPOCH, expires_at: Timestamp::from_second(seconds).unwrap() }
    }

    fn ok() -> Outcome {
        Outcome::Accepted { provider_id: Some("id".into()) }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed(Failure::new(kind, "code", "detail"))
    }

    /// Applies the outcomes to fresh targets and judges them; renders the answer shortly.
    fn check(outcomes: &[(&str, Outcome)], attempts: u32, seconds: i64) -> String {
        let mut targets = BTreeMap::new();
        check_on(&mut targets, outcomes, attempts, seconds)
    }

    fn check_on(targets: &mut Targets, outcomes: &[(&str, Outcome)], attempts: u32, seconds: i64) -> String {
        for (key, outcome) in outcomes {
            apply(targets.entry(key.to_string()).or_default(), provider_of(key), outcome);
        }
        let outcomes = outcomes.iter().map(|(key, outcome)| (key.to_string(), outcome.clone())).collect();
        match judge(targets, &outcomes, attempts, life(seconds), &policy()) {
            Disposition::Done(via) => format!("done {}", via.as_str()),
            Disposition::Skip { reason, .. } => format!("skip {}", reason.as_str()),
            Disposition::Retry { delay, attempts, .. } => format!("retry {}s #{attempts}", delay.as_secs()),
            Disposition::Hold { provider, cause } => format!("hold {provider} {}", cause.as_str()),
            Disposition::Dead { reason, attempts, .. } => format!("dead {} #{attempts}", reason.as_str()),
        }
    }

    #[test]
    fn what_happens_next_follows_from_the_outcomes() {
        use FailureKind::*;
        let day = 86_400;
        for (outcomes, attempts, seconds, expected) in [
            (vec![(A, ok())], 0, day, "done realtime"),
            (vec![(X, ok())], 0, day, "done push"),
            (vec![(A, ok()), (X, ok())], 0, day, "done both"),
            (vec![(A, failed(Transient))], 0, day, "retry 5s #1"),
            (vec![(A, failed(Transient))], 1, day, "retry 30s #2"),
            (vec![(A, failed(Transient))], 3, day, "dead exhausted #4"),
            (vec![(A, failed(Transient))], 0, 3, "dead expired #1"),
            (vec![(A, failed(Rejected))], 0, day, "dead rejected #1"),
            (vec![(A, ok()), (X, failed(Transient))], 0, day, "retry 5s #1"),
            (vec![(A, ok()), (X, failed(Rejected))], 0, day, "dead rejected #1"),
            (vec![(A, failed(Rejected)), (X, failed(Transient))], 0, day, "retry 5s #1"),
            // An unregistered token beside an accepted one: pushed. Alone: nobody to push to.
            (vec![(X, ok()), (Y, failed(Unregistered))], 0, day, "done push"),
            (vec![(X, failed(Unregistered))], 0, day, "skip invalid_token"),
            // A push of unknown fate waits half a minute at least; an unknown publish is dropped by its id.
            (vec![(X, failed(Unknown))], 0, day, "retry 30s #1"),
            (vec![(A, failed(Unknown))], 0, day, "retry 5s #1"),
            (vec![(X, failed(Unknown))], 0, 20, "dead unknown #1"),
            (vec![(X, Outcome::Held(HoldCause::Breaker))], 2, day, "hold expo breaker"),
            (vec![(X, failed(Unauthorised))], 0, day, "hold expo unauthorised"),
            (vec![(A, ok()), (X, Outcome::Held(HoldCause::Throttled))], 0, day, "hold expo throttled"),
            (vec![(A, failed(Transient)), (X, Outcome::Held(HoldCause::Breaker))], 0, day, "retry 5s #1"),
            (vec![(X, Outcome::Held(HoldCause::Backlog))], 2, 0, "dead expired #2"),
            (vec![(A, ok()), (X, Outcome::Held(HoldCause::Backlog))], 0, 0, "dead expired #1"),
        ] {
            assert_eq!(check(&outcomes, attempts, seconds), expected, "{outcomes:?} {attempts}");
        }
    }

    #[test]
    fn a_push_of_unknown_fate_is_repeated_twice_and_then_dead() {
        let mut targets = BTreeMap::new();
        let unknown = [(X, failed(FailureKind::Unknown))];
        assert_eq!(check_on(&mut targets, &unknown, 0, 86_400), "retry 30s #1");
        assert_eq!(check_on(&mut targets, &unknown, 1, 86_400), "retry 30s #2");
        assert_eq!(check_on(&mut targets, &unknown, 2, 86_400), "dead unknown #3");
    }

    #[test]
    fn a_provider_that_asks_for_a_pause_gets_it() {
        let failure = Failure::new(FailureKind::Throttled, "429", "").with_retry_after(Some(Duration::from_secs(40)));
        assert_eq!(check(&[(X, Outcome::Failed(failure))], 0, 86_400), "retry 120s #1");
    }

    #[test]
    fn an_expired_event_is_skipped_at_first_sight_and_dead_later() {
        assert!(matches!(expired(false, 0, life(0)), Disposition::Skip { reason: SkipReason::Expired, .. }));
        assert!(matches!(
            expired(true, 2, life(0)),
            Disposition::Dead { reason: DeadReason::Expired, attempts: 2, .. }
        ));
        assert!(life(0).over() && !life(1).over());
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        use FailureKind::*;
        let kinds = [Transient, Throttled, Unauthorised, Rejected, Unregistered, Unknown];
        prop_oneof![
            Just(ok()),
            proptest::sample::select(kinds.to_vec()).prop_map(failed),
            Just(Outcome::Held(HoldCause::Breaker)),
        ]
    }

    #[test]
    fn what_cannot_be_decided_is_retried_but_waits_without_an_attempt_while_an_operator_holds_ably() {
        let unknown = |cause: HoldCause| Failure::new(FailureKind::Transient, cause.not_asked(), "");
        let hold = Disposition::Hold { provider: Provider::Ably, cause: HoldCause::Operator };
        let asked = |failure: Option<Failure>| ask_again("why", failure.as_ref(), 0, life(3600), &policy());
        assert_eq!(asked(Some(unknown(HoldCause::Operator))), hold);
        let timeout = Failure::new(FailureKind::Transient, "timeout", "");
        for failure in [None, Some(unknown(HoldCause::Breaker)), Some(timeout)] {
            assert!(matches!(asked(failure.clone()), Disposition::Retry { attempts: 1, .. }), "{failure:?}");
        }
    }

    proptest! {
        #[test]
        fn every_event_ends_and_nothing_unaccepted_is_called_done(
            rounds in proptest::collection::vec((any_outcome(), any_outcome()), 1..20)
        ) {
            let mut targets = Targets::new();
            let mut attempts = 0;
            let mut ended = false;
            for (ably, expo) in rounds {
                let open = |key: &str| targets.get(key).is_none_or(|r| !r.accepted && !r.closed);
                let outcomes: BTreeMap<TargetKey, Outcome> = [(A, ably), (X, expo)]
                    .into_iter().filter(|(key, _)| open(key)).map(|(key, o)| (key.to_string(), o)).collect();
                for (key, outcome) in &outcomes {
                    apply(targets.entry(key.clone()).or_default(), provider_of(key), outcome);
                }
                match judge(&targets, &outcomes, attempts, life(86_400), &policy()) {
                    Disposition::Retry { attempts: made, .. } => { prop_assert_eq!(made, attempts + 1); attempts = made; }
                    Disposition::Hold { .. } => {}
                    Disposition::Done(_) => {
                        prop_assert!(targets.values().any(|record| record.accepted));
                        ended = true;
                    }
                    Disposition::Skip { .. } => { prop_assert!(targets.values().all(|record| !record.accepted)); ended = true; }
                    Disposition::Dead { .. } => ended = true,
                }
                if ended { break; }
                prop_assert!(attempts <= 3);
            }
        }
    }
}
