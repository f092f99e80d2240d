//! What an operator has to know first: what is paused or held, what does not answer, what is wrong, and what to do about each.
//!
//! Called by `status`. Pure.

use serde::Serialize;

use crate::domain::{
    steering::{Setting, Steering},
    symptoms::Symptom,
    when::time,
};

use super::status::{Connection, Standing};

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody must act.
    Bad,
    /// Somebody should know.
    Warn,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// For scripts, and so that the same trouble stays the same line.
    pub key: String,
    pub level: Level,
    pub what: String,
    /// Milliseconds since the epoch.
    pub since: Option<i64>,
    #[serde(rename = "do")]
    pub todo: String,
}

/// Returns everything to know, the gravest first.
pub fn troubles(
    connections: &[Connection],
    steering: Option<&Steering>,
    not_ready: Option<&str>,
    symptoms: Vec<Symptom>,
) -> Vec<Trouble> {
    let mut found: Vec<Trouble> = connections.iter().filter_map(unwell).collect();
    let paused = steering.and_then(|steering| steering.paused.as_ref());
    let anything_away = found.iter().any(|trouble| ["broker", "store", "users"].contains(&trouble.key.as_str()));
    if let Some(why) = not_ready.filter(|_| paused.is_none() && !anything_away) {
        let (what, todo) = (
            format!("This worker takes no events in: {why}"),
            "it goes on by itself when that is over; its log tells more",
        );
        found.push(Trouble { key: "not_ready".into(), level: Level::Warn, what, since: None, todo: todo.into() });
    }
    // That nobody consumes is what a pause is.
    let meant = |symptom: &Symptom| paused.is_some() && symptom.name == "no_consumer";
    found.extend(symptoms.into_iter().filter(|symptom| !meant(symptom)).map(|symptom| Trouble {
        level: if ["letters_growing", "overdue"].contains(&symptom.name) { Level::Warn } else { Level::Bad },
        key: symptom.name.to_owned(),
        // Which flag of the command sets the limit is nothing to the page.
        what: sentence(&symptom.says.replace(" (--max-age)", "").replace(" (--dead-within)", "")),
        since: None,
        todo: symptom.todo,
    }));
    found.sort_by_key(|trouble| trouble.level == Level::Warn);
    let mut all: Vec<Trouble> = steering.map(set).unwrap_or_default();
    all.extend(found);
    all
}

/// What operators have set stands above everything: it may be why the rest is as it is.
fn set(steering: &Steering) -> Vec<Trouble> {
    let by = |setting: &Setting| {
        let why = setting.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("by {}{why}", setting.who)
    };
    let paused = steering.paused.iter().map(|setting| Trouble {
        key: "paused".into(),
        level: Level::Warn,
        what: format!("PAUSED {}", by(setting)),
        since: Some(setting.since),
        todo: "no worker takes events in; they wait in the queues until somebody resumes (`herald resume`)".into(),
    });
    let held = steering.held.iter().map(|(provider, setting)| Trouble {
        key: format!("held_{provider}"),
        level: Level::Warn,
        what: format!("{} HELD {}", provider.as_str().to_uppercase(), by(setting)),
        since: Some(setting.since),
        todo: format!("its events wait, using up no attempt, until somebody releases it (`herald release {provider}`)"),
    });
    let log = steering.log.iter().map(|log| Trouble {
        key: "log".into(),
        level: Level::Warn,
        what: format!("The log filter is `{}` {}", log.filter, by(&log.by)),
        since: Some(log.by.since),
        todo: match log.until {
            Some(until) => format!("it ends by itself at {} (`herald log-level --reset` ends it now)", time(until)),
            None => "`log.level` does not count until somebody resets it (`herald log-level --reset`)".to_owned(),
        },
    });
    paused.chain(held).chain(log).collect()
}

