//! The line about the outbox: whether `herald outbox` would work, and whether rows wait or are marked.

use crate::{
    config::{Config, UsersUrl},
    outbox,
    store::StoreError,
};

use super::{Line, Standing};

pub(super) async fn check(config: &Config) -> Vec<Line> {
    // Nobody has to use it: without a key of its own it counts only when the table is there.
    let asked_for = config.outbox.url.is_some();
    if !asked_for && !matches!(config.users.url, UsersUrl::Url(_)) {
        return vec![Line::new("outbox", Standing::Skipped, "not used: neither outbox.url nor users.url is set")];
    }
    let found = match outbox::open(config).await {
        Ok(outbox) => outbox.look().await.map(|look| (outbox, look)),
        Err(error) => Err(error),
    };
    let (standing, text) = match found {
        Ok((outbox, look)) => {
            let (name, waiting, failed) = (outbox.name(), look.waiting, look.failed);
            let text = format!("{waiting} rows wait in {name}, the oldest for {} s", look.oldest.as_secs());
            if failed > 0 {
                let find = format!("SELECT seq, error FROM {name} WHERE failed_at IS NOT NULL");
                (Standing::Warning, format!("{text}; {failed} are no events: {find}"))
            } else if !outbox.notifies() {
                let why = "without the trigger of config/outbox/herald_outbox.sql rows are found by polling only";
                (Standing::Warning, format!("{text}; {why}"))
            } else {
                (Standing::Ok, text)
            }
        }
        Err(StoreError::Config(problem)) if asked_for => (Standing::Wrong, problem),
        Err(StoreError::Config(problem)) => (Standing::Skipped, format!("not used: {problem}")),
        Err(error) => (Standing::Unreachable, format!("{error}; is outbox.url right?")),
    };
    vec![Line::new("outbox", standing, text)]
}
