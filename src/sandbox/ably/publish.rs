//! Publishing: one unit on one channel, or a batch of specs on many.
//!
//! A single publish deduplicates by base id and channel; a batch does not, because nobody knows whether Ably does.

use std::{collections::HashSet, sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::{Caller, Channels, Refusal, body_of, dedupe_life, message, message::Unit};
use crate::sandbox::{
    call::Call,
    control::Control,
    effects::Effect,
    entry::{Item, ItemOutcome},
    lock,
    reply::{Answer, Reply},
    route::{Endpoint, Provider},
};

/// What a publish is answered with, and again when it is repeated.
#[derive(Debug, Clone)]
pub(super) struct Published {
    message_id: String,
    serials: Vec<String>,
}

impl Published {
    fn value(&self, channel: &str) -> Value {
        json!({"channel": channel, "messageId": self.message_id, "serials": self.serials})
    }
}

/// Longest batch body.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Most distinct channels of a batch.
pub(super) const BATCH_CHANNELS: usize = 100;
/// Longest body of a single publish (`maxFrameSize`).
const FRAME_BYTES: usize = 512 * 1024;

/// `POST /channels/{channel}/messages`
pub(super) fn single(control: &Control, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
    let channel: Arc<str> = call.route.channel.as_str().into();
    let max_bytes = control.settings().message_bytes;
    let unit = caller.rights.check("publish", &channel).and_then(|()| {
        if call.param("_forceNack") == Some("true") {
            return Err(Refusal::new(400, 40099, "forced nack"));
        }
        message::read(&body_of(call, FRAME_BYTES)?, caller.rights.client_id.as_deref(), max_bytes)
    });
    let mut items = Vec::new();
    let published = publish(control, Endpoint::Publish, &channel, unit.as_ref(), &mut items);
    let reply = match published {
        Ok(published) => Reply::new(201, published.value(&channel), caller.format),
        Err(refusal) => refusal.reply(caller.format),
    };
    Ok(reply.with_items(items))
}

/// `POST /messages`
pub(super) fn batch(control: &Control, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
    let body = body_of(call, BATCH_BYTES)?;
    let specs = match &body {
        Value::Array(specs) => specs.as_slice(),
        one => std::slice::from_ref(one),
    };
    let specs = specs.iter().map(read_spec).collect::<Result<Vec<_>, _>>()?;
    let distinct: HashSet<&str> = specs.iter().flat_map(|(channels, _)| channels.iter().copied()).collect();
    if distinct.is_empty() || distinct.len() > BATCH_CHANNELS {
        let message = format!("a batch names 1 to {BATCH_CHANNELS} channels, not {}", distinct.len());
        return Err(Refusal(400, 40000, message));
    }
    let max_bytes = control.settings().message_bytes;
    let mut items = Vec::new();
    let mut answers = Vec::with_capacity(specs.len());
    for (channels, messages) in specs {
        let unit = message::read(messages, caller.rights.client_id.as_deref(), max_bytes);
        let answer = channels.into_iter().map(|name| {
            let channel: Arc<str> = name.into();
            let unit = caller.rights.check("publish", name).and(unit.as_ref().map_err(Refusal::clone));
            let published = publish(control, Endpoint::BatchPublish, &channel, unit.as_ref().copied(), &mut items);
            published.map(|published| published.value(name)).map_err(|refusal| (name, refusal))
        });
        answers.push(answer.collect::<Vec<_>>());
    }
    Ok(batch_reply(answers, caller).with_items(items))
}

type Answers<'c> = Vec<Result<Value, (&'c str, Refusal)>>;

/// Returns the answer to a batch of publishes: by spec since version 3, flat before.
fn batch_reply(answers: Vec<Answers<'_>>, caller: &Caller) -> Reply {
    if caller.version < 3 {
        return legacy_reply(answers.into_iter().flatten().collect(), 201, caller);
    }
    let specs = answers.into_iter().map(batch_result);
    Reply::new(201, specs.collect(), caller.format)
}

/// Returns counts and results, the shape of both batch calls since version 3.
pub(super) fn batch_result(answers: Answers<'_>) -> Value {
    let failures = answers.iter().filter(|answer| answer.is_err()).count();
    let successes = answers.len() - failures;
    json!({"successCount": successes, "failureCount": failures, "results": results(answers)})
}

