//! The gate with its clock and its waiters, on paused time.

use std::{cell::Cell, sync::Arc, time::Duration};

use futures::FutureExt;

use super::*;

async fn ask(gate: &Gate, answer: Result<(), Failure>) -> Result<((), Option<HoldCause>), Refusal> {
    gate.run(|| {
        let answer = answer.clone();
        async move { answer.map(|value| Answered { value, shows: Shows::Works }) }
    })
    .await
}

fn transient() -> Failure {
    Failure::new(FailureKind::Transient, "connect", "connection refused")
}

async fn broken() -> Gate {
    let gate = Gate::new(Provider::Expo);
    for _ in 0..5 {
        assert_eq!(ask(&gate, Err(transient())).await, Err(Refusal::Failed(transient())));
    }
    gate
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_holds_without_a_request_and_says_why() {
    let gate = broken().await;
    let asked = Cell::new(false);
    let answer = gate
        .run(|| {
            asked.set(true);
            async { Ok(Answered { value: (), shows: Shows::Works }) }
        })
        .await;
    assert_eq!(answer, Err(Refusal::Held(HoldCause::Breaker)));
    assert!(!asked.get());
    let state = gate.state();
    assert_eq!(state.shut, Some(HoldCause::Breaker));
    assert_eq!(state.why, "transient (connect): connection refused");
}

#[tokio::test(start_paused = true)]
async fn waiters_hear_of_the_end_of_a_shut_period_and_of_the_probes_success() {
    let gate = Arc::new(broken().await);
    let changed = gate.changed();
    assert_eq!(gate.admission(), Admission::Shut(HoldCause::Breaker));
    changed.await;
    assert_eq!(gate.admission(), Admission::Probe);
    let mut changed = Box::pin(gate.changed());
    assert_eq!((&mut changed).now_or_never(), None);
    assert_eq!(ask(&gate, Ok(())).await, Ok(((), None)));
    changed.await;
    assert_eq!(gate.admission(), Admission::Open);
    assert_eq!((gate.state().shut, gate.state().why), (None, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_change_between_subscribing_and_awaiting_is_not_lost() {
    let gate = Gate::new(Provider::Ably);
    let changed = gate.changed();
    gate.hold();
    changed.await;
    assert_eq!(gate.admission(), Admission::Shut(HoldCause::Operator));
    let changed = gate.changed();
    gate.release();
    changed.await;
    assert_eq!(gate.admission(), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_gives_up_makes_room_for_the_next() {
    let gate = broken().await;
    gate.changed().await;
    let mut stuck = Box::pin(gate.run(std::future::pending::<Result<Answered<()>, Failure>>));
    assert!((&mut stuck).now_or_never().is_none());
    assert_eq!(ask(&gate, Ok(())).await, Err(Refusal::Held(HoldCause::Breaker)));
    drop(stuck);
    assert_eq!(ask(&gate, Ok(())).await, Ok(((), None)));
}

#[tokio::test(start_paused = true)]
async fn a_short_throttle_waits_in_hand_and_tries_again() {
    let gate = Gate::new(Provider::Expo);
    let tries = Cell::new(0);
    let started = Instant::now();
    let answer = gate
        .run(|| {
            tries.set(tries.get() + 1);
            let throttled = tries.get() < 3;
            async move {
                let failure = Failure::new(FailureKind::Throttled, "429", "slow down");
                if throttled { Err(failure) } else { Ok(Answered { value: 7, shows: Shows::Works }) }
            }
        })
        .await;
    assert_eq!(answer, Ok((7, None)));
    assert!(started.elapsed() >= Duration::from_secs(2), "one second and then two, each spread");
    assert_eq!(gate.state().shut, None);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_that_never_ends_holds_within_bounds() {
    let gate = Gate::new(Provider::Expo);
    let started = Instant::now();
    let failure = Failure::new(FailureKind::Throttled, "429", "slow down");
    assert_eq!(ask(&gate, Err(failure)).await, Err(Refusal::Held(HoldCause::Throttled)));
    assert!(started.elapsed() <= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn refused_items_are_held_until_the_credentials_are_proven() {
    let gate = Gate::new(Provider::Expo);
    let refuse = || async {
        Ok(Answered {
            value: (),
            shows: Shows::Refused(Failure::new(FailureKind::Unauthorised, "InvalidCredentials", "")),
        })
    };
    assert_eq!(gate.run(refuse).await, Ok(((), Some(HoldCause::Unauthorised))));
    assert_eq!(ask(&gate, Ok(())).await, Err(Refusal::Held(HoldCause::Unauthorised)));
    gate.changed().await;
    assert_eq!(ask(&gate, Ok(())).await, Ok(((), None)));
    assert_eq!(gate.run(refuse).await, Ok(((), None)));
    assert_eq!(gate.admission(), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_a_probe_is_out_hears_of_the_next_one() {
    let gate = Arc::new(broken().await);
    gate.changed().await;
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let probing = tokio::spawn({
        let gate = gate.clone();
        async move {
            let mut released = Some(released);
            gate.run(|| {
                let released = released.take();
                async move {
                    released.expect("asked once").await.expect("released");
                    Err::<Answered<()>, _>(transient())
                }
            })
            .await
        }
    });
    while gate.admission() == Admission::Probe {
        tokio::task::yield_now().await;
    }
    let waiting = gate.changed();
    release.send(()).expect("the probe waits");
    assert_eq!(probing.await.expect("no panic"), Err(Refusal::Held(HoldCause::Breaker)));
    tokio::time::timeout(Duration::from_secs(600), waiting).await.expect("told of the failed probe");
    tokio::time::timeout(Duration::from_secs(600), gate.changed()).await.expect("told of the end");
    assert_eq!(gate.admission(), Admission::Probe);
}
