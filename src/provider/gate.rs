//! The gate of one provider: whether requests may go out now, and if not, why and until when.
//!
//! Called by the provider clients around every request and by the worker, which moves held events to the provider's hold
//! queue and drains it again. One gate per provider: one being down never slows the other. Never decides about an event.

mod policy;

use std::{
    future::Future,
    sync::{Mutex, MutexGuard},
};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use crate::domain::outcome::{Failure, FailureKind, HoldCause, Provider, Refusal};

use policy::{Entry, Next, Policy, Ticket, Verdict};

/// What an operator or a page is told of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct GateState {
    pub provider: Provider,
    /// `None`: open.
    pub shut: Option<HoldCause>,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// The failure that shut it, as a bounded, redacted sentence.
    pub why: String,
}

/// Whether held events may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Requests go out.
    Open,
    /// One request may go out, to see whether the provider is back.
    Probe,
    /// Nothing goes out.
    Shut(HoldCause),
}

/// Short throttles one call sits through before its last failure counts.
const MAX_WAITS: usize = 4;

/// The gate of one provider. Shared by reference.
#[derive(Debug)]
pub struct Gate {
    provider: Provider,
    state: Mutex<State>,
    /// Counts what happened; read by [`Gate::changed`].
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    since: Timestamp,
    why: String,
    /// When refused items last raised an alarm without shutting the gate.
    alarmed: Option<Instant>,
}

/// What a request that was answered showed, beside its value.
pub(super) struct Answered<T> {
    pub(super) value: T,
    pub(super) shows: Shows,
}

/// What an answer shows of the provider.
pub(super) enum Shows {
    /// It works.
    Works,
    /// No item was taken, and one was refused for our credentials.
    Refused(Failure),
    /// Nothing: no request was made after all.
    Nothing,
}

impl Gate {
    /// Makes an open gate.
    pub fn new(provider: Provider) -> Self {
        let state = State { policy: Policy::default(), since: Timestamp::now(), why: String::new(), alarmed: None };
        Gate { provider, state: Mutex::new(state), changes: watch::Sender::new(0) }
    }

    /// Tells whether requests may go out now; takes no permit. During a throttle short enough to wait in hand it is open.
    pub fn admission(&self) -> Admission {
        self.lock().policy.admission(Instant::now())
    }

    /// Returns when [`Gate::admission`] may have changed since this was called; a shut period that ends counts. Call it
    /// before looking at the admission and await it after, so that no change falls in between.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.subscribe();
        let ends = self.lock().policy.next_change(Instant::now());
        async move {
            let ended = async {
                match ends {
                    Some(ends) => tokio::time::sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An error means that the gate is gone, and with it everything to wait for.
                _ = changes.changed() => {}
                () = ended => {}
            }
        }
    }

    /// Returns what to show.
    pub fn state(&self) -> GateState {
        let state = self.lock();
        let shut = state.policy.cause();
        GateState { provider: self.provider, shut, since: state.since, why: state.why.clone() }
    }

    /// Tells whether it is shut, so that what goes out is a probe.
    pub(super) fn is_shut(&self) -> bool {
        self.lock().policy.cause().is_some()
    }

    /// Shuts the gate until [`Gate::release`]: an operator's hold.
    pub fn hold(&self) {
        self.update(|state, _| state.policy.hold(), || "held by an operator".to_owned());
    }

    /// Ends an operator's hold; another reason to be shut stays, but a probe may go at once.
    pub fn release(&self) {
        self.update(|state, now| state.policy.release(now), || "shut before the operator's hold".to_owned());
    }

    /// Makes one request through the gate, waiting in hand for short throttles. `request` fails only as a whole, with a
    /// kind that tells of the provider; what concerns single items is part of its value. With the value comes the cause
    /// to hold items for that were refused for our credentials (`None`: such an item is at fault itself).
    pub(super) async fn run<T, F>(&self, mut request: impl FnMut() -> F) -> Result<(T, Option<HoldCause>), Refusal>
    where
        F: Future<Output = Result<Answered<T>, Failure>>,
    {
        let mut waits = 0;
        loop {
            let pass = self.enter().await.map_err(Refusal::Held)?;
            let failure = match request().await {
                Ok(Answered { value, shows: Shows::Nothing }) => return Ok((value, None)),
                Ok(Answered { value, shows: Shows::Works }) => {
                    pass.report(Verdict::Works);
                    return Ok((value, None));
                }
                Ok(Answered { value, shows: Shows::Refused(failure) }) => {
                    let held = match pass.report(Verdict::Refused(&failure)) {
                        Next::Held(cause) => Some(cause),
                        Next::Answer | Next::Again => None,
                    };
                    self.alarm_items(&failure);
                    return Ok((value, held));
                }
                Err(failure) => failure,
            };
            if failure.kind == FailureKind::Unauthorised {
                self.count_rejection();
            }
            waits += 1;
            match pass.report(Verdict::Failed(&failure)) {
                Next::Again if waits < MAX_WAITS => {}
                Next::Held(cause) => return Err(Refusal::Held(cause)),
                Next::Answer | Next::Again => return Err(Refusal::Failed(failure)),
            }
        }
    }

