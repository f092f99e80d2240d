//! `users test-push`: the way of a push, one step at a time, with the user's own tokens and the project's own credentials.
//!
//! It asks what the worker would ask and sends what the worker would send, beside the worker. The first step that fails is the
//! reason; what comes after it is not tried. No token is cleared and none is told but by its end.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    cli::{connect, operator, output, stop::Stop},
    config::{Config, UsersUrl},
    domain::{
        action::{Deed, user_mark},
        outcome::{FailureKind, HoldCause, Provider, Refusal},
        payload,
    },
    provider::expo::{Expo, Push, Receipt, is_push_token},
    store::{
        Store, StoreError,
        users::{User, Users},
    },
};

use super::{
    advice::{EXPO_CREDENTIALS, advice},
    steps::{Standing, Steps},
};

/// The event's name as the app sees it.
const EVENT: &str = "herald.test_push";
const LIFE_SECONDS: u64 = 600;
/// How often Expo is asked for the receipt.
const ASK: Duration = Duration::from_secs(1);
const EXPO_FIX: &str = "set expo.access_token (EXPO_ACCESS_TOKEN) to a token of the project, and check expo.url";

/// A step that ends the way, told already; or the command cannot go on at all.
enum Ended {
    Told,
    Stop(Stop),
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Ended {
        Ended::Stop(stop)
    }
}

pub(super) async fn run(config: &Config, user: &str, wait: Duration, json: bool) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let action = operator::begin(&store, Deed::TestPush, json!({ "user": user_mark(user) })).await?;
    let mut way = Way { config, store: &store, steps: Steps::new(json), accepted: 0 };
    let ended = match way.go(user, wait).await {
        Ok(()) | Err(Ended::Told) => Ok(()),
        Err(Ended::Stop(stop)) => Err(stop),
    };
    let outcome = way.steps.outcome();
    action.end(ended.as_ref().map(|()| (way.accepted, outcome.as_str()))).await;
    ended?;
    way.steps.end()
}

struct Way<'a> {
    config: &'a Config,
    store: &'a Store,
    steps: Steps,
    /// Pushes that Expo accepted.
    accepted: u64,
}

