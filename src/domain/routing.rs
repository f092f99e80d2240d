//! The route: by which way an event goes, from the catalogue's rule and what was gathered.
//!
//! Called by the worker's third stop (what must be asked) and fourth (what is decided). Pure: every case is in one match.

use jiff::Timestamp;

use super::{
    catalogue::{RouteRule, Text},
    event::Event,
    ledger::{SkipReason, Via},
    outcome::Failure,
};

/// Life of an event that neither says when it expires nor has a life in the catalogue.
pub const DEFAULT_LIFE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What has to be known before the route can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    pub presence: bool,
    /// Push tokens, unless presence makes them unnecessary.
    pub tokens: bool,
}

/// Whether the recipient looks at the session right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    NotAsked,
    Present {
        members: u32,
    },
    Absent,
    /// Every failure of the look-up.
    Unknown(Failure),
}

/// What is known of the recipient's push tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    NotAsked,
    /// No users database: realtime only, as configured.
    NoDatabase,
    /// The database knows no such user.
    NoUser,
    /// The users query gave a `skip_reason`.
    OptedOut,
    /// Usable tokens and how many were passed over as invalid.
    Tokens {
        usable: usize,
        invalid: usize,
    },
}

/// What is done about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Send {
        via: Via,
        rule: String,
    },
    Skip {
        reason: SkipReason,
        rule: String,
    },
    /// Too little is known to send or to skip.
    AskAgain {
        rule: String,
    },
}

/// Returns what must be asked for `event` under `rule`.
pub fn questions(event: &Event, rule: RouteRule) -> Questions {
    let pushable = event.partner_id.is_some() && !event.excludes_recipient();
    match rule {
        RouteRule::Realtime => Questions { presence: false, tokens: false },
        RouteRule::Push => Questions { presence: false, tokens: pushable },
        RouteRule::Presence => Questions { presence: event.partner_id.is_some(), tokens: pushable },
        RouteRule::Always => Questions { presence: pushable, tokens: pushable },
    }
}

/// Decides the route. `retry_unknown` is `presence.on_unknown = "retry"`.
pub fn route(event: &Event, text: &Text, presence: &Presence, recipient: &Recipient, retry_unknown: bool) -> Decision {
    let rule = text.route;
    let sentence = |what: &str| format!("route {}: {what}", rule.as_str());
    let realtime = |what: &str| Decision::Send { via: Via::Realtime, rule: sentence(what) };
    let skip = |reason, what: &str| Decision::Skip { reason, rule: sentence(what) };

    if event.partner_id.is_none() {
        return match rule {
            RouteRule::Push => skip(SkipReason::NoRecipient, "the event names no partner to push to"),
            RouteRule::Presence | RouteRule::Always | RouteRule::Realtime => {
                realtime("no partner is named, so it is published on the session channel only")
            }
        };
    }
    match (rule, presence) {
        (RouteRule::Realtime, _) => return realtime("published on the session channel, never pushed"),
        (RouteRule::Presence | RouteRule::Always, Presence::Present { .. }) => {
            return realtime("the recipient is present on the session");
        }
        (RouteRule::Presence | RouteRule::Always, Presence::Unknown(_))
            if retry_unknown && !event.excludes_recipient() =>
        {
            return Decision::AskAgain { rule: sentence("presence is unknown and presence.on_unknown is retry") };
        }
        (RouteRule::Presence | RouteRule::Always | RouteRule::Push, _) => {}
    }

    // From here on the recipient is not known to be present: whoever can be pushed to is pushed to.
    let why = match (rule, presence) {
        (RouteRule::Push, _) => "pushed whatever the presence",
        (_, Presence::Unknown(_)) => "presence is unknown, which counts as absent",
        (RouteRule::Always, _) if event.excludes_recipient() => "the recipient is excluded from pushes",
        _ => "the recipient is not present",
    };
    let obstacle = obstacle(event, recipient);
    match (rule, obstacle, presence) {
        (RouteRule::Always, None, _) => Decision::Send { via: Via::Both, rule: sentence(why) },
        (RouteRule::Always, Some((_, what)), _) => realtime(&format!("{why}; not pushed: {what}")),
        (_, None, _) => Decision::Send { via: Via::Push, rule: sentence(why) },
        // Whoever excluded himself is never pushed to: knowing his presence would change nothing but realtime.
        (RouteRule::Presence, Some((_, what)), Presence::Unknown(_)) => {
            Decision::AskAgain { rule: sentence(&format!("presence is unknown and {what}")) }
        }
        (_, Some((reason, what)), _) => skip(reason, &format!("{why}; {what}")),
    }
}

