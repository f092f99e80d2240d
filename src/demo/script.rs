//! The demo's script: about twenty events, and what must become of each.
//!
//! Called by the demo. Data only. The `expected` column is what the table is held against, so a script line is a promise.

use serde_json::{Value, json};

use crate::sandbox::{Action, Endpoint, Fault, Match};

/// One line of the script.
pub struct Line {
    /// Event id; fresh for every run.
    pub id: String,
    /// What the line shows.
    pub shows: &'static str,
    pub body: Vec<u8>,
    pub routing_key: String,
    /// `state` and its reason or way, e.g. `done realtime`.
    pub expected: &'static str,
    /// `expected` after the replay.
    pub after_replay: Option<&'static str>,
    /// The ledger knows this message by its id alone.
    pub malformed: bool,
    /// Sent a moment before the next.
    pub alone: bool,
}

/// Users of the demo's database: id and push tokens. `vera` has an account and no phone, `gone` has neither.
pub const USERS: &[(&str, &[&str])] = &[
    ("ada", &["ExponentPushToken[demo-ada-phone]"]),
    ("ben", &["ExponentPushToken[demo-ben-phone]"]),
    ("cleo", &["ExponentPushToken[demo-cleo-phone]", "ExponentPushToken[demo-cleo-tablet]"]),
    ("vera", &[]),
    ("walt", &["not-an-expo-token"]),
    ("uma", &["ExponentPushToken[unregistered-uma]"]),
];

/// Sessions and who looks at them.
pub const PRESENT: &[(&str, &str)] = &[("kitchen", "ada"), ("garden", "cleo"), ("busy", "ada")];

/// The catalogue beside the shipped one, so that every route is seen.
pub const CATALOGUE: &str = r#"
["demo.always"]
title = "Something new"
body = "Take a look when you are ready."
route = "always"

["demo.realtime"]
title = "Never pushed"
body = "Never pushed"
route = "realtime"

["demo.push"]
title = "A reminder"
body = "Your session is waiting for you."
route = "push"
"#;

/// Returns what goes wrong until the demo mends it: one session's publishes fail, another's are refused.
pub fn faults(run: &str) -> [Fault; 2] {
    let busy = Match { endpoint: Some(Endpoint::Publish), contains: Some(format!("busy-{run}")), ..Match::default() };
    let refused = Match { contains: Some(format!("refused-{run}")), ..Match::default() };
    [
        Fault { matching: busy, status: Some(503), ..Fault::new(Action::Status) },
        Fault { matching: refused, status: Some(422), ..Fault::new(Action::Status) },
    ]
}

/// Returns the script with ids that no other run uses.
pub fn events(run: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |shows, event: &str, session: &str, partner: Option<&str>, more: Value, expected| {
        let id = format!("demo-{run}-{:02}", lines.len() + 1);
        let mut body = json!({"id": id, "sessionId": format!("{session}-{run}"), "event": event, "data": {"stage": 2}});
        if let Some(partner) = partner {
            body["partnerId"] = partner.into();
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let (body, routing_key) = (body.to_string().into_bytes(), event.to_owned());
        lines.push(Line { id, shows, body, routing_key, expected, after_replay: None, malformed: false, alone: false });
    };
    let none = || json!({});
    add("a retry that succeeds", "agreement.proposed", "busy", Some("ada"), none(), "done realtime");
    add("present: published", "partner.signed_compact", "kitchen", Some("ada"), none(), "done realtime");
    add("absent: pushed", "partner.stage_completed", "kitchen", Some("ben"), none(), "done push");
    add("absent, two phones", "partner.advanced", "porch", Some("cleo"), none(), "done push");
    add("always, present", "demo.always", "garden", Some("cleo"), none(), "done realtime");
    add("always, absent", "demo.always", "attic", Some("ben"), none(), "done both");
    add("realtime only", "demo.realtime", "attic", Some("ben"), none(), "done realtime");
    add("push only, though present", "demo.push", "kitchen", Some("ada"), none(), "done push");
    add("no partner: channel only", "session.resumed", "kitchen", None, none(), "done realtime");
    add("unknown name: fallback text", "chat-item:new", "porch", Some("ben"), none(), "done push");
    add("presence unknown: pushed", "session.paused", "fault-presence-denied", Some("ada"), none(), "done push");
    add("user without a phone", "agreement.confirmed", "porch", Some("vera"), none(), "skipped no_token");
    add("token that is none", "session.resolved", "porch", Some("walt"), none(), "skipped invalid_token");
    add("phone that is gone", "partner.needs_shared", "porch", Some("uma"), none(), "skipped invalid_token");
    add("deleted user", "partner.empathy_shared", "porch", Some("gone"), none(), "skipped no_user");
    let excluded = json!({"excludeUserId": "ben"});
    add("excluded user, absent", "session.paused", "porch", Some("ben"), excluded, "skipped excluded");
    let late = json!({"expiresAt": "2020-01-01T00:00:00Z"});
    add("came too late", "partner.ranking_submitted", "kitchen", Some("ada"), late, "skipped expired");
    add("push without partner", "demo.push", "kitchen", None, none(), "skipped no_recipient");
    add("refused, mended, replayed", "session.resolved", "refused", None, none(), "dead rejected");
    lines[0].alone = true;
    lines[18].after_replay = Some("done realtime");
    lines.push(Line {
        id: format!("demo-{run}-{:02}", lines.len() + 1),
        shows: "not readable: no sessionId",
        body: br#"{"event": "partner.advanced"}"#.to_vec(),
        routing_key: "partner.advanced".into(),
        expected: "dead malformed",
        after_replay: None,
        malformed: true,
        alone: false,
    });
    lines
}
