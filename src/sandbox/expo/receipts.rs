//! Receipts: what the push providers said, once it is time, until it is forgotten.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Refusal, device::Outcome};
use crate::sandbox::{body::Format, control::Control, lock, reply::Reply};

/// Most ids of one request.
const MAX_IDS: usize = 1000;

/// `POST /--/api/v2/push/getReceipts`; ids that are unknown, too young or too old are left out.
pub(super) fn answer(control: &Control, body: &Value) -> Result<Reply, Refusal> {
    let ids = body.get("ids").and_then(Value::as_array);
    let ids: Option<Vec<&str>> = ids.and_then(|ids| ids.iter().map(Value::as_str).collect());
    let Some(ids) = ids else {
        let message = "Must correct one of the following issues: [\"ids\": Expected array of strings].";
        return Err(Refusal::new(400, "VALIDATION_ERROR", message));
    };
    if ids.len() > MAX_IDS {
        let message = format!("You can get a maximum of {MAX_IDS} receipts per request (received {}).", ids.len());
        return Err(Refusal::new(400, "PUSH_TOO_MANY_RECEIPTS", message));
    }
    let settings = control.settings();
    let delay = Duration::from_millis(settings.receipt_delay_ms);
    let life = Duration::from_millis(settings.receipt_life_ms);
    let now = Instant::now();
    let mut tickets = lock(&control.expo().tickets);
    let mut receipts = Map::new();
    for id in ids {
        let Some((sent, ticket)) = tickets.get(id, life, now) else { continue };
        if now.saturating_duration_since(sent) < delay {
            continue;
        }
        match ticket.outcome {
            Outcome::Ok => receipts.insert(id.to_owned(), json!({"status": "ok"})),
            Outcome::ReceiptError(words) => receipts.insert(id.to_owned(), words.value(&ticket.token)),
            Outcome::NoReceipt | Outcome::TicketError(_) => None,
        };
    }
    Ok(Reply::new(200, json!({"data": receipts}), Format::Json))
}
