//! What a gate decides: shut or open, for how long, and who may probe. Time and chance are arguments.
//!
//! Called by [`Gate`](super::Gate), which adds the clock, the dice and the log. Pure: never reads a clock, never waits.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::outcome::{Failure, FailureKind, HoldCause};

use super::Admission;

/// Failed requests in a row that open the breaker.
pub(super) const BREAKER_FAILURES: u32 = 5;
/// Longest throttle that waits in hand.
pub(super) const SHORT_THROTTLE: Duration = Duration::from_secs(5);
const THROTTLE: Growth = Growth { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
const BREAKER: Growth = Growth { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
const UNAUTHORISED: Growth = Growth { first: Duration::from_secs(30), longest: Duration::from_secs(300) };
/// A provider that asks for more is probed after this all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(900);
/// After a probe has shown that the credentials are good, an item refused for its credentials is that item's own affair
/// for this long: one odd push token must not shut the provider for everybody again and again.
const PROOF: Duration = Duration::from_secs(600);

/// A wait that doubles from round to round.
struct Growth {
    first: Duration,
    longest: Duration,
}

impl Growth {
    /// Returns the wait of `round` (from 0), spread by half around its middle; `dice` is in 0..1.
    fn wait(&self, round: u32, dice: f64) -> Duration {
        let middle = self.first.saturating_mul(2u32.saturating_pow(round)).min(self.longest);
        middle.mul_f64(0.5 + dice).clamp(self.first, self.longest)
    }
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Go(Ticket),
    /// A short throttle: ask again then.
    Wait(Instant),
    Shut(HoldCause),
}

/// How a request entered, to be given back with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Which state of the gate it entered in; a result from an earlier one says little about now.
    epoch: u64,
    pub(super) probe: bool,
}

/// What a request showed of the provider.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict<'a> {
    /// It answered, be it with a refusal of single items.
    Works,
    /// The request as a whole failed.
    Failed(&'a Failure),
    /// It took no item, and refused at least one for the project's credentials.
    Refused(&'a Failure),
}

/// What the result means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It stands as it is.
    Answer,
    /// It was throttled for a short while: enter again.
    Again,
    /// It does not count: the event waits for the provider.
    Held(HoldCause),
}

/// The state of one gate.
#[derive(Debug, Default)]
pub(super) struct Policy {
    operator: bool,
    shut: Option<Shut>,
    /// A short throttle lasts until then.
    pause: Option<Instant>,
    /// Throttles in a row.
    throttles: u32,
    /// Failed requests in a row.
    failures: u32,
    epoch: u64,
    proven_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    cause: HoldCause,
    /// A probe may go from then on.
    until: Instant,
    /// Probes that failed in a row.
    round: u32,
    probe_out: bool,
    /// Shut by refused items, not by a refused request.
    by_items: bool,
}

impl Policy {
    /// Returns why the gate is shut, the operator's hold before everything else.
    pub(super) fn cause(&self) -> Option<HoldCause> {
        if self.operator { Some(HoldCause::Operator) } else { self.shut.map(|shut| shut.cause) }
    }

    pub(super) fn admission(&self, now: Instant) -> Admission {
        match (self.operator, self.shut) {
            (true, _) => Admission::Shut(HoldCause::Operator),
            (false, None) => Admission::Open,
            (false, Some(shut)) if now >= shut.until && !shut.probe_out => Admission::Probe,
            (false, Some(shut)) => Admission::Shut(shut.cause),
        }
    }

    /// Returns when the admission changes by itself.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.shut.filter(|shut| !self.operator && !shut.probe_out && shut.until > now).map(|shut| shut.until)
    }

    /// An operator holds the provider until [`Policy::release`].
    pub(super) fn hold(&mut self) {
        self.operator = true;
    }

    /// An operator lets it go: another reason to be shut stays, but is looked into at once. A pause that the provider asked for
    /// is kept.
    pub(super) fn release(&mut self, now: Instant) {
        self.operator = false;
        if let Some(shut) = self.shut.as_mut().filter(|shut| shut.cause != HoldCause::Throttled) {
            shut.until = now;
        }
    }

    /// Lets a request in, as the one probe of a half-open gate if need be.
    pub(super) fn enter(&mut self, now: Instant) -> Entry {
        match self.admission(now) {
            Admission::Shut(cause) => Entry::Shut(cause),
            Admission::Probe => {
                if let Some(shut) = &mut self.shut {
                    shut.probe_out = true;
                }
                Entry::Go(Ticket { epoch: self.epoch, probe: true })
            }
            Admission::Open => match self.pause {
                Some(until) if until > now => Entry::Wait(until),
                _ => Entry::Go(Ticket { epoch: self.epoch, probe: false }),
            },
        }
    }

    /// A probe ended without a result (its caller gave up): the next may try.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        if let Some(shut) = self.shut.as_mut().filter(|_| ticket.probe && ticket.epoch == self.epoch) {
            shut.probe_out = false;
        }
    }

    /// Takes in what a request showed, and says what that means for its caller.
    pub(super) fn report(&mut self, now: Instant, dice: f64, ticket: Ticket, verdict: Verdict<'_>) -> Next {
        let fresh = ticket.epoch == self.epoch;
        match verdict {
            Verdict::Works => {
                if fresh {
                    self.works(now);
                }
                Next::Answer
            }
            Verdict::Failed(failure) => match failure.kind {
                FailureKind::Throttled => self.throttled(now, dice, fresh, failure.retry_after),
                FailureKind::Unauthorised => self.unauthorised(now, dice, fresh, false),
                FailureKind::Transient | FailureKind::Unknown => self.failed(now, dice, fresh, failure.kind),
                // The provider answered; that it refused one item says nothing of the others.
                FailureKind::Rejected | FailureKind::Unregistered => self.report(now, dice, ticket, Verdict::Works),
            },
            Verdict::Refused(_) if self.proven_until.is_some_and(|until| until > now) => {
                self.report(now, dice, ticket, Verdict::Works)
            }
            Verdict::Refused(_) => self.unauthorised(now, dice, fresh, true),
        }
    }

    fn works(&mut self, now: Instant) {
        if self.shut.is_some_and(|shut| shut.by_items) {
            self.proven_until = Some(now + PROOF);
        }
        if self.shut.take().is_some() || self.pause.take().is_some() {
            self.epoch += 1;
        }
        self.throttles = 0;
        self.failures = 0;
    }

    fn failed(&mut self, now: Instant, dice: f64, fresh: bool, kind: FailureKind) -> Next {
        if !fresh {
            return Next::Answer;
        }
        if let Some(shut) = self.shut {
            // A failed probe. Why it was shut stays the reason; the wait grows.
            let growth = if shut.cause == HoldCause::Unauthorised { &UNAUTHORISED } else { &BREAKER };
            let round = shut.round.saturating_add(1);
            self.shut(Shut { until: now + growth.wait(round, dice), round, ..shut });
            return if kind == FailureKind::Unknown { Next::Answer } else { Next::Held(shut.cause) };
        }
        self.failures += 1;
        if self.failures >= BREAKER_FAILURES {
            self.shut_anew(HoldCause::Breaker, now + BREAKER.wait(0, dice), 0, false);
        }
        Next::Answer
    }

    fn throttled(&mut self, now: Instant, dice: f64, fresh: bool, asked: Option<Duration>) -> Next {
        if !fresh {
            // Sent before the gate became what it is: it tells nothing new, and adds nothing to the wait.
            return self.shut.map_or(Next::Again, |shut| Next::Held(shut.cause));
        }
        let round = self.throttles;
        self.throttles = round.saturating_add(1);
        let own = THROTTLE.wait(round, dice);
        let wait = asked.map_or(own, |asked| asked.min(LONGEST_RETRY_AFTER).max(own));
        let probe = self.shut.is_some();
        // A round that would double beyond the short wait is long, whatever the dice say: in hand it is bounded.
        if !probe && wait <= SHORT_THROTTLE && round < 3 {
            self.pause = Some(now + wait);
            self.epoch += 1;
            return Next::Again;
        }
        self.shut_anew(HoldCause::Throttled, now + wait, round, false);
        Next::Held(HoldCause::Throttled)
    }

    fn unauthorised(&mut self, now: Instant, dice: f64, fresh: bool, by_items: bool) -> Next {
        let held = Next::Held(HoldCause::Unauthorised);
        match self.shut {
            Some(shut) if shut.cause == HoldCause::Unauthorised && !fresh => {}
            Some(shut) if shut.cause == HoldCause::Unauthorised => {
                let round = shut.round.saturating_add(1);
                self.shut(Shut { until: now + UNAUTHORISED.wait(round, dice), round, by_items, ..shut });
            }
            _ => self.shut_anew(HoldCause::Unauthorised, now + UNAUTHORISED.wait(0, dice), 0, by_items),
        }
        held
    }

    fn shut_anew(&mut self, cause: HoldCause, until: Instant, round: u32, by_items: bool) {
        self.shut(Shut { cause, until, round, probe_out: false, by_items });
    }

    fn shut(&mut self, shut: Shut) {
        self.shut = Some(Shut { probe_out: false, ..shut });
        self.pause = None;
        self.failures = 0;
        self.epoch += 1;
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