fn unwell(connection: &Connection) -> Option<Trouble> {
    let (level, what, todo) = match (connection.state, connection.name) {
        // What operators have set is told above.
        (Standing::Ok | Standing::Off | Standing::Held, _) => return None,
        (Standing::Throttled, name) => {
            (Level::Warn, format!("{} asks for less", title(name)), "its events wait; they go on by themselves")
        }
        (Standing::Refused, "ably") => (
            Level::Bad,
            "Ably refuses our credentials".to_owned(),
            "check ABLY_API_KEY (ably.key) and its capabilities; its events wait, using up no attempt",
        ),
        (Standing::Refused, _) => (
            Level::Bad,
            "Expo refuses our credentials".to_owned(),
            "check EXPO_ACCESS_TOKEN (expo.access_token) and the project's push credentials; its events wait, using up no attempt",
        ),
        (Standing::Down, name @ ("ably" | "expo")) => (
            Level::Bad,
            format!("{} fails", title(name)),
            "its events wait, using up no attempt; it is tried again by itself",
        ),
        (Standing::Down, name) => (
            Level::Bad,
            format!("{} does not answer", title(name)),
            "nothing is lost: events wait in the broker until it is back; `herald check` tells what is missing",
        ),
    };
    let why = connection.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    Some(Trouble { key: connection.name.into(), level, what: what + &why, since: connection.since, todo: todo.into() })
}

fn title(name: &str) -> &str {
    match name {
        "ably" => "Ably",
        "expo" => "Expo",
        "broker" => "RabbitMQ",
        "store" => "The ledger",
        "users" => "The users database",
        other => other,
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{outcome::Provider, steering::LogFilter};

    fn connection(name: &'static str, state: Standing) -> Connection {
        let why = (state != Standing::Ok).then(|| "words".to_owned());
        Connection { name, state, since: Some(7), why, waiting: None }
    }

    fn symptom(name: &'static str) -> Symptom {
        Symptom { name, says: "nobody takes events".into(), todo: "start one".into() }
    }

    fn keys(troubles: &[Trouble]) -> Vec<&str> {
        troubles.iter().map(|trouble| trouble.key.as_str()).collect()
    }

    #[test]
    fn the_gravest_comes_first_and_what_operators_set_before_it() {
        let connections = [
            connection("ably", Standing::Throttled),
            connection("expo", Standing::Refused),
            connection("broker", Standing::Ok),
            connection("users", Standing::Off),
        ];
        let told = troubles(&connections, None, None, vec![symptom("letters_growing"), symptom("no_consumer")]);
        assert_eq!(keys(&told), ["expo", "no_consumer", "ably", "letters_growing"]);
        assert!(told[0].what.contains("words") && told[0].todo.contains("EXPO_ACCESS_TOKEN"), "{told:?}");

        let by = |why: Option<&str>| Setting { who: "ada".into(), why: why.map(str::to_owned), since: 9 };
        let steering = Steering {
            paused: Some(by(Some("deploying"))),
            held: [(Provider::Ably, by(None))].into(),
            ..Steering::default()
        };
        let told = troubles(&connections, Some(&steering), Some("paused"), vec![symptom("no_consumer")]);
        assert_eq!(keys(&told), ["paused", "held_ably", "expo", "ably"], "a pause is no lack of a consumer");
        assert_eq!(told[0].what, "PAUSED by ada: deploying");

        let log = LogFilter { filter: "debug".into(), until: Some(1_795_380_667_123), by: by(None) };
        let told = troubles(&[], Some(&Steering { log: Some(log), ..Steering::default() }), None, Vec::new());
        assert_eq!((told[0].key.as_str(), told[0].what.as_str()), ("log", "The log filter is `debug` by ada"));
        assert!(told[0].todo.contains("at 2026-11-22 20:51:07Z"), "{told:?}");
    }

    #[test]
    fn why_nothing_is_taken_in_is_told_once() {
        let away = [connection("store", Standing::Down)];
        assert_eq!(keys(&troubles(&away, None, Some("store.url: away"), Vec::new())), ["store"]);
        assert_eq!(keys(&troubles(&[], None, Some("shutting down"), Vec::new())), ["not_ready"]);
        assert_eq!(keys(&troubles(&[], None, None, Vec::new())), [""; 0]);
    }
}