/// Returns the flat shape of versions before 3, where any failure makes the whole answer a 400 with the parts inside.
pub(super) fn legacy_reply(answers: Answers<'_>, success: u16, caller: &Caller) -> Reply {
    if answers.iter().all(Result::is_ok) {
        return Reply::new(success, results(answers), caller.format);
    }
    let refusal = Refusal::new(400, 40020, "Batched response includes errors");
    let body = json!({"error": refusal.value(), "batchResponse": results(answers)});
    let mut reply = refusal.reply(caller.format);
    reply.body = Answer::Value(body, caller.format);
    reply
}

fn results(answers: Answers<'_>) -> Value {
    let failed = |(channel, refusal): (&str, Refusal)| json!({"channel": channel, "error": refusal.value()});
    answers.into_iter().map(|answer| answer.unwrap_or_else(failed)).collect()
}

fn read_spec(spec: &Value) -> Result<(Vec<&str>, &Value), Refusal> {
    let refused = |message: &str| Err(Refusal::new(400, 40000, message));
    let channels = match &spec["channels"] {
        Value::String(channel) => vec![channel.as_str()],
        Value::Array(channels) => match channels.iter().map(Value::as_str).collect() {
            Some(channels) => channels,
            None => return refused("channels of a batch must be strings"),
        },
        _ => return refused("a batch needs channels"),
    };
    match &spec["messages"] {
        Value::Null => refused("a batch needs messages"),
        Value::Array(messages) if messages.is_empty() => refused("a batch needs messages"),
        messages => Ok((channels, messages)),
    }
}

/// Publishes `unit` on `channel`, unless it is refused already or now; adds what became of each message to `items`.
fn publish(
    control: &Control,
    endpoint: Endpoint,
    channel: &Arc<str>,
    unit: Result<&Unit, &Refusal>,
    items: &mut Vec<Item>,
) -> Result<Published, Refusal> {
    let admitted = unit.map_err(Refusal::clone).and_then(|unit| {
        if let Some(fault) = control.faults().strike_channel(channel, endpoint) {
            return Err(fault.into());
        }
        let mut channels = lock(&control.ably().channels);
        if !channels.rates.admit(channel, 1, control.settings().channel_rate, Instant::now()) {
            return Err(Refusal(429, 42913, format!("rate limit of channel {channel:?} exceeded")));
        }
        Ok((unit, channels.accept(channel, unit, endpoint == Endpoint::Publish, control)))
    });
    match admitted {
        Ok((unit, (published, new))) => {
            let outcome = if new { ItemOutcome::Accepted } else { ItemOutcome::Deduped };
            for (id, name) in &unit.messages {
                let id = id.clone().unwrap_or_else(|| published.message_id.clone());
                if new {
                    let event = id.as_str().into();
                    let effect = Effect {
                        provider: Provider::Ably,
                        target: channel.clone(),
                        event,
                        name: name.clone(),
                        count: 1,
                    };
                    control.journal().effect(effect, control.settings().effects);
                }
                items.push(Item { target: channel.clone(), id: Some(id), outcome, code: None });
            }
            Ok(published)
        }
        Err(refusal) => {
            let code = Some(refusal.1.to_string());
            let refused = |id: Option<String>| Item {
                target: channel.clone(),
                id,
                outcome: ItemOutcome::Refused,
                code: code.clone(),
            };
            match unit {
                Ok(unit) => items.extend(unit.messages.iter().map(|(id, _)| refused(id.clone()))),
                Err(_) => items.push(refused(None)),
            }
            Err(refusal)
        }
    }
}

impl Channels {
    /// Takes the unit in, or recognises a repeat; returns the answer and whether it is new.
    fn accept(&mut self, channel: &str, unit: &Unit, dedupe: bool, control: &Control) -> (Published, bool) {
        let now = Instant::now();
        let key = unit.base.as_ref().filter(|_| dedupe).map(|base| format!("{channel}\0{base}"));
        if let Some((_, seen)) = key.as_deref().and_then(|key| self.seen.get(key, dedupe_life(control), now)) {
            return (seen.clone(), false);
        }
        self.serial += 1;
        let millis = jiff::Timestamp::now().as_millisecond();
        let serial = |index| format!("{millis:014}-{:03}@sandbox{}:{index:03}", self.serial % 1000, self.serial);
        let published = Published {
            message_id: unit.base.clone().unwrap_or_else(|| format!("sandbox{:05}", self.serial)),
            serials: (0..unit.messages.len()).map(serial).collect(),
        };
        if let Some(key) = key {
            self.seen.put(key, published.clone(), now);
        }
        (published, true)
    }
}
