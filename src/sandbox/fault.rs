//! The faults in force: rules set through the control API, and magic ids with their counts.
//!
//! The server asks once per request what shall go wrong; the Ably channels ask once each. What is remembered about magic
//! ids is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    call::Call,
    lock,
    magic::{self, ItemFault},
    route::{Endpoint, Provider},
};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Answers `status` (default 500), with `body` or the provider's usual one.
    Status,
    /// Never answers; nothing is accepted.
    Hang,
    /// Resets the connection; nothing is accepted.
    ResetBefore,
    /// Accepts, then resets the connection.
    ResetAfter,
    /// Accepts, never answers.
    LostAnswer,
    /// Answers 429, with `retry_after` seconds when given.
    #[serde(rename = "429")]
    Throttle,
    /// Waits `delay_ms` (default 2000), then goes on as usual.
    Slow,
    /// Waits until released, before or after accepting (`phase`).
    Hold,
    /// Accepts, answers 200 with a body nobody can read.
    Garbage,
    /// Accepts, answers one ticket or result too few.
    WrongTicketCount,
}

/// Whether a fault strikes before or after the request took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Before,
    After,
}

/// Which requests a fault concerns; what is absent matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    pub provider: Option<Provider>,
    pub endpoint: Option<Endpoint>,
    /// A piece of the decoded path, the decoded query or the body.
    pub contains: Option<String>,
}

/// One rule: what happens to which requests, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(default, rename = "match")]
    pub matching: Match,
    pub action: Action,
    /// How many requests it strikes; absent: until it is removed.
    #[serde(default)]
    pub times: Option<u32>,
    /// Seconds.
    #[serde(default)]
    pub retry_after: Option<u32>,
    #[serde(default)]
    pub delay_ms: Option<u64>,
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub body: Option<String>,
    /// For `status` and `hold`.
    #[serde(default)]
    pub phase: Phase,
}

impl Fault {
    /// Returns `action` for every request, until removed.
    pub fn new(action: Action) -> Self {
        Self {
            matching: Match::default(),
            action,
            times: None,
            retry_after: None,
            delay_ms: None,
            status: None,
            body: None,
            phase: Phase::Before,
        }
    }
}

/// A request waiting to be released.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    pub provider: Provider,
    pub endpoint: Endpoint,
    pub path: String,
    pub phase: Phase,
}

/// A fault that strikes, and how the journal calls it.
pub(super) struct Strike {
    pub fault: Fault,
    pub label: String,
}

const MAX_RULES: usize = 1000;
const MAX_COUNTED: usize = 100_000;

#[derive(Debug)]
pub(super) struct Faults {
    rules: Mutex<Vec<Fault>>,
    /// How often each counted magic id has struck.
    counted: Mutex<HashMap<String, u32>>,
    held: Mutex<BTreeMap<u64, Waiting>>,
    released: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Mutex::default(),
            counted: Mutex::default(),
            held: Mutex::default(),
            released: watch::Sender::new(0),
        }
    }
}

impl Faults {
    /// Adds a rule behind those in force; false when there are too many.
    pub fn add(&self, fault: Fault) -> bool {
        let mut rules = lock(&self.rules);
        let room = rules.len() < MAX_RULES;
        if room {
            rules.push(fault);
        }
        room
    }

    pub fn rules(&self) -> Vec<Fault> {
        lock(&self.rules).clone()
    }

    /// Removes all rules, forgets the counts of magic ids and releases what is held.
    pub fn clear(&self) {
        lock(&self.rules).clear();
        lock(&self.counted).clear();
        self.release();
    }

    /// Ends every hold rule and lets all held requests go on; returns how many.
    pub fn release(&self) -> usize {
        lock(&self.rules).retain(|rule| rule.action != Action::Hold);
        let waiting = lock(&self.held).len();
        self.released.send_modify(|round| *round += 1);
        waiting
    }

    pub fn held(&self) -> Vec<Waiting> {
        lock(&self.held).values().cloned().collect()
    }