/// Returns why the recipient of `event` cannot be pushed to, as a reason and a sentence.
pub fn obstacle(event: &Event, recipient: &Recipient) -> Option<(SkipReason, &'static str)> {
    if event.excludes_recipient() {
        return Some((SkipReason::Excluded, "the recipient is the excluded user"));
    }
    match recipient {
        Recipient::Tokens { usable: 1.., .. } => None,
        Recipient::Tokens { invalid: 1.., .. } => {
            Some((SkipReason::InvalidToken, "no push token is an Expo push token"))
        }
        Recipient::Tokens { .. } => Some((SkipReason::NoToken, "the user has no push token")),
        Recipient::NoUser => Some((SkipReason::NoUser, "the users database knows no such user")),
        Recipient::OptedOut => Some((SkipReason::OptedOut, "the user opted out of pushes")),
        Recipient::NoDatabase => Some((SkipReason::NoToken, "users.url is none: realtime only")),
        Recipient::NotAsked => Some((SkipReason::NoToken, "push tokens were not asked for")),
    }
}

/// Returns when `event` stops mattering: its own `expiresAt` (unless `ignore_expiry`), else the catalogue's life, else 24 h,
/// counted from `life_from`.
pub fn expires_at(event: &Event, text: &Text, life_from: Timestamp, ignore_expiry: bool) -> Timestamp {
    match event.expires_at {
        Some(at) if !ignore_expiry => at,
        _ => {
            let life = jiff::SignedDuration::try_from(text.life.unwrap_or(DEFAULT_LIFE));
            life.ok().and_then(|life| life_from.checked_add(life).ok()).unwrap_or(Timestamp::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        event::{Meta, decode},
        outcome::FailureKind,
    };

    fn event(partner: Option<&str>, exclude: Option<&str>) -> Event {
        let body = json!({"id": "i", "sessionId": "s", "event": "e", "partnerId": partner, "excludeUserId": exclude});
        decode(body.to_string().as_bytes(), &Meta::default()).unwrap()
    }

    fn text(route: RouteRule) -> Text {
        let (title, body) = ("t".into(), "b".into());
        Text { title, body, route, life: None, push_data: None, channel_id: None, priority: None }
    }

    /// Renders a decision shortly, so that a table stays readable.
    fn short(decision: Decision) -> String {
        match decision {
            Decision::Send { via, .. } => via.as_str().into(),
            Decision::Skip { reason, .. } => format!("skip {}", reason.as_str()),
            Decision::AskAgain { .. } => "ask again".into(),
        }
    }

    #[test]
    fn the_route_follows_rule_presence_and_tokens() {
        use Presence::{Absent, NotAsked, Present};
        use RouteRule::{Always, Push, Realtime};
        let rule = RouteRule::Presence;
        let present = Present { members: 1 };
        let unknown = Presence::Unknown(Failure::new(FailureKind::Transient, "timeout", ""));
        let tokens = Recipient::Tokens { usable: 2, invalid: 1 };
        let none = Recipient::Tokens { usable: 0, invalid: 0 };
        let invalid = Recipient::Tokens { usable: 0, invalid: 1 };
        let (partner, nobody, excluded) = (event(Some("p"), None), event(None, None), event(Some("p"), Some("p")));
        for (event, rule, presence, recipient, expected) in [
            (&partner, rule, &present, &Recipient::NotAsked, "realtime"),
            (&partner, rule, &Absent, &tokens, "push"),
            (&partner, rule, &unknown, &tokens, "push"),
            (&partner, rule, &Absent, &none, "skip no_token"),
            (&partner, rule, &Absent, &invalid, "skip invalid_token"),
            (&partner, rule, &Absent, &Recipient::NoUser, "skip no_user"),
            (&partner, rule, &Absent, &Recipient::OptedOut, "skip opted_out"),
            (&partner, rule, &Absent, &Recipient::NoDatabase, "skip no_token"),
            // Unknown with no usable push target is never skipped.
            (&partner, rule, &unknown, &none, "ask again"),
            (&partner, rule, &unknown, &Recipient::NoUser, "ask again"),
            (&excluded, rule, &present, &Recipient::NotAsked, "realtime"),
            (&excluded, rule, &Absent, &Recipient::NotAsked, "skip excluded"),
            (&excluded, rule, &unknown, &Recipient::NotAsked, "ask again"),
            (&nobody, rule, &NotAsked, &Recipient::NotAsked, "realtime"),
            (&partner, Always, &present, &Recipient::NotAsked, "realtime"),
            (&partner, Always, &Absent, &tokens, "both"),
            (&partner, Always, &unknown, &tokens, "both"),
            (&partner, Always, &Absent, &none, "realtime"),
            (&partner, Always, &unknown, &none, "realtime"),
            (&excluded, Always, &NotAsked, &Recipient::NotAsked, "realtime"),
            (&nobody, Always, &NotAsked, &Recipient::NotAsked, "realtime"),
            (&partner, Realtime, &NotAsked, &Recipient::NotAsked, "realtime"),
            (&nobody, Realtime, &NotAsked, &Recipient::NotAsked, "realtime"),
            (&partner, Push, &NotAsked, &tokens, "push"),
            (&partner, Push, &NotAsked, &none, "skip no_token"),
            (&excluded, Push, &NotAsked, &Recipient::NotAsked, "skip excluded"),
            (&nobody, Push, &NotAsked, &Recipient::NotAsked, "skip no_recipient"),
        ] {
            let decision = route(event, &text(rule), presence, recipient, false);
            assert_eq!(short(decision), expected, "{event:?} {rule:?} {presence:?} {recipient:?}");
        }
        assert_eq!(short(route(&partner, &text(rule), &unknown, &tokens, true)), "ask again");
        assert_eq!(short(route(&partner, &text(rule), &Absent, &tokens, true)), "push");
    }

    #[test]
    fn only_what_can_change_the_route_is_asked() {
        let asked = |event: Event, rule| {
            let questions = questions(&event, rule);
            (questions.presence, questions.tokens)
        };
        assert_eq!(asked(event(Some("p"), None), RouteRule::Presence), (true, true));
        assert_eq!(asked(event(Some("p"), Some("p")), RouteRule::Presence), (true, false));
        assert_eq!(asked(event(None, None), RouteRule::Presence), (false, false));
        assert_eq!(asked(event(Some("p"), None), RouteRule::Always), (true, true));
        assert_eq!(asked(event(Some("p"), Some("p")), RouteRule::Always), (false, false));
        assert_eq!(asked(event(Some("p"), None), RouteRule::Realtime), (false, false));
        assert_eq!(asked(event(Some("p"), None), RouteRule::Push), (false, true));
    }

    #[test]
    fn life_is_the_events_own_else_the_catalogues_else_a_day() {
        let from: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut event = event(None, None);
        let mut text = text(RouteRule::Presence);
        assert_eq!(expires_at(&event, &text, from, false).to_string(), "2026-01-02T00:00:00Z");
        text.life = Some(std::time::Duration::from_secs(60));
        assert_eq!(expires_at(&event, &text, from, false).to_string(), "2026-01-01T00:01:00Z");
        event.expires_at = Some("2026-01-01T00:00:30Z".parse().unwrap());
        assert_eq!(expires_at(&event, &text, from, false).to_string(), "2026-01-01T00:00:30Z");
        assert_eq!(expires_at(&event, &text, from, true).to_string(), "2026-01-01T00:01:00Z");
        assert_eq!(expires_at(&event, &text, Timestamp::MAX, true), Timestamp::MAX);
    }
}