    /// Raises an alarm, at most once a minute, about items refused for our credentials while others go through.
    pub(super) fn alarm_items(&self, failure: &Failure) {
        self.count_rejection();
        let now = Instant::now();
        let mut state = self.lock();
        if state.policy.cause() == Some(HoldCause::Unauthorised)
            || state.alarmed.is_some_and(|at| now.duration_since(at).as_secs() < 60)
        {
            return;
        }
        state.alarmed = Some(now);
        drop(state);
        let (provider, fix) = (self.provider, fix(self.provider));
        tracing::error!(%provider, code = failure.code, "{provider} refuses some of our requests: {failure}; check {fix}");
    }

    fn count_rejection(&self) {
        metrics::counter!("herald_credentials_rejected_total", "dependency" => self.provider.as_str()).increment(1);
    }

    async fn enter(&self) -> Result<Pass<'_>, HoldCause> {
        loop {
            let entry = self.lock().policy.enter(Instant::now());
            match entry {
                Entry::Go(ticket) => {
                    if ticket.probe {
                        self.tell();
                    }
                    return Ok(Pass { gate: self, ticket: Some(ticket) });
                }
                // Whatever shuts the gate meanwhile is seen when the wait is over.
                Entry::Wait(until) => tokio::time::sleep_until(until).await,
                Entry::Shut(cause) => return Err(cause),
            }
        }
    }

    /// Changes the state, and when that shuts or opens the gate, keeps why, logs it and wakes who waits.
    fn update<T>(&self, change: impl FnOnce(&mut State, Instant) -> T, why: impl FnOnce() -> String) -> T {
        let now = Instant::now();
        let mut state = self.lock();
        // A waiter's timer hangs on when the shut period ends, so a new end is a change too.
        let look = |policy: &Policy| (policy.cause(), policy.admission(now), policy.next_change(now));
        let before = look(&state.policy);
        let result = change(&mut state, now);
        let after = look(&state.policy);
        if before.0 != after.0 {
            state.since = Timestamp::now();
            state.why = if after.0.is_some() { why() } else { String::new() };
            self.log(after.0, &state.why);
        }
        drop(state);
        if before != after {
            self.tell();
        }
        result
    }

    fn log(&self, shut: Option<HoldCause>, why: &str) {
        let provider = self.provider;
        match shut {
            None => tracing::info!(%provider, "{provider} is open again"),
            Some(HoldCause::Operator) => tracing::info!(%provider, "{provider} is held by an operator"),
            Some(cause @ HoldCause::Unauthorised) => {
                let fix = fix(provider);
                tracing::error!(%provider, cause = cause.as_str(), "{provider} refuses our credentials: {why}; check {fix}");
            }
            Some(cause) => tracing::warn!(%provider, cause = cause.as_str(), "{provider} is shut: {why}"),
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

/// Names what an operator has to look at when `provider` refuses us.
fn fix(provider: Provider) -> &'static str {
    match provider {
        Provider::Ably => "ABLY_API_KEY (ably.key) and its capabilities, and ably.url",
        Provider::Expo => "EXPO_ACCESS_TOKEN (expo.access_token), the project's push credentials at Expo, and expo.url",
    }
}

/// One request's way through the gate. Dropped without a report, it makes room for the next probe.
struct Pass<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Pass<'_> {
    fn report(mut self, verdict: Verdict<'_>) -> Next {
        let Some(ticket) = self.ticket.take() else { return Next::Answer };
        let dice = rand::random::<f64>();
        let why = || match verdict {
            Verdict::Works => String::new(),
            Verdict::Failed(failure) | Verdict::Refused(failure) => failure.to_string(),
        };
        self.gate.update(|state, now| state.policy.report(now, dice, ticket, verdict), why)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.lock().policy.abandon(ticket);
            self.gate.tell();
        }
    }
}

/// Returns the failure of an item that was refused for our credentials though the provider takes others: it may be tried
/// again by schedule, and nobody waits for it.
pub(super) fn item_at_fault(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::Unauthorised => Failure { kind: FailureKind::Transient, ..failure },
        _ => failure,
    }
}

#[cfg(test)]
#[path = "gate/gate_tests.rs"]
mod tests;
