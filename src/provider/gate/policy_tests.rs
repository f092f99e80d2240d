//! Tables for the gate's decisions: a script of what happens, and what the gate is afterwards.

use super::*;

const MIDDLE: f64 = 0.5;

fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "test", "a test")
}

/// A policy with a clock that only moves when told.
struct Script {
    policy: Policy,
    now: Instant,
}

impl Script {
    fn new() -> Script {
        Script { policy: Policy::default(), now: Instant::now() }
    }

    fn after(&mut self, millis: u64) -> &mut Script {
        self.now += Duration::from_millis(millis);
        self
    }

    fn enter(&mut self) -> Entry {
        self.policy.enter(self.now)
    }

    fn ticket(&mut self) -> Ticket {
        match self.enter() {
            Entry::Go(ticket) => ticket,
            other => panic!("not let in: {other:?}"),
        }
    }

    fn fails(&mut self, kind: FailureKind) -> Next {
        let ticket = self.ticket();
        self.policy.report(self.now, MIDDLE, ticket, Verdict::Failed(&failure(kind)))
    }

    fn throttled(&mut self, retry_after: Option<u64>) -> Next {
        let ticket = self.ticket();
        let failure = failure(FailureKind::Throttled).with_retry_after(retry_after.map(Duration::from_secs));
        self.policy.report(self.now, MIDDLE, ticket, Verdict::Failed(&failure))
    }

    fn refused(&mut self) -> Next {
        let ticket = self.ticket();
        let failure = failure(FailureKind::Unauthorised);
        self.policy.report(self.now, MIDDLE, ticket, Verdict::Refused(&failure))
    }

    fn works(&mut self) -> Next {
        let ticket = self.ticket();
        self.policy.report(self.now, MIDDLE, ticket, Verdict::Works)
    }

    fn admission(&self) -> Admission {
        self.policy.admission(self.now)
    }
}

fn shut(cause: HoldCause) -> Admission {
    Admission::Shut(cause)
}

#[test]
fn the_breaker_opens_after_five_failed_requests_in_a_row_of_the_kinds_that_tell() {
    use FailureKind::*;
    for (kinds, expected) in [
        (vec![Transient; 4], Admission::Open),
        (vec![Transient; 5], shut(HoldCause::Breaker)),
        (vec![Unknown, Transient, Unknown, Transient, Unknown], shut(HoldCause::Breaker)),
        (vec![Rejected; 9], Admission::Open),
        (vec![Unregistered; 9], Admission::Open),
        (vec![Transient, Transient, Transient, Transient, Rejected, Transient], Admission::Open),
    ] {
        let mut script = Script::new();
        for kind in &kinds {
            assert_eq!(script.fails(*kind), Next::Answer, "{kinds:?}");
        }
        assert_eq!(script.admission(), expected, "{kinds:?}");
    }
}

#[test]
fn a_shut_gate_lets_exactly_one_probe_out_and_waits_longer_each_time() {
    let mut script = Script::new();
    for _ in 0..5 {
        script.fails(FailureKind::Transient);
    }
    for wait in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
        script.after(wait - 1);
        assert_eq!(script.enter(), Entry::Shut(HoldCause::Breaker), "before {wait} ms");
        assert_eq!(script.policy.next_change(script.now), Some(script.now + Duration::from_millis(1)));
        script.after(1);
        assert_eq!(script.admission(), Admission::Probe);
        let probe = script.ticket();
        assert!(probe.probe);
        assert_eq!(script.enter(), Entry::Shut(HoldCause::Breaker), "a second one while the probe is out");
        let failure = failure(FailureKind::Transient);
        let next = script.policy.report(script.now, MIDDLE, probe, Verdict::Failed(&failure));
        assert_eq!(next, Next::Held(HoldCause::Breaker), "a failed probe is not charged");
    }
    assert_eq!(script.after(60_000).works(), Next::Answer);
    assert_eq!(script.admission(), Admission::Open);
    for _ in 0..5 {
        script.fails(FailureKind::Transient);
    }
    assert_eq!(script.after(1000).admission(), Admission::Probe, "a later outage starts with the short wait");
}

#[test]
fn a_probe_of_unknown_fate_stands_and_an_abandoned_one_makes_room() {
    let mut script = Script::new();
    for _ in 0..5 {
        script.fails(FailureKind::Unknown);
    }
    script.after(1000);
    let probe = script.ticket();
    script.policy.abandon(probe);
    assert_eq!(script.admission(), Admission::Probe);
    assert_eq!(script.fails(FailureKind::Unknown), Next::Answer);
    assert_eq!(script.admission(), shut(HoldCause::Breaker));
    script.policy.abandon(probe);
    assert_eq!(script.admission(), shut(HoldCause::Breaker), "a late abandon changes nothing");
}

#[test]
fn waits_are_spread_and_bounded() {
    for (growth, round, dice, seconds) in [
        (BREAKER, 0, 0.0, 1.0),
        (BREAKER, 0, 0.999, 1.499),
        (BREAKER, 2, 0.0, 2.0),
        (BREAKER, 2, 0.5, 4.0),
        (BREAKER, 40, 0.0, 30.0),
        (BREAKER, 40, 0.999, 60.0),
        (UNAUTHORISED, 0, 0.5, 30.0),
        (UNAUTHORISED, 9, 0.999, 300.0),
    ] {
        assert_eq!(growth.wait(round, dice), Duration::from_secs_f64(seconds), "round {round}, dice {dice}");
    }
}