    /// Returns what shall go wrong with `call`: the first rule that matches, else the first magic id that is not used up.
    pub fn strike(&self, call: &Call) -> Option<Strike> {
        let provider = call.route.endpoint.provider();
        {
            let mut rules = lock(&self.rules);
            let found = rules.iter().position(|rule| {
                rule.matching.provider.is_none_or(|wanted| wanted == provider)
                    && rule.matching.endpoint.is_none_or(|wanted| wanted == call.route.endpoint)
                    && rule.matching.contains.as_deref().is_none_or(|part| call.texts().any(|text| text.contains(part)))
            });
            if let Some(index) = found {
                let fault = rules[index].clone();
                match &mut rules[index].times {
                    Some(0 | 1) => drop(rules.remove(index)),
                    Some(times) => *times -= 1,
                    None => {}
                }
                let label = serde_json::to_value(fault.action).ok().and_then(|name| name.as_str().map(str::to_owned));
                return Some(Strike { fault, label: label.unwrap_or_default() });
            }
        }
        for text in call.texts() {
            for found in magic::find(&text, call.route.endpoint) {
                if let magic::Effect::Request(fault) = &found.effect
                    && self.count(&found)
                {
                    return Some(Strike { fault: fault.clone(), label: found.label.to_owned() });
                }
            }
        }
        None
    }

    /// Returns what this one `channel` is refused with.
    pub fn strike_channel(&self, channel: &str, endpoint: Endpoint) -> Option<ItemFault> {
        magic::find(channel, endpoint).find_map(|found| match found.effect {
            magic::Effect::Item(fault) => self.count(&found).then_some(fault),
            magic::Effect::Request(_) => None,
        })
    }

    /// Counts one strike of a magic id; false when it has struck as often as it should.
    fn count(&self, found: &magic::Found<'_>) -> bool {
        let Some(times) = found.times else { return true };
        let mut counted = lock(&self.counted);
        if !counted.contains_key(found.id) && counted.len() >= MAX_COUNTED {
            return false;
        }
        let struck = counted.entry(found.id.to_owned()).or_default();
        if *struck >= times {
            return false;
        }
        *struck += 1;
        true
    }

    /// Waits until the next release. Dropping the future ends the wait as well.
    pub async fn hold(&self, waiting: Waiting) {
        let mut released = self.released.subscribe();
        let _listed = Listed::new(self, waiting);
        // The sender lives as long as `self`, so this only ends with a release.
        let _ = released.changed().await;
    }
}

/// Keeps a request on the list of held ones while it lives.
struct Listed<'f>(&'f Faults, u64);

impl<'f> Listed<'f> {
    fn new(faults: &'f Faults, waiting: Waiting) -> Self {
        let mut held = lock(&faults.held);
        let number = held.last_key_value().map_or(0, |(last, _)| last + 1);
        held.insert(number, waiting);
        Self(faults, number)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.0.held).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::route::route;

    fn call(method: &str, path: &str) -> Call {
        Call { route: route(method, path), ..Call::empty(method, path) }
    }

    #[test]
    fn rules_match_and_run_out() {
        let faults = Faults::default();
        let matching =
            Match { endpoint: Some(Endpoint::Publish), contains: Some("room 1".to_owned()), ..Match::default() };
        assert!(faults.add(Fault { matching, times: Some(2), ..Fault::new(Action::Hang) }));
        let strikes = |path| faults.strike(&call("POST", path)).map(|strike| strike.label);
        assert_eq!(strikes("/channels/room%202/messages"), None);
        assert_eq!(strikes("/channels/room%201/messages"), Some("hang".to_owned()));
        assert!(faults.strike(&call("GET", "/channels/room%201/presence")).is_none(), "another endpoint");
        assert_eq!(strikes("/channels/room%201/messages"), Some("hang".to_owned()));
        assert_eq!(strikes("/channels/room%201/messages"), None, "used up");
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn a_counted_magic_id_strikes_over_all_calls_together() {
        let faults = Faults::default();
        assert!(faults.strike(&call("GET", "/channels/s:fault-500x2-a:presence/presence")).is_some());
        assert!(faults.strike(&call("POST", "/channels/s:fault-500x2-a/messages")).is_some());
        assert!(faults.strike(&call("POST", "/channels/s:fault-500x2-a/messages")).is_none());
        assert!(faults.strike(&call("POST", "/channels/s:fault-500x2-b/messages")).is_some(), "another id");
        assert!(faults.strike_channel("s:fault-deniedx1", Endpoint::Publish).is_some());
        assert!(faults.strike_channel("s:fault-deniedx1", Endpoint::Publish).is_none());
    }
}
