//! What operators set while herald runs: the intake paused, a provider held, the log's filter.
//!
//! Kept by `store`, obeyed by `worker`, set by the commands and the page. Pure: says what there is to obey and never does it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    action::Deed,
    outcome::{HoldCause, Provider},
    when::time,
};

/// Who set something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `user@host` of the command line, or the page with the caller's address.
    pub who: String,
    pub why: Option<String>,
    /// Milliseconds since the epoch, by the store's clock.
    pub since: i64,
}

impl Setting {
    /// Returns it as a phrase: `by ada@laptop since 2026-11-22 20:41:07Z (deploying)`.
    pub fn said(&self) -> String {
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!("by {} since {}{why}", self.who, time(self.since))
    }
}

/// A filter that stands in for `log.level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    pub filter: String,
    /// When `log.level` counts again, in milliseconds since the epoch; `None`: when somebody says so.
    pub until: Option<i64>,
    #[serde(flatten)]
    pub by: Setting,
}

/// Everything operators have set, for every worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Grows with every change.
    pub version: i64,
    /// Nothing is taken from the event and hold queues.
    pub paused: Option<Setting>,
    /// Providers that get no request.
    pub held: BTreeMap<Provider, Setting>,
    pub log: Option<LogFilter>,
    /// Versions of the last release of each provider: whatever else shut its gate, it may be probed at once.
    pub released: BTreeMap<Provider, i64>,
}

/// What a worker has to do to obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Pause(Setting),
    Resume,
    Hold(Provider, Setting),
    Release(Provider),
    /// `None`: the filter of `log.level`.
    Log(Option<LogFilter>),
}

impl Steering {
    /// Returns what is to be done by a worker that obeyed `before`; `None`: one that has just started.
    pub fn orders(&self, before: Option<&Steering>) -> Vec<Order> {
        let nothing = Steering { released: self.released.clone(), ..Steering::default() };
        let first = before.is_none();
        let before = before.unwrap_or(&nothing);
        let mut orders = Vec::new();
        for provider in Provider::ALL {
            let released = self.released.get(&provider) > before.released.get(&provider);
            match self.held.get(&provider) {
                Some(setting) if before.held.get(&provider) != Some(setting) => {
                    orders.push(Order::Hold(provider, setting.clone()));
                }
                None if released || before.held.contains_key(&provider) => orders.push(Order::Release(provider)),
                Some(_) | None => {}
            }
        }
        if self.log != before.log {
            orders.push(Order::Log(self.log.clone()));
        }
        // Last: nothing is taken in before the gates are as they have to be.
        match &self.paused {
            Some(setting) if before.paused.as_ref() != Some(setting) => orders.push(Order::Pause(setting.clone())),
            None if first || before.paused.is_some() => orders.push(Order::Resume),
            Some(_) | None => {}
        }
        orders
    }

    /// Says what is paused or held, a loud sentence each, with the command that ends it; the log's filter last.
    pub fn said(&self) -> Vec<String> {
        let paused = self.paused.iter().map(|by| format!("PAUSED {}: `herald resume` goes on", by.said()));
        let held = self.held.iter().map(|(provider, by)| {
            let name = provider.as_str().to_uppercase();
            format!("{name} HELD {}: `herald release {provider}` lets its events go", by.said())
        });
        let log = self.log.iter().map(|log| {
            let until = log.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
            format!("log filter `{}` {}{until}: `herald log-level --reset` ends it", log.filter, log.by.said())
        });
        paused.chain(held).chain(log).collect()
    }
}

/// What an operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Pause,
    Resume,
    Hold(Provider),
    Release(Provider),
    /// A filter that [`steered_filter`](crate::telemetry::steered_filter) let pass, for so long.
    LogLevel(String, Option<Duration>),
    LogReset,
}

impl Change {
    /// Returns what is recorded of it.
    pub fn deed(&self) -> (Deed, Value) {
        match self {
            Change::Pause => (Deed::Pause, json!({})),
            Change::Resume => (Deed::Resume, json!({})),
            Change::Hold(provider) => (Deed::Hold, json!({ "provider": provider })),
            Change::Release(provider) => (Deed::Release, json!({ "provider": provider })),
            Change::LogLevel(filter, lasts) => {
                (Deed::LogLevel, json!({ "filter": filter, "seconds": lasts.map(|lasts| lasts.as_secs()) }))
            }
            Change::LogReset => (Deed::LogLevel, json!({ "filter": null })),
        }
    }
}

/// What a worker says of a gate that is shut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutGate {
    pub cause: HoldCause,
    /// Milliseconds since the epoch.
    pub since: i64,
    /// A bounded, redacted sentence.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(who: &str) -> Setting {
        Setting { who: who.to_owned(), why: None, since: 1_795_380_067_123 }
    }

    fn held(provider: Provider) -> Steering {
        Steering { version: 1, held: [(provider, by("ada"))].into(), ..Steering::default() }
    }

    #[test]
    fn a_worker_does_what_changed_and_a_new_one_everything() {
        use Provider::{Ably, Expo};
        let none = Steering::default();
        let paused = Steering { version: 1, paused: Some(by("ada")), ..none.clone() };
        let filter = LogFilter { filter: "debug".to_owned(), until: None, by: by("ada") };
        let logged = Steering { version: 1, log: Some(filter.clone()), ..none.clone() };
        let released = |version| Steering { version, released: [(Expo, version)].into(), ..none.clone() };
        for (before, now, expected) in [
            (None, &none, vec![Order::Resume]),
            (None, &paused, vec![Order::Pause(by("ada"))]),
            (None, &held(Ably), vec![Order::Hold(Ably, by("ada")), Order::Resume]),
            // What was released before the start is of no interest now.
            (None, &released(7), vec![Order::Resume]),
            (None, &logged, vec![Order::Log(Some(filter)), Order::Resume]),
            (Some(&none), &none, vec![]),
            (Some(&paused), &paused, vec![]),
            (Some(&paused), &none, vec![Order::Resume]),
            (Some(&held(Expo)), &held(Ably), vec![Order::Hold(Ably, by("ada")), Order::Release(Expo)]),
            (Some(&held(Expo)), &released(2), vec![Order::Release(Expo)]),
            // Nothing was held by an operator: a release still lets the gate be probed.
            (Some(&released(2)), &released(3), vec![Order::Release(Expo)]),
            (Some(&logged), &none, vec![Order::Log(None)]),
        ] {
            assert_eq!(now.orders(before), expected, "{before:?} -> {now:?}");
        }
    }

    #[test]
    fn what_is_set_is_said_loudly_with_what_ends_it() {
        assert_eq!(Steering::default().said(), Vec::<String>::new());
        let why = Setting { why: Some("deploying".to_owned()), ..by("ada@laptop") };
        let log = LogFilter { filter: "debug".to_owned(), until: Some(1_795_380_667_123), by: by("bob") };
        let all = Steering { paused: Some(why), log: Some(log), ..held(Provider::Expo) };
        assert_eq!(
            all.said(),
            [
                "PAUSED by ada@laptop since 2026-11-22 20:41:07Z (deploying): `herald resume` goes on",
                "EXPO HELD by ada since 2026-11-22 20:41:07Z: `herald release expo` lets its events go",
                "log filter `debug` by bob since 2026-11-22 20:41:07Z until 2026-11-22 20:51:07Z: `herald log-level --reset` \
                 ends it",
            ]
        );
    }
}
