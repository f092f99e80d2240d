//! Presence: who is on a channel, read one channel at a time with paging, or many at once.
//!
//! Members are kept by client and connection, as Ably keys them: the same client appears once per connection.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Caller, Refusal,
    publish::{BATCH_CHANNELS, batch_result, legacy_reply},
};
use crate::sandbox::{call::Call, control::Control, lock, reply::Reply, route::Endpoint};

/// Client id and connection id.
type MemberKey = (String, String);

#[derive(Debug)]
struct Member {
    number: u64,
    timestamp: i64,
    data: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    channels: HashMap<String, BTreeMap<MemberKey, Member>>,
    number: u64,
}

impl Presence {
    pub fn enter(&mut self, channel: &str, client_id: &str, connection: Option<&str>, data: Option<String>) -> String {
        self.number += 1;
        let connection = connection.map_or_else(|| format!("conn{:06}", self.number), str::to_owned);
        let member = Member { number: self.number, timestamp: Timestamp::now().as_millisecond(), data };
        let members = self.channels.entry(channel.to_owned()).or_default();
        members.insert((client_id.to_owned(), connection.clone()), member);
        connection
    }

    pub fn leave(&mut self, channel: &str, client_id: &str, connection: Option<&str>) -> usize {
        let Some(members) = self.channels.get_mut(channel) else { return 0 };
        let before = members.len();
        members.retain(|(client, conn), _| client != client_id || connection.is_some_and(|gone| gone != conn));
        let left = before - members.len();
        if members.is_empty() {
            self.channels.remove(channel);
        }
        left
    }

    fn members(&self, channel: &str) -> impl Iterator<Item = Value> {
        self.channels.get(channel).into_iter().flatten().map(|(key, member)| member.value(key))
    }
}

impl Member {
    fn value(&self, (client_id, connection_id): &MemberKey) -> Value {
        let mut value = json!({
            "id": format!("{connection_id}:{}:0", self.number),
            "clientId": client_id,
            "connectionId": connection_id,
            "timestamp": self.timestamp,
            // 1 = present: what a member read by REST always is.
            "action": 1,
        });
        if let Some(data) = &self.data {
            value["data"] = data.as_str().into();
        }
        value
    }
}

const MAX_LIMIT: usize = 1000;

/// `GET /channels/{channel}/presence`
pub(super) fn single(control: &Control, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
    let channel = &call.route.channel;
    caller.rights.check("subscribe", channel)?;
    if let Some(fault) = control.faults().strike_channel(channel, Endpoint::Presence) {
        return Err(fault.into());
    }
    let limit = match call.param("limit") {
        None => 100,
        Some(limit) => {
            let limit = limit.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit.ok_or_else(|| Refusal::new(400, 40003, "Invalid limit param"))?
        }
    };
    let start = match call.param("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => read_cursor(cursor).ok_or_else(|| Refusal::new(400, 40000, "invalid cursor"))?,
    };
    let (client, connection) = (call.param("clientId"), call.param("connectionId"));
    let presence = lock(&control.ably().presence);
    let members = presence.channels.get(channel).into_iter().flat_map(|members| match (client, &start) {
        // All of one client's members lie side by side.
        (Some(client), Bound::Unbounded) => members.range((client.to_owned(), String::new())..),
        _ => members.range((start.clone(), Bound::Unbounded)),
    });
    let mut wanted = members
        .take_while(|((id, _), _)| client.is_none_or(|client| client == id))
        .filter(|((_, id), _)| connection.is_none_or(|connection| connection == id));
    let page: Vec<(&MemberKey, &Member)> = wanted.by_ref().take(limit).collect();
    let next = page.last().filter(|_| wanted.next().is_some()).map(|(key, _)| write_cursor(key));
    let body: Value = page.iter().map(|(key, member)| member.value(key)).collect();
    let mut reply = Reply::new(200, body, caller.format);
    let current = call.param("cursor").unwrap_or(FIRST).to_owned();
    for (rel, cursor) in [("first", Some(FIRST.to_owned())), ("current", Some(current)), ("next", next)] {
        if let Some(cursor) = cursor {
            reply = reply.with_header(header::LINK, link(call, limit, &cursor, rel));
        }
    }
    Ok(reply)
}

/// The cursor of the first page.
const FIRST: &str = "0";

fn write_cursor(key: &MemberKey) -> String {
    URL_SAFE_NO_PAD.encode(json!([key.0, key.1]).to_string())
}

fn read_cursor(cursor: &str) -> Option<Bound<MemberKey>> {
    if cursor == FIRST {
        return Some(Bound::Unbounded);
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    serde_json::from_slice(&bytes).ok().map(Bound::Excluded)
}

/// Returns a link relative to the request, the only form ably-js understands.
fn link(call: &Call, limit: usize, cursor: &str, rel: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    for name in ["clientId", "connectionId"] {
        if let Some(value) = call.param(name) {
            query.append_pair(name, value);
        }
    }
    query.append_pair("cursor", cursor);
    format!("<./presence?{}>; rel=\"{rel}\"", query.finish())
}

/// `GET /presence?channels=`
pub(super) fn batch(control: &Control, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
    let separator = call.param("separator").filter(|separator| !separator.is_empty()).unwrap_or(",");
    let channels: Vec<&str> = match call.param("channels") {
        None | Some("") => return Err(Refusal::new(400, 40000, "no channels")),
        Some(channels) => channels.split(separator).collect(),
    };
    if channels.len() > BATCH_CHANNELS {
        return Err(Refusal(400, 40000, format!("{} channels exceed {BATCH_CHANNELS}", channels.len())));
    }
    let presence = lock(&control.ably().presence);
    let answers = channels.into_iter().map(|channel| {
        let checked = caller.rights.check("subscribe", channel);
        let fault = control.faults().strike_channel(channel, Endpoint::BatchPresence);
        match checked.and(fault.map_or(Ok(()), |fault| Err(fault.into()))) {
            Ok(()) => Ok(json!({"channel": channel, "presence": presence.members(channel).collect::<Value>()})),
            Err(refusal) => Err((channel, refusal)),
        }
    });
    let answers = answers.collect();
    Ok(match caller.version {
        ..3 => legacy_reply(answers, 200, caller),
        _ => Reply::new(200, batch_result(answers), caller.format),
    })
}

/// `GET /channels/{channel}`
pub(super) fn channel(control: &Control, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
    let channel = &call.route.channel;
    caller.rights.check("channel-metadata", channel)?;
    let members = lock(&control.ably().presence).channels.get(channel).map_or(0, BTreeMap::len);
    let metrics = json!({
        "connections": members, "publishers": members, "subscribers": members,
        "presenceConnections": members, "presenceMembers": members, "presenceSubscribers": members,
    });
    // Asking for a channel's status activates it.
    let status = json!({"isActive": true, "occupancy": {"metrics": metrics}});
    Ok(Reply::new(200, json!({"channelId": channel, "name": channel, "status": status}), caller.format))
}
