//! What reached clients and phones: every accepted event per channel or push token, with repeats counted.
//!
//! This is what a checker compares with a ledger to count what was lost and what came twice. A repeat that Ably dropped,
//! and a push whose receipt says that the provider refused it, reached nobody and is not here.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use serde::Serialize;

use super::route::Provider;

/// One event on one channel or phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    pub provider: Provider,
    /// Channel or push token.
    pub target: Arc<str>,
    /// Ably's message id, or `data.eventId` (else the collapse id or tag) of a push; "" when it had none.
    pub event: Arc<str>,
    /// Ably's message name, or the title of a push.
    pub name: Option<String>,
    /// How often it arrived.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Effects {
    list: Vec<Effect>,
    index: HashMap<(Provider, Arc<str>, Arc<str>), usize>,
    unlisted: u64,
}

impl Effects {
    /// Adds `effect`, or counts a repeat; a new one over `limit` is only counted.
    pub fn add(&mut self, effect: Effect, limit: usize) {
        let key = (effect.provider, effect.target.clone(), effect.event.clone());
        match self.index.entry(key) {
            Entry::Occupied(known) => self.list[*known.get()].count += effect.count,
            Entry::Vacant(_) if self.list.len() >= limit => self.unlisted += effect.count,
            Entry::Vacant(new) => {
                new.insert(self.list.len());
                self.list.push(effect);
            }
        }
    }

    pub fn list(&self, from: usize, limit: usize) -> Vec<Effect> {
        self.list.iter().skip(from).take(limit).cloned().collect()
    }

    pub fn totals(&self) -> (usize, u64) {
        (self.list.len(), self.unlisted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_the_list_is_bounded() {
        let mut effects = Effects::default();
        for event in ["a", "b", "a", "c"] {
            let effect =
                Effect { provider: Provider::Ably, target: "t".into(), event: event.into(), name: None, count: 1 };
            effects.add(effect, 2);
        }
        let seen: Vec<_> =
            effects.list(0, 10).into_iter().map(|effect| (effect.event.to_string(), effect.count)).collect();
        assert_eq!(seen, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(effects.totals(), (2, 1));
    }
}
