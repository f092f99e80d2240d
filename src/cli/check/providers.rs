//! Lines about the providers: whether Ably takes the key for what herald does with it, and whether Expo answers.

use crate::{
    config::Config,
    domain::outcome::{Failure, FailureKind},
    provider::{ably::Ably, expo::Expo},
};

use super::{Line, Standing, databases::missing};

/// Reads presence (capability `subscribe`) and publishes one message (capability `publish`).
pub(super) async fn ably(config: &Config) -> Vec<Line> {
    let Some(key) = &config.ably.key else { return missing(config, "ably.key", "ably") };
    let ably = match Ably::new(&config.ably, key) {
        Ok(ably) => ably,
        Err(error) => return vec![Line::new("ably", Standing::Wrong, error.to_string())],
    };
    ably.check().await.into_iter().map(|(what, result)| line(what, result)).collect()
}

fn line(what: &str, result: Result<(), Failure>) -> Line {
    match result {
        Ok(()) => Line::new("ably", Standing::Ok, format!("the key may {what}")),
        Err(failure) if refused(&failure) => {
            let text = format!("{failure}; ably.key (ABLY_API_KEY) must be a key that may {what}");
            Line::new("ably", Standing::Wrong, text)
        }
        Err(failure) => {
            Line::new("ably", Standing::Unreachable, format!("{failure}; is ably.url right and the network open?"))
        }
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
    vec![match expo.reachable().await {
        Ok(()) => Line::new("expo", Standing::Ok, "Expo answers"),
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
