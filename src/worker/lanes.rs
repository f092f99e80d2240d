//! Lanes: the events of one session one after the other, sessions side by side.
//!
//! Called by the intake (enter) and by each lane's task (next). A lane exists while one of its events is being handled; it
//! holds at most [`MAX_LANE`] waiting events, so that one busy session never fills the worker. Public for `benches/hot` only, which
//! counts its instructions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

/// Events that may wait in one lane behind the one being handled.
pub const MAX_LANE: usize = 64;

/// What became of an event that was to enter its lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered<T> {
    /// The lane is new: the caller handles the event and then asks [`Lanes::next`] until there is none.
    First(T),
    /// It waits behind others.
    Waits,
    /// The lane is full: the event is given back.
    Full(T),
}

/// All lanes of a worker.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Mutex<HashMap<String, VecDeque<T>>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes { lanes: Mutex::default() }
    }
}

impl<T> Lanes<T> {
    /// Puts an event into the lane of `session`.
    pub fn enter(&self, session: &str, event: T) -> Entered<T> {
        let mut lanes = self.lanes.lock().expect("no panic while the lock is held");
        match lanes.get_mut(session) {
            None => {
                lanes.insert(session.to_owned(), VecDeque::new());
                Entered::First(event)
            }
            Some(waiting) if waiting.len() >= MAX_LANE => Entered::Full(event),
            Some(waiting) => {
                waiting.push_back(event);
                Entered::Waits
            }
        }
    }

    /// Returns the next event of `session`; `None` ends the lane.
    pub fn next(&self, session: &str) -> Option<T> {
        let mut lanes = self.lanes.lock().expect("no panic while the lock is held");
        let next = lanes.get_mut(session)?.pop_front();
        if next.is_none() {
            lanes.remove(session);
        }
        next
    }

    /// Returns how many lanes there are.
    pub fn len(&self) -> usize {
        self.lanes.lock().expect("no panic while the lock is held").len()
    }

    /// Tells whether no event is being handled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_in_order_and_sessions_side_by_side() {
        let lanes = Lanes::default();
        assert_eq!(lanes.enter("a", 1), Entered::First(1));
        assert_eq!(lanes.enter("a", 2), Entered::Waits);
        assert_eq!(lanes.enter("b", 3), Entered::First(3));
        assert_eq!(lanes.len(), 2);
        assert_eq!((lanes.next("a"), lanes.next("a"), lanes.next("b")), (Some(2), None, None));
        assert!(lanes.is_empty());
        assert_eq!(lanes.enter("a", 4), Entered::First(4));
    }

    #[test]
    fn a_full_lane_gives_the_event_back() {
        let lanes = Lanes::default();
        assert_eq!(lanes.enter("a", 0), Entered::First(0));
        for event in 1..=MAX_LANE {
            assert_eq!(lanes.enter("a", event), Entered::Waits);
        }
        assert_eq!(lanes.enter("a", 99), Entered::Full(99));
        assert_eq!(lanes.next("a"), Some(1));
        assert_eq!(lanes.enter("a", 99), Entered::Waits);
    }
}