impl Way<'_> {
    async fn go(&mut self, user: &str, wait: Duration) -> Result<(), Ended> {
        let found = self.find(user).await?;
        let tokens = self.usable(found)?;
        let expo = self.expo().await?;
        self.held().await?;
        let tickets = self.send(&expo, &tokens).await?;
        self.receipts(&expo, &tickets, wait).await
    }

    fn ok(&mut self, step: &'static str, text: &str) -> Result<(), Ended> {
        Ok(self.steps.tell(step, Standing::Ok, text)?)
    }

    fn note(&mut self, step: &'static str, text: &str) -> Result<(), Ended> {
        Ok(self.steps.tell(step, Standing::Note, text)?)
    }

    /// Tells a step that ends the way.
    fn ends<T>(&mut self, step: &'static str, standing: Standing, text: &str) -> Result<T, Ended> {
        self.steps.tell(step, standing, text)?;
        Err(Ended::Told)
    }

    async fn find(&mut self, user: &str) -> Result<User, Ended> {
        let url = match &self.config.users.url {
            UsersUrl::Missing => {
                let text = "users.url (DATABASE_URL) is not set: it is the app's database, where the push tokens are";
                return self.ends("database", Standing::Wrong, text);
            }
            UsersUrl::None => {
                let text =
                    "users.url is `none`: realtime only, nobody is pushed to; set DATABASE_URL to the app's database";
                return self.ends("database", Standing::Wrong, text);
            }
            UsersUrl::Url(url) => url,
        };
        let asked =
            async { Users::open(url, &self.config.users.query, &self.config.users.clear).await?.look_up(user).await };
        let found = match asked.await {
            Ok(found) => found,
            // The database refuses this very id: no user can have it.
            Err(StoreError::Data(_)) => User::default(),
            Err(StoreError::Config(problem)) => return self.ends("database", Standing::Wrong, &problem),
            Err(error) => return self.ends("database", Standing::Failed, &format!("{error}; is users.url right?")),
        };
        self.ok("database", "users.query runs")?;
        if !found.found {
            let text = "users.query returns no row for this id: events for it are skipped (no_user); does the app know the id?";
            return self.ends("user", Standing::Failed, text);
        }
        self.ok("user", "found")?;
        if let Some(reason) = &found.skip_reason {
            let text =
                format!("users.query says `{reason}` (skip_reason): events are skipped (opted_out) until it does not");
            return self.ends("opted out", Standing::Failed, &text);
        }
        self.ok("opted out", "no")?;
        Ok(found)
    }

    /// Returns the tokens that can be sent to.
    fn usable(&mut self, user: User) -> Result<Vec<String>, Ended> {
        let (usable, odd): (Vec<String>, Vec<String>) = user.tokens.into_iter().partition(|token| is_push_token(token));
        for token in &odd {
            let text = format!("…{} is no Expo push token and is passed over", payload::token_end(token));
            self.note("token", &text)?;
        }
        for token in &usable {
            self.ok("token", &format!("…{} looks right", payload::token_end(token)))?;
        }
        match (usable.is_empty(), odd.is_empty()) {
            (false, _) => Ok(usable),
            (true, true) => {
                let text =
                    "the user has no push token: events are skipped (no_token); the app stores one when it may notify";
                self.ends("token", Standing::Failed, text)
            }
            (true, false) => {
                let text = "the user has no Expo push token: events are skipped (invalid_token); the app must store what \
                            getExpoPushTokenAsync returns";
                self.ends("token", Standing::Failed, text)
            }
        }
    }

    async fn expo(&mut self) -> Result<Expo, Ended> {
        let expo = match Expo::new(&self.config.expo) {
            Ok(expo) => expo,
            Err(error) => return self.ends("credentials", Standing::Wrong, &format!("{error:#}")),
        };
        match expo.reachable().await {
            Ok(()) => self.ok("credentials", "Expo answers and takes them")?,
            Err(failure) if failure.kind == FailureKind::Unauthorised => {
                return self.ends("credentials", Standing::Wrong, &format!("{failure}; {EXPO_FIX}"));
            }
            Err(failure) => {
                let text = format!("{failure}; is expo.url right and the network open?");
                return self.ends("credentials", Standing::Failed, &text);
            }
        }
        Ok(expo)
    }

    /// Tells what would keep a worker from sending. Only an operator's hold keeps the test from it, too.
    async fn held(&mut self) -> Result<(), Ended> {
        let steering = self.store.steering().await.map_err(Stop::from)?;
        if let Some(by) = steering.held.get(&Provider::Expo) {
            let text = format!(
                "expo is held {}: pushes wait, and none is sent now; `herald release expo` lets them go",
                by.said()
            );
            return self.ends("hold", Standing::Failed, &text);
        }
        let mut free = true;
        if let Some(by) = &steering.paused {
            free = false;
            self.note("hold", &format!("herald is paused {}: events wait; `herald resume` goes on", by.said()))?;
        }
        let living = self.store.living().await.map_err(Stop::from)?;
        if living.is_empty() {
            free = false;
            self.note("hold", "no worker is running: events wait; start `herald run`")?;
        }
        for worker in living {
            if let Some(gate) = worker.told.gates.get(&Provider::Expo) {
                free = false;
                let cause = gate.cause.as_str();
                let since = output::time(gate.since);
                let text = format!(
                    "worker {} sends nothing to expo since {since} ({cause}): {}; `herald release expo` has it try at once",
                    worker.instance, gate.why
                );
                self.note("hold", &text)?;
            }
        }
        if free { self.ok("hold", "workers send to expo") } else { Ok(()) }
    }

    /// Sends to each token, and returns each ticket's id with its token.
    async fn send(&mut self, expo: &Expo, tokens: &[String]) -> Result<BTreeMap<String, String>, Ended> {
        let catalogue = self.config.catalogue.load().map_err(Stop::from)?;
        let text = catalogue.text(EVENT);
        let id = uuid::Uuid::new_v4().to_string();
        let data: Map<String, Value> = [("event", EVENT), ("eventId", &id)]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let push = |token: &str| Push {
            token: token.to_owned(),
            title: "Test".to_owned(),
            body: "A test push, sent by an operator.".to_owned(),
            data: data.clone(),
            // A UUID is short enough for Apple as it is.
            collapse_id: id.clone(),
            ttl_seconds: LIFE_SECONDS,
            channel_id: text.channel_id.clone(),
            priority: text.priority.clone(),
            until: None,
        };
        let mut tickets = BTreeMap::new();
        for token in tokens {
            let end = payload::token_end(token);
            match expo.send(push(token)).await {
                Ok(ticket) => {
                    self.accepted += 1;
                    match ticket {
                        Some(ticket) => {
                            self.ok("ticket", &format!("…{end} was accepted: {ticket}"))?;
                            tickets.insert(ticket, token.clone());
                        }
                        None => {
                            self.note("ticket", &format!("…{end} was accepted without a ticket: there is no receipt"))?
                        }
                    }
                }
                Err(Refusal::Failed(failure)) => {
                    let (standing, fix) = advice(&failure);
                    self.steps.tell("ticket", standing, &format!("…{end}: {failure}; {fix}"))?;
                }
                Err(Refusal::Held(cause)) => {
                    let why = expo.gate().state().why;
                    let (standing, fix) = match cause {
                        HoldCause::Unauthorised => (Standing::Wrong, EXPO_CREDENTIALS),
                        _ => (Standing::Failed, "events wait until Expo takes requests again"),
                    };
                    self.steps.tell("ticket", standing, &format!("…{end}: {why}; {fix}"))?;
                }
            }
        }
        Ok(tickets)
    }

    async fn receipts(&mut self, expo: &Expo, tickets: &BTreeMap<String, String>, wait: Duration) -> Result<(), Ended> {
        let deadline = Instant::now() + wait;
        let mut open: Vec<String> = tickets.keys().cloned().collect();
        while !open.is_empty() {
            let receipts = match expo.receipts(&open).await {
                Ok(receipts) => receipts,
                Err(failure) => return self.ends("receipt", Standing::Failed, &failure.to_string()),
            };
            for (ticket, receipt) in receipts {
                open.retain(|open| *open != ticket);
                let token = tickets.get(&ticket).map_or("", String::as_str);
                self.receipt(token, receipt)?;
            }
            if open.is_empty() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(ASK).await;
        }
        for ticket in open {
            let text = format!(
                "Expo has none yet for {ticket}: it comes within 15 minutes, mostly within seconds (--wait 15m waits for it)"
            );
            self.note("receipt", &text)?;
        }
        Ok(())
    }

    fn receipt(&mut self, token: &str, receipt: Receipt) -> Result<(), Ended> {
        let end = payload::token_end(token);
        match receipt {
            Receipt::Ok => {
                let text = format!(
                    "…{end} was handed to Apple or Google; if nothing shows, look at the phone: notifications allowed, app installed, \
                     the app's channel and focus"
                );
                self.ok("receipt", &text)
            }
            Receipt::Failed(failure) => {
                // Expo quotes push tokens, and not all have the form that is recognised everywhere.
                let said = failure.to_string().replace(token, "[push token]");
                let (standing, fix) = advice(&failure);
                Ok(self.steps.tell("receipt", standing, &format!("…{end}: {said}; {fix}"))?)
            }
        }
    }
}
