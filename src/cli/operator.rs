//! Who is at the keyboard, and the record of what they do.
//!
//! Called by every command that changes something. The record is begun before the deed, so that one that is cut off stands there,
//! too.

use serde_json::Value;

use crate::{
    domain::{
        action::{BEGUN, Deed},
        bounded,
    },
    letters::this_host,
    store::{NewAction, Store},
};

use super::stop::Stop;

/// Returns who runs the command: `user@host`.
pub(super) fn who() -> String {
    let named = |variable: &str| std::env::var(variable).ok().filter(|name| !name.trim().is_empty());
    let user = named("USER").or_else(|| named("LOGNAME")).or_else(uid).unwrap_or_else(|| "somebody".to_owned());
    format!("{}@{}", bounded(&user, 64), bounded(&this_host(), 128))
}

/// Containers have no name for their user. The owner of our own process stands there on Linux.
fn uid() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(format!("uid {}", std::fs::metadata("/proc/self").ok()?.uid()))
}

/// An action that has begun and is recorded as such.
pub(super) struct Begun {
    store: Store,
    number: i64,
}

/// Records that something is being done.
pub(super) async fn begin(store: &Store, what: Deed, parameters: Value) -> Result<Begun, Stop> {
    let who = who();
    let action = NewAction { who: &who, what, why: None, parameters, affected: None, outcome: BEGUN };
    Ok(Begun { store: store.clone(), number: store.note_action(&action).await? })
}

impl Begun {
    /// Records how it ended; `Err`: what it failed with. What was done is done: a record that cannot be written is a warning.
    pub(super) async fn end(self, ended: Result<(u64, &str), &Stop>) {
        let (affected, outcome) = match ended {
            Ok((affected, outcome)) => (Some(affected), outcome.to_owned()),
            Err(stop) => (None, format!("failed: {}", stop.message())),
        };
        if let Err(error) = self.store.end_action(self.number, affected, &outcome).await {
            eprintln!("herald: warning: how it ended was not recorded (herald actions): {error}");
        }
    }
}
