//! Answering a batch in parts: what is refused for one item's sake is split and sent again without it.
//!
//! Called by both provider clients with the items of one gathered request. Each part goes through the gate by itself, so
//! that what was never sent is never called unknown. What became too late while it waited is not sent. Never looks into an item.

use std::{future::Future, time::Instant};

use crate::domain::outcome::{Failure, FailureKind, HoldCause, Refusal};

use super::gate::{Answered, Gate, Shows, item_at_fault};

/// What became of one part.
pub(super) enum Part<O> {
    /// One answer per item of the part, in order.
    Answers(Vec<Result<O, Failure>>),
    /// Nothing happened; send these smaller parts (positions in the whole batch) instead.
    Split(Vec<Vec<usize>>),
    /// No request was made: for some items it is too late.
    Late,
}

/// Halves a part that was refused without saying for which item's sake. The part has two items at least.
pub(super) fn halves(part: &[usize]) -> Vec<Vec<usize>> {
    let (first, second) = part.split_at(part.len() / 2);
    vec![first.to_vec(), second.to_vec()]
}

/// Sends items `0..count` by `send`, which gets positions, and returns one answer per item. `send` fails only as a
/// whole, with a kind that tells of the provider. Items refused for our credentials are held once the gate shut for them; those
/// that must not be sent any more (`until` their moments) when their turn comes are held, too, as what waited here for too long.
pub(super) async fn in_parts<O, F>(
    gate: &Gate,
    until: &[Option<Instant>],
    send: impl Fn(Vec<usize>) -> F,
) -> Vec<Result<O, Refusal>>
where
    F: Future<Output = Result<Part<O>, Failure>>,
{
    let count = until.len();
    let late = |position: &usize| until[*position].is_some_and(|until| until <= Instant::now());
    let mut answers: Vec<Option<Result<O, Refusal>>> = (0..count).map(|_| None).collect();
    let mut parts = vec![(0..count).collect::<Vec<usize>>()];
    // Halving down to single items takes fewer requests than twice their number; each is set apart as late once.
    let mut requests = 3 * count + 2;
    while let Some(part) = parts.pop() {
        if requests == 0 {
            break;
        }
        requests -= 1;
        // Asked at the last moment: the gate may have let it wait.
        let result = gate.run(|| async {
            match part.iter().any(late) {
                true => Ok(Answered { value: Part::Late, shows: Shows::Nothing }),
                false => send(part.clone()).await.map(answered),
            }
        });
        let result = result.await;
        match result {
            Ok((Part::Split(smaller), _)) => parts.extend(smaller.into_iter().rev()),
            Ok((Part::Late, _)) => {
                let (late, part) = part.into_iter().partition::<Vec<_>, _>(late);
                late.into_iter().for_each(|position| answers[position] = Some(Err(Refusal::Held(HoldCause::Backlog))));
                parts.extend(Some(part).filter(|part| !part.is_empty()));
            }
            Ok((Part::Answers(given), held)) => {
                for (position, answer) in part.into_iter().zip(given) {
                    let answer = answer.map_err(|failure| match held {
                        Some(cause) if failure.kind == FailureKind::Unauthorised => Refusal::Held(cause),
                        _ => Refusal::Failed(item_at_fault(failure)),
                    });
                    answers[position] = Some(answer);
                }
            }
            Err(refusal) => part.into_iter().for_each(|position| answers[position] = Some(Err(refusal.clone()))),
        }
    }
    let left_out = || Failure::new(FailureKind::Transient, "split", "the provider kept refusing the batch in parts");
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Refusal::Failed(left_out())))).collect()
}

