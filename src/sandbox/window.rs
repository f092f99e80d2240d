//! What is remembered for a while: how often something happened lately, and which ids were seen.
//!
//! Both forget from the front of a queue ordered by time, so that every request pays for its own entries only. They never
//! read the clock: the time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// A sliding window of one second, counted per key.
#[derive(Debug, Default)]
pub(super) struct Rates {
    seen: VecDeque<(Instant, Arc<str>, u32)>,
    counts: HashMap<Arc<str>, u32>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Rates {
    /// Counts `weight` for `key` and returns true, unless that makes more than `limit` within the last second. A `limit` of
    /// 0 means none.
    pub fn admit(&mut self, key: &str, weight: u32, limit: u32, now: Instant) -> bool {
        if limit == 0 {
            return true;
        }
        self.forget(now);
        let (key, count) = match self.counts.get_key_value(key) {
            Some((key, count)) => (key.clone(), *count),
            None => (Arc::from(key), 0),
        };
        if count + weight > limit {
            return false;
        }
        self.counts.insert(key.clone(), count + weight);
        self.seen.push_back((now, key, weight));
        true
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, ..)) = self.seen.front()
            && now.saturating_duration_since(*at) >= SECOND
            && let Some((_, key, weight)) = self.seen.pop_front()
            && let Some(count) = self.counts.get_mut(&key)
        {
            *count = count.saturating_sub(weight);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}

/// Values remembered for a fixed time, at most a fixed number of them.
#[derive(Debug)]
pub(super) struct Memory<V> {
    values: HashMap<Arc<str>, (Instant, V)>,
    order: VecDeque<(Instant, Arc<str>)>,
    capacity: usize,
}

impl<V> Memory<V> {
    pub fn new(capacity: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// Returns what was put under `key` less than `life` ago, with the time it was put there.
    pub fn get(&mut self, key: &str, life: Duration, now: Instant) -> Option<(Instant, &V)> {
        self.forget(life, now);
        self.values.get(key).map(|(at, value)| (*at, value))
    }

    /// Remembers `value` under a `key` that is not remembered; the oldest makes room when there is none.
    pub fn put(&mut self, key: String, value: V, now: Instant) {
        if self.order.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        let key: Arc<str> = key.into();
        self.order.push_back((now, key.clone()));
        self.values.insert(key, (now, value));
    }

    fn forget(&mut self, life: Duration, now: Instant) {
        while let Some((at, _)) = self.order.front()
            && now.saturating_duration_since(*at) >= life
            && let Some((_, key)) = self.order.pop_front()
        {
            self.values.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_later_there_is_room_again() {
        let mut rates = Rates::default();
        let start = Instant::now();
        assert!(rates.admit("a", 2, 3, start));
        assert!(rates.admit("a", 1, 3, start + SECOND / 2));
        assert!(!rates.admit("a", 1, 3, start + SECOND / 2), "four within a second");
        assert!(rates.admit("b", 3, 3, start + SECOND / 2), "keys are counted apart");
        assert!(rates.admit("a", 2, 3, start + SECOND), "the first two have left the window");
        assert!(!rates.admit("a", 1, 3, start + SECOND));
        assert!(rates.admit("c", 1, 3, start + 9 * SECOND));
        assert_eq!(rates.counts.len(), 1, "idle keys are forgotten");
    }

    #[test]
    fn values_are_forgotten_by_age_and_by_number() {
        let mut memory = Memory::new(2);
        let start = Instant::now();
        memory.put("a".to_owned(), 1, start);
        assert_eq!(memory.get("a", SECOND, start + SECOND / 2), Some((start, &1)));
        assert_eq!(memory.get("a", SECOND, start + SECOND), None);
        for (key, value) in [("b", 2), ("c", 3), ("d", 4)] {
            memory.put(key.to_owned(), value, start + SECOND);
        }
        assert_eq!(memory.get("b", SECOND, start + SECOND), None, "the oldest made room");
        assert_eq!(memory.get("d", SECOND, start + SECOND), Some((start + SECOND, &4)));
        assert_eq!((memory.values.len(), memory.order.len()), (2, 2));
    }
}
