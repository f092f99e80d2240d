//! Lines about the providers: whether Ably takes the key for what herald does with it, and whether Expo answers.

use std::slice;

use crate::{
    config::Config,
    domain::outcome::{Failure, FailureKind, HoldCause, Refusal},
    provider::{
        ably::{Ably, Publish},
        expo::Expo,
    },
};

use super::{Line, Standing, databases::missing};

/// The session whose channels are tried.
const SESSION: &str = "herald-check";
/// A ticket that Expo never gave out.
const NO_TICKET: &str = "00000000-0000-4000-8000-000000000000";

/// Reads presence (capability `subscribe`) and publishes one message (capability `publish`).
pub(super) async fn ably(config: &Config) -> Vec<Line> {
    let Some(key) = &config.ably.key else { return missing(config, "ably.key", "ably") };
    let ably = match Ably::new(&config.ably, key) {
        Ok(ably) => ably,
        Err(error) => return vec![Line::new("ably", Standing::Wrong, error.to_string())],
    };
    let channel = |template: &str| template.replace("{sessionId}", SESSION);
    let (presence, session) = (channel(&config.ably.presence_channel), channel(&config.ably.session_channel));
    let publish = Publish {
        channel: session.clone(),
        name: "herald.check".to_owned(),
        data: "{}".to_owned(),
        id: uuid::Uuid::now_v7().to_string(),
    };
    let read = line("ably", "subscribe", &presence, ably.presence(&presence, "herald-check").await);
    let published = ably.publish(publish).await.map_err(|refusal| match refusal {
        Refusal::Failed(failure) => failure,
        Refusal::Held(HoldCause::Unauthorised) => {
            Failure::new(FailureKind::Unauthorised, "unauthorised", ably.gate().state().why)
        }
        Refusal::Held(cause) => Failure::new(FailureKind::Transient, cause.as_str(), ably.gate().state().why),
    });
    let published = line("ably", "publish", &session, published);
    vec![read, published]
}

fn line<T>(what: &'static str, capability: &str, channel: &str, result: Result<T, Failure>) -> Line {
    match result {
        Ok(_) => Line::new(what, Standing::Ok, format!("the key may {capability} on {channel}")),
        Err(failure) => match refused(&failure) {
            true => {
                let text = format!("{failure}; ably.key (ABLY_API_KEY) needs the capability {capability} on {channel}");
                Line::new(what, Standing::Wrong, text)
            }
            false => {
                Line::new(what, Standing::Unreachable, format!("{failure}; is ably.url right and the network open?"))
            }
        },
    }
}

/// Tells whether the key is at fault. A presence look-up calls no failure final, since none may hold an event, so its status
/// is looked at, too.
fn refused(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Unauthorised | FailureKind::Rejected)
        || matches!(failure.status, Some(401 | 403))
}

/// Asks for a receipt that does not exist: nothing is sent to anybody.
pub(super) async fn expo(config: &Config) -> Vec<Line> {
    let expo = match Expo::new(&config.expo) {
        Ok(expo) => expo,
        Err(error) => return vec![Line::new("expo", Standing::Wrong, error.to_string())],
    };
    vec![match expo.receipts(slice::from_ref(&NO_TICKET.to_owned())).await {
        Ok(_) => Line::new("expo", Standing::Ok, "Expo answers"),
        Err(failure) => match failure.kind {
            FailureKind::Unauthorised => {
                let text = format!("{failure}; set expo.access_token (EXPO_ACCESS_TOKEN) to a token of the project");
                Line::new("expo", Standing::Wrong, text)
            }
            _ => {
                Line::new("expo", Standing::Unreachable, format!("{failure}; is expo.url right and the network open?"))
            }
        },
    }]
}
