//! Sending pushes: the request-level checks, then one ticket per recipient in order.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Refusal, Ticket, device, device::Outcome, schema, too_many_requests};
use crate::sandbox::{
    body::Format,
    control::Control,
    effects::Effect,
    entry::{Item, ItemOutcome},
    lock,
    reply::Reply,
    route::Provider,
};

/// Most recipients of one request.
const MAX_RECIPIENTS: usize = 100;
/// Longest payload a phone is sent, in bytes of the message without its recipients. Expo's own formula is not published.
const MAX_PAYLOAD: usize = 4096;

/// `POST /--/api/v2/push/send`
pub(super) fn answer(control: &Control, body: &Value) -> Result<Reply, Refusal> {
    let messages = schema::read(body).map_err(|issues| Refusal::new(400, "VALIDATION_ERROR", issues))?;
    let count: usize = messages.iter().map(|message| message.to.len()).sum();
    if count > MAX_RECIPIENTS {
        let message = format!(
            "You can send a maximum of {MAX_RECIPIENTS} notifications per request (received {count}); divide your requests."
        );
        return Err(Refusal::new(400, "PUSH_TOO_MANY_NOTIFICATIONS", message));
    }
    let expo = control.expo();
    let devices = lock(&expo.devices);
    let mut projects: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for token in messages.iter().flat_map(|message| &message.to) {
        projects.entry(device::project(token, devices.get(*token))).or_default().push(token);
    }
    let settings = control.settings();
    if projects.len() > 1 {
        let message = "All push notification messages in the same request must be for the same project; check the details \
                       field to investigate conflicting tokens.";
        return Err(Refusal::Errors(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", message.to_owned(), Some(json!(projects))));
    }
    let weight = u32::try_from(count).unwrap_or(u32::MAX);
    let project = projects.keys().next().map_or(device::DEFAULT_PROJECT, String::as_str);
    if !lock(&expo.rates).admit(project, weight, settings.project_rate, Instant::now()) {
        return Err(too_many_requests());
    }
    let mut tickets = Vec::with_capacity(count);
    let mut items = Vec::with_capacity(count);
    for message in &messages {
        let too_big = payload_bytes(message.fields) > MAX_PAYLOAD;
        let event = event_id(message.fields);
        for token in &message.to {
            let outcome = match device::outcome(token, devices.get(*token)) {
                Outcome::Ok if too_big => Outcome::ReceiptError(&device::TOO_BIG),
                outcome => outcome,
            };
            let token: Arc<str> = (*token).into();
            let (ticket, item) = one(control, &token, outcome, event);
            if matches!(outcome, Outcome::Ok | Outcome::NoReceipt) {
                let name = message.fields.get("title").and_then(Value::as_str).map(str::to_owned);
                let event = event.unwrap_or_default().into();
                let effect = Effect { provider: Provider::Expo, target: token, event, name, count: 1 };
                control.journal().effect(effect, settings.effects);
            }
            tickets.push(ticket);
            items.push(item);
        }
    }
    // One message to one recipient given as a string is answered by one ticket, not by a list of one.
    let single = body.get("to").is_some_and(Value::is_string);
    let data = if single { tickets.pop().unwrap_or_default() } else { Value::Array(tickets) };
    Ok(Reply::new(200, json!({"data": data}), Format::Json).with_items(items))
}

/// Returns the ticket for one recipient and what the journal says about it.
fn one(control: &Control, token: &Arc<str>, outcome: Outcome, event: Option<&str>) -> (Value, Item) {
    let id = event.map(str::to_owned);
    if let Outcome::TicketError(words) = outcome {
        let code = Some(words.code.unwrap_or("error").to_owned());
        return (words.value(token), Item { target: token.clone(), id, outcome: ItemOutcome::Refused, code });
    }
    let ticket = Uuid::now_v7().to_string();
    let value = json!({"status": "ok", "id": ticket});
    lock(&control.expo().tickets).put(ticket, Ticket { outcome, token: token.clone() }, Instant::now());
    (value, Item { target: token.clone(), id, outcome: ItemOutcome::Accepted, code: None })
}

fn payload_bytes(fields: &Map<String, Value>) -> usize {
    let fields: BTreeMap<&String, &Value> = fields.iter().filter(|(name, _)| *name != "to").collect();
    serde_json::to_vec(&fields).map_or(0, |bytes| bytes.len())
}

/// Returns the id by which the push is known: `data.eventId`, else what makes a repeat replace it.
fn event_id(fields: &Map<String, Value>) -> Option<&str> {
    let named = fields.get("data").and_then(|data| data.get("eventId")).and_then(Value::as_str);
    let replacing = || ["collapseId", "tag"].into_iter().find_map(|key| fields.get(key).and_then(Value::as_str));
    named.or_else(replacing)
}