#[test]
fn short_throttles_wait_in_hand_and_grow_until_they_are_long() {
    for asked in [None, Some(1)] {
        let mut script = Script::new();
        for wait in [1000, 2000, 4000] {
            assert_eq!(script.throttled(asked), Next::Again);
            assert_eq!(script.admission(), Admission::Open, "events still go to the client");
            assert_eq!(script.enter(), Entry::Wait(script.now + Duration::from_millis(wait)), "{asked:?}");
            script.after(wait);
        }
        assert_eq!(script.throttled(asked), Next::Held(HoldCause::Throttled));
        assert_eq!(script.enter(), Entry::Shut(HoldCause::Throttled));
        assert_eq!(script.after(8000).admission(), Admission::Probe);
        assert_eq!(script.throttled(None), Next::Held(HoldCause::Throttled), "a throttled probe");
        assert_eq!(script.after(15_999).admission(), shut(HoldCause::Throttled));
        script.after(1).works();
        assert_eq!(script.throttled(None), Next::Again, "short again after it worked");
    }
}

#[test]
fn a_long_retry_after_shuts_at_once_and_is_capped() {
    for (asked, waited) in [(5, None), (6, Some(6)), (120, Some(120)), (86_400, Some(900))] {
        let mut script = Script::new();
        let next = script.throttled(Some(asked));
        match waited {
            None => assert_eq!(next, Next::Again),
            Some(seconds) => {
                assert_eq!(next, Next::Held(HoldCause::Throttled));
                assert_eq!(script.after(seconds * 1000 - 1).admission(), shut(HoldCause::Throttled));
                assert_eq!(script.after(1).admission(), Admission::Probe);
            }
        }
    }
}

#[test]
fn results_of_requests_sent_before_the_gate_changed_do_not_pile_up() {
    let mut script = Script::new();
    let early: Vec<Ticket> = (0..6).map(|_| script.ticket()).collect();
    let throttle = failure(FailureKind::Throttled);
    for ticket in &early {
        assert_eq!(script.policy.report(script.now, MIDDLE, *ticket, Verdict::Failed(&throttle)), Next::Again);
    }
    assert_eq!(script.enter(), Entry::Wait(script.now + Duration::from_secs(1)), "six at once are one throttle");
    script.after(1000);
    let late = script.ticket();
    assert_eq!(script.refused(), Next::Held(HoldCause::Unauthorised));
    script.policy.report(script.now, MIDDLE, late, Verdict::Works);
    assert_eq!(script.admission(), shut(HoldCause::Unauthorised), "an old success does not open it");
    let next = script.policy.report(script.now, MIDDLE, late, Verdict::Failed(&throttle));
    assert_eq!(next, Next::Held(HoldCause::Unauthorised));
}

#[test]
fn refused_credentials_shut_at_once_and_are_probed_every_thirty_seconds_growing_to_five_minutes() {
    let mut script = Script::new();
    assert_eq!(script.fails(FailureKind::Unauthorised), Next::Held(HoldCause::Unauthorised));
    for (wait, kind) in [
        (30, FailureKind::Unauthorised),
        (60, FailureKind::Transient),
        (120, FailureKind::Unauthorised),
        (240, FailureKind::Unauthorised),
        (300, FailureKind::Unauthorised),
    ] {
        assert_eq!(script.after(wait * 1000 - 1).admission(), shut(HoldCause::Unauthorised));
        assert_eq!(script.after(1).fails(kind), Next::Held(HoldCause::Unauthorised));
    }
    script.after(300_000).works();
    assert_eq!(script.admission(), Admission::Open);
}

#[test]
fn one_item_refused_for_credentials_shuts_once_but_not_again_after_proof() {
    let mut script = Script::new();
    assert_eq!(script.refused(), Next::Held(HoldCause::Unauthorised));
    script.after(30_000).works();
    assert_eq!(script.refused(), Next::Answer, "the credentials were just proven");
    assert_eq!(script.admission(), Admission::Open);
    assert_eq!(script.fails(FailureKind::Unauthorised), Next::Held(HoldCause::Unauthorised), "a whole request is more");
    script.after(30_000).works();
    script.after(600_000);
    assert_eq!(script.refused(), Next::Held(HoldCause::Unauthorised), "proof grows old");
}

#[test]
fn an_operators_hold_lies_over_everything_and_forgets_nothing() {
    let mut script = Script::new();
    script.policy.hold();
    assert_eq!(script.enter(), Entry::Shut(HoldCause::Operator));
    assert_eq!(script.policy.next_change(script.now), None);
    script.policy.release(script.now);
    assert_eq!(script.admission(), Admission::Open);
    script.fails(FailureKind::Unauthorised);
    script.policy.hold();
    assert_eq!(script.policy.cause(), Some(HoldCause::Operator));
    script.policy.release(script.now);
    assert_eq!(script.policy.cause(), Some(HoldCause::Unauthorised));
}

#[test]
fn a_release_lets_a_shut_gate_be_probed_at_once_but_keeps_the_pause_a_provider_asked_for() {
    let mut script = Script::new();
    script.fails(FailureKind::Unauthorised);
    assert_eq!(script.admission(), Admission::Shut(HoldCause::Unauthorised));
    script.policy.release(script.now);
    assert_eq!(script.admission(), Admission::Probe);
    // One probe, and if it fails the wait is as long as it would have been.
    script.fails(FailureKind::Unauthorised);
    assert_eq!(script.after(30_000).admission(), Admission::Shut(HoldCause::Unauthorised));
    script.policy.release(script.now);
    script.works();
    assert_eq!(script.admission(), Admission::Open);
    script.throttled(Some(100));
    script.policy.release(script.now);
    assert_eq!(script.admission(), Admission::Shut(HoldCause::Throttled));
}
