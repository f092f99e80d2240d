//! Lines about the two databases: herald's own store and the app's users.

use crate::{
    config::{Config, UsersUrl},
    store::{Store, StoreError, users::Users},
};
use secrecy::ExposeSecret;

use super::{Line, Standing};

/// An id that no user has.
const NOBODY: &str = "herald-check-nobody";

pub(super) async fn store(config: &Config) -> Vec<Line> {
    let books = async { Store::connect(config.store.url.expose_secret()).await?.books().await };
    vec![line("store", "store.url", books.await, |books| format!("{} events in the ledger", books.received))]
}

/// Runs the token query for a user who does not exist.
pub(super) async fn users(config: &Config) -> Vec<Line> {
    let url = match &config.users.url {
        UsersUrl::Missing => return missing(config, "users.url", "users"),
        UsersUrl::None => return vec![Line::new("users", Standing::Ok, "none: realtime only, nobody is pushed to")],
        UsersUrl::Url(url) => url,
    };
    let found = async { Users::open(url, &config.users.query, &config.users.clear).await?.look_up(NOBODY).await };
    vec![line("users", "users.url", found.await, |user| match user.found {
        false => "users.query runs".to_owned(),
        true => "users.query runs, but returns a row for a user that does not exist: does it use $1?".to_owned(),
    })]
}

/// Returns what `run` says of a key it cannot do without.
pub(super) fn missing(config: &Config, key: &str, what: &'static str) -> Vec<Line> {
    let problems = config.complete().err().map(|problems| problems.0).unwrap_or_default();
    let ours = problems.iter().filter(|problem| problem.key == key);
    ours.map(|problem| Line::new(what, Standing::Wrong, problem.to_string())).collect()
}

fn line<T>(what: &'static str, key: &str, result: Result<T, StoreError>, text: impl FnOnce(T) -> String) -> Line {
    match result {
        Ok(value) => Line::new(what, Standing::Ok, text(value)),
        Err(StoreError::Config(problem)) => Line::new(what, Standing::Wrong, problem),
        Err(error) => Line::new(what, Standing::Unreachable, format!("{error}; is {key} right?")),
    }
}