/// Tells the gate of a part that was refused for our credentials with nothing taken.
fn answered<O>(part: Part<O>) -> Answered<Part<O>> {
    let refused = match &part {
        Part::Answers(answers) if answers.iter().all(Result::is_err) => answers
            .iter()
            .filter_map(|answer| answer.as_ref().err())
            .find(|failure| failure.kind == FailureKind::Unauthorised)
            .cloned(),
        Part::Answers(_) | Part::Split(_) | Part::Late => None,
    };
    Answered { value: part, shows: refused.map_or(Shows::Works, Shows::Refused) }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use super::*;
    use crate::domain::outcome::Provider;

    fn failure(kind: FailureKind) -> Failure {
        Failure::new(kind, "test", "")
    }

    #[tokio::test]
    async fn one_bad_item_never_fails_its_neighbours() {
        for bad in [vec![], vec![0], vec![99], vec![3, 4, 50], (0..100).collect()] {
            let requests = RefCell::new(0);
            let answers = in_parts(&Gate::new(Provider::Ably), &[None; 100], |part| {
                *requests.borrow_mut() += 1;
                let refused = part.iter().any(|position| bad.contains(position));
                async move {
                    Ok(match (refused, part.len()) {
                        (false, _) => Part::Answers(part.into_iter().map(Ok).collect()),
                        (true, 1) => Part::Answers(vec![Err(failure(FailureKind::Rejected))]),
                        (true, _) => Part::Split(halves(&part)),
                    })
                }
            })
            .await;
            for (position, answer) in answers.into_iter().enumerate() {
                let expected = match bad.contains(&position) {
                    true => Err(Refusal::Failed(failure(FailureKind::Rejected))),
                    false => Ok(position),
                };
                assert_eq!(answer, expected);
            }
            assert!(*requests.borrow() <= 200);
        }
    }

    #[tokio::test]
    async fn a_failed_part_keeps_what_other_parts_obtained() {
        let answers = in_parts(&Gate::new(Provider::Expo), &[None; 4], |part| async move {
            match part.as_slice() {
                [0, 1, 2, 3] => Ok(Part::Split(vec![vec![3, 0], vec![2], vec![1]])),
                [3, 0] => Ok(Part::Answers(vec![Ok("three"), Ok("zero")])),
                [2] => Err(failure(FailureKind::Unknown)),
                _ => Ok(Part::Answers(vec![Ok("one")])),
            }
        })
        .await;
        let lost = Err(Refusal::Failed(failure(FailureKind::Unknown)));
        assert_eq!(answers, [Ok("zero"), Ok("one"), lost, Ok("three")]);
    }

    #[tokio::test]
    async fn endless_splitting_ends() {
        let gate = Gate::new(Provider::Expo);
        let answers = in_parts::<(), _>(&gate, &[None; 2], |part| async move { Ok(Part::Split(vec![part])) }).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Refusal::Failed(f)) if f.code == "split")));
    }

    #[tokio::test]
    async fn credentials_refused_for_every_item_hold_them_and_for_some_fail_them() {
        let gate = Gate::new(Provider::Expo);
        let bad = || Err(failure(FailureKind::Unauthorised));
        let mixed = in_parts(&gate, &[None; 2], |_| async move { Ok(Part::Answers(vec![Ok(1), bad()])) }).await;
        assert_eq!(mixed, [Ok(1), Err(Refusal::Failed(failure(FailureKind::Transient)))]);
        let gone = || Err(failure(FailureKind::Unregistered));
        let all = in_parts::<u8, _>(&gate, &[None; 2], |_| async move { Ok(Part::Answers(vec![gone(), bad()])) }).await;
        let held = Err(Refusal::Held(HoldCause::Unauthorised));
        assert_eq!(all, [Err(Refusal::Failed(failure(FailureKind::Unregistered))), held]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_late_makes_no_request_and_proves_nothing_of_the_provider() {
        let (past, soon) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
        let gate = Gate::new(Provider::Expo);
        let asked = RefCell::new(Vec::new());
        let send = |part: Vec<usize>| {
            asked.borrow_mut().push(part.clone());
            async move { Ok(Part::Answers(part.into_iter().map(Ok).collect())) }
        };
        let late = || Err(Refusal::Held(HoldCause::Backlog));
        let answers = in_parts(&gate, &[None, Some(past), Some(soon), Some(past)], send).await;
        assert_eq!(answers, [Ok(0), late(), Ok(2), late()]);
        assert_eq!(*asked.borrow(), [[0, 2]]);

        while !gate.is_shut() {
            let failed = in_parts::<(), _>(&gate, &[None], |_| async { Err(failure(FailureKind::Transient)) }).await;
            assert!(failed[0].is_err());
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(in_parts(&gate, &[Some(past)], send).await, [late()]);
        assert!(gate.is_shut() && asked.borrow().len() == 1, "nobody was asked");
        assert_eq!(in_parts(&gate, &[None], send).await, [Ok(0)]);
        assert!(!gate.is_shut(), "and the next may probe");
    }
}
