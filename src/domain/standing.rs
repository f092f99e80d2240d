//! Where a delivery stands beside what the ledger knows of its identity: to be handled, or nothing new.
//!
//! Called by the worker's third stop. Pure. A repeat is suppressed by accepted effects only: `skipped` and `dead` rows and
//! mere claims never suppress anything, because a mark set before a crash would lose the event.

use super::ledger::{Entry, State, TargetRecord};

/// What a delivery carries of its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Attempts made, from `herald-attempt`.
    pub attempt: u32,
    /// Replays, from `herald-replay`.
    pub replay: u32,
    /// It came straight from a producer: no copy of ours, not redelivered.
    pub fresh: bool,
}

/// What to do with the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has been accepted yet: handle it.
    Continue,
    /// A new round: replayed, or sent again after it was skipped or dead.
    Again,
    /// Everything was accepted before: drop it.
    Repeat,
    /// A copy with a higher attempt waits in a queue: drop this one.
    Stale,
}

/// Tells where `arrival` stands beside `entry`, the row as it was before this delivery.
pub fn standing(entry: &Entry, arrival: Arrival) -> Standing {
    if arrival.replay > entry.replay {
        // What was accepted in full stays delivered, however often its letter is replayed.
        return if entry.state == State::Done { Standing::Repeat } else { Standing::Again };
    }
    match entry.state {
        State::Done => Standing::Repeat,
        State::Skipped | State::Dead => Standing::Again,
        State::Waiting if arrival.replay == entry.replay && entry.attempt > arrival.attempt => Standing::Stale,
        State::Waiting => Standing::Continue,
    }
}

/// Begins a new round on a row. What was accepted stays, and its route with it: what is missing of that is tried as if for the first
/// time. Where nothing was accepted everything is forgotten but for the attempts made.
pub fn begin_again(entry: &mut Entry, arrival: Arrival) {
    if entry.any_accepted() {
        for record in entry.targets.values_mut().filter(|record| !record.accepted) {
            **record = TargetRecord { token: record.token.take(), ..TargetRecord::default() };
        }
    } else {
        entry.targets.clear();
        entry.route = None;
    }
    entry.state = State::Waiting;
    entry.via = None;
    entry.reason = None;
    entry.detail = None;
    entry.queue = None;
    entry.replay = entry.replay.max(arrival.replay);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accepted_effects_and_newer_copies_suppress_a_delivery() {
        use Standing::*;
        use State::*;
        for (state, row_attempt, row_replay, attempt, replay, expected) in [
            (Waiting, 0, 0, 0, 0, Continue),
            (Waiting, 1, 0, 1, 0, Continue),
            // The row is behind its copy: the copy was confirmed, the row not written.
            (Waiting, 1, 0, 2, 0, Continue),
            (Waiting, 2, 0, 1, 0, Stale),
            (Waiting, 2, 1, 0, 1, Stale),
            // Another round than the row's is never stale.
            (Waiting, 2, 1, 0, 0, Continue),
            (Waiting, 2, 0, 0, 1, Again),
            (Done, 1, 0, 0, 0, Repeat),
            (Done, 1, 0, 0, 1, Repeat),
            (Skipped, 0, 0, 0, 0, Again),
            (Dead, 6, 0, 0, 0, Again),
            (Dead, 6, 0, 0, 1, Again),
        ] {
            let mut entry = Entry::test_row();
            (entry.state, entry.attempt, entry.replay) = (state, row_attempt, row_replay);
            let arrival = Arrival { attempt, replay, fresh: true };
            assert_eq!(standing(&entry, arrival), expected, "{state:?} {row_attempt} {row_replay} {attempt} {replay}");
        }
    }

    #[test]
    fn a_new_round_keeps_what_was_accepted() {
        let mut entry = Entry::test_row();
        entry.state = State::Dead;
        entry.route = Some("both".into());
        entry.targets.entry("ably".into()).or_default().accepted = true;
        let missing = TargetRecord { closed: true, unknown: 3, token: Some("k9Zq".into()), ..TargetRecord::default() };
        entry.targets.insert("expo:x".into(), missing.clone().into());
        let again = Arrival { attempt: 0, replay: 1, fresh: false };
        begin_again(&mut entry, again);
        assert_eq!((entry.state, entry.replay, entry.route.as_deref()), (State::Waiting, 1, Some("both")));
        assert!(entry.targets["ably"].accepted);
        let open = TargetRecord { token: Some("k9Zq".into()), ..TargetRecord::default() };
        assert_eq!(*entry.targets["expo:x"], open, "what is missing is tried again");
        // Nothing was accepted: the route is decided anew.
        entry.targets = [("expo:x".to_owned(), missing.into())].into();
        begin_again(&mut entry, again);
        assert_eq!((entry.targets.len(), entry.route), (0, None));
    }
}
