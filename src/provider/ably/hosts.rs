//! Ably's hosts: the primary, its fallbacks and the memory of a fallback that worked.
//!
//! Called by the transport before each attempt. The rules are those of Ably's client specification (REC2, RSC15): at most
//! three fallbacks in random order, one that worked is used for ten minutes. Any other host than the default has none.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use url::Url;

const DEFAULT_HOST: &str = "main.realtime.ably.net";
const FALLBACKS: [&str; 5] = [
    "https://main.a.fallback.ably-realtime.com",
    "https://main.b.fallback.ably-realtime.com",
    "https://main.c.fallback.ably-realtime.com",
    "https://main.d.fallback.ably-realtime.com",
    "https://main.e.fallback.ably-realtime.com",
];
/// Attempts on different hosts: the first and three fallbacks.
const ATTEMPTS: usize = 4;
const MEMORY: Duration = Duration::from_secs(600);

/// Where requests go.
#[derive(Debug)]
pub(super) struct Hosts {
    primary: Url,
    fallbacks: Vec<Url>,
    remembered: Mutex<Option<(Url, Instant)>>,
}

impl Hosts {
    /// Makes the hosts for the configured URL.
    pub(super) fn new(primary: Url) -> Hosts {
        let default = primary.scheme() == "https"
            && primary.host_str() == Some(DEFAULT_HOST)
            && primary.port_or_known_default() == Some(443);
        let fallbacks =
            if default { FALLBACKS.iter().filter_map(|url| Url::parse(url).ok()).collect() } else { vec![] };
        Hosts { primary, fallbacks, remembered: Mutex::new(None) }
    }

    /// Returns the path in front of every request's, without its last slash: empty unless `ably.url` has one.
    pub(super) fn base_path(&self) -> &str {
        self.primary.path().trim_end_matches('/')
    }

    /// Returns the hosts to try, in order.
    pub(super) fn plan(&self, now: Instant) -> Vec<Url> {
        let remembered = self.lock().as_ref().filter(|(_, until)| now < *until).map(|(url, _)| url.clone());
        let mut others: Vec<Url> =
            self.fallbacks.iter().filter(|url| Some(*url) != remembered.as_ref()).cloned().collect();
        others.shuffle(&mut rand::rng());
        remembered.into_iter().chain([self.primary.clone()]).chain(others).take(ATTEMPTS).collect()
    }

    /// Remembers a fallback that answered. One that is remembered already is not kept longer for it.
    pub(super) fn answered(&self, host: &Url, now: Instant) {
        let mut remembered = self.lock();
        let known = remembered.as_ref().is_some_and(|(url, until)| url == host && now < *until);
        if *host != self.primary && !known {
            *remembered = Some((host.clone(), now + MEMORY));
        }
    }

    /// Forgets a fallback that failed.
    pub(super) fn failed(&self, host: &Url) {
        let mut remembered = self.lock();
        if remembered.as_ref().is_some_and(|(url, _)| url == host) {
            *remembered = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Url, Instant)>> {
        self.remembered.lock().expect("no panic while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hosts(url: &str) -> Hosts {
        Hosts::new(url.parse().unwrap())
    }

    #[test]
    fn only_the_default_host_has_fallbacks() {
        for (url, count) in [
            ("https://main.realtime.ably.net", 4),
            ("https://main.realtime.ably.net:443/", 4),
            ("https://main.realtime.ably.net:8443", 1),
            ("http://main.realtime.ably.net", 1),
            ("http://127.0.0.1:8181", 1),
            ("https://ably.example", 1),
        ] {
            assert_eq!(hosts(url).plan(Instant::now()).len(), count, "{url}");
        }
    }

    #[test]
    fn fallbacks_come_in_random_order_without_repeats_after_the_primary() {
        let hosts = hosts("https://main.realtime.ably.net");
        let mut seconds = HashSet::new();
        for _ in 0..200 {
            let plan = hosts.plan(Instant::now());
            assert_eq!(plan[0], hosts.primary);
            assert_eq!(plan.iter().collect::<HashSet<_>>().len(), 4);
            seconds.insert(plan[1].clone());
        }
        assert_eq!(seconds.len(), 5);
    }

    #[test]
    fn a_fallback_that_answered_comes_first_for_ten_minutes_or_until_it_fails() {
        let hosts = hosts("https://main.realtime.ably.net");
        let now = Instant::now();
        let fallback = hosts.plan(now)[1].clone();
        hosts.answered(&fallback, now);
        let plan = hosts.plan(now + Duration::from_secs(599));
        assert_eq!((&plan[0], &plan[1], plan.len()), (&fallback, &hosts.primary, 4));
        assert!(!plan[1..].contains(&fallback));
        hosts.answered(&fallback, now + Duration::from_secs(599));
        assert_eq!(hosts.plan(now + Duration::from_secs(600))[0], hosts.primary, "ten minutes from the first success");
        hosts.answered(&fallback, now + Duration::from_secs(600));
        assert_eq!(hosts.plan(now + Duration::from_secs(600))[0], fallback);
        hosts.answered(&hosts.primary, now);
        hosts.failed(&hosts.primary);
        assert_eq!(hosts.plan(now + Duration::from_secs(601))[0], fallback);
        hosts.failed(&fallback);
        assert_eq!(hosts.plan(now)[0], hosts.primary);
    }
}
