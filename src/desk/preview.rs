//! What a replay or drop would do, picked and counted before anything is done.
//!
//! Called by the API. Changes nothing; what was picked is kept, so that exactly that can be begun.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    broker::Broker,
    letters::{Action, Picked},
    store::{LetterFilter, StoreError},
};

use super::{Desk, sweeps::Kept};

/// Letters of one preview; each takes some 200 bytes for as long as it is kept.
const LETTERS: u32 = 100_000;

/// Which letters are meant.
#[derive(Debug, Clone)]
pub enum Which {
    One(i64),
    Matching(LetterFilter),
}

/// What would happen.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// Names it, for [`Desk::begin`].
    pub preview: String,
    pub count: u64,
    /// Of so many that match; more than `count` when there are too many for one preview, or some would expire at once.
    pub matching: u64,
    /// How many for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// Would expire at once, and stay.
    pub expired: u64,
}

impl<B: Broker> Desk<B> {
    /// Tells what `action` would do, and keeps it so that it can be begun. Changes nothing.
    pub async fn preview(&self, action: Action, which: Which, now: Timestamp) -> Result<Preview, StoreError> {
        let store = &self.0.store;
        let unexpired_at = (action == Action::Replay { ignore_expiry: false }).then_some(now);
        let (picked, matching, mut parameters) = match which {
            Which::One(number) => {
                let letter = store.letter(number).await?;
                let picked = Picked::of(letter.iter(), unexpired_at);
                (picked, u64::from(letter.is_some()), json!({ "number": number }))
            }
            Which::Matching(filter) => {
                let matching = u64::try_from(store.letter_count(&filter).await?).unwrap_or(0);
                let picked =
                    Picked::read(store, &LetterFilter { limit: Some(LETTERS), ..filter.clone() }, unexpired_at).await?;
                (picked, matching, filter.recorded())
            }
        };
        if action == (Action::Replay { ignore_expiry: true }) {
            parameters["ignore_expiry"] = true.into();
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let (count, expired, reasons) = (picked.count(), picked.expired, picked.reasons.clone());
        self.0.sweeps.keep(Kept { token: token.clone(), made: Instant::now(), action, picked, parameters });
        Ok(Preview { preview: token, count, matching, reasons, expired })
    }
}
