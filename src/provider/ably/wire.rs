//! Ably's JSON and addresses: what requests look like and what answers say.
//!
//! Called by presence and publish. Pure. Both the present batch shapes and those of the protocol before version 3 are read.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::provider::http::Reply;

use super::{Publish, classify::ErrorInfo};

/// What `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Returns `text` as `encodeURIComponent` encodes it.
pub(super) fn component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Returns `text` as a value in a query.
pub(super) fn query_value(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Returns how many bytes [`query_value`] makes of `text`.
pub(super) fn query_length(text: &str) -> usize {
    url::form_urlencoded::byte_serialize(text.as_bytes()).map(str::len).sum()
}

/// Tells whether a channel's name can stand in an address: `.` and `..` would name another one.
pub(super) fn is_addressable(channel: &str) -> bool {
    !matches!(channel, "" | "." | "..")
}

/// Returns a message as the body of a single publish. SDKs always send an array; in an array an id with a colon could be
/// taken for `<base>:<index>`, so such a message goes as an object.
pub(super) fn message(publish: &Publish) -> String {
    let message = json!({ "name": publish.name, "data": publish.data, "id": publish.id, "encoding": "json" });
    if publish.id.contains(':') { message.to_string() } else { format!("[{message}]") }
}

/// Returns a message as one spec of a batch, so that it has an id and a result of its own.
pub(super) fn spec(publish: &Publish, message: &str) -> String {
    format!(r#"{{"channels":[{}],"messages":{message}}}"#, Value::from(publish.channel.as_str()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    message_id: Option<String>,
}

/// Returns the message id of a single publish; the outer `None` is an answer that cannot be read.
pub(super) fn published(reply: &Reply) -> Option<Option<String>> {
    serde_json::from_slice::<Published>(&reply.body).ok().map(|published| published.message_id)
}

/// What a batch says of one channel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemResult {
    #[serde(default)]
    pub(super) channel: String,
    pub(super) message_id: Option<String>,
    #[serde(default)]
    pub(super) presence: Option<Vec<Member>>,
    pub(super) error: Option<ErrorInfo>,
}

/// A member of a presence set, as far as we read it: its data is not reliable.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Member {
    client_id: Option<String>,
    /// An integer; a string in an old description of the API.
    action: Value,
}

impl Member {
    /// Tells whether this is `client_id`, and here: 0 is absent, 3 is leave.
    pub(super) fn is_present(&self, client_id: &str) -> bool {
        let gone = match &self.action {
            Value::Number(number) => matches!(number.as_u64(), Some(0 | 3)),
            Value::String(name) => matches!(name.to_ascii_lowercase().as_str(), "absent" | "leave"),
            _ => false,
        };
        !gone && self.client_id.as_deref() == Some(client_id)
    }
}

/// Counts the connections of `client_id` among `members`.
pub(super) fn count(members: &[Member], client_id: &str) -> u32 {
    members.iter().filter(|member| member.is_present(client_id)).count().try_into().unwrap_or(u32::MAX)
}

/// Returns the members on one page.
pub(super) fn members(reply: &Reply) -> Option<Vec<Member>> {
    serde_json::from_slice(&reply.body).ok()
}

/// The results of a batch in one object. Not an enum of all shapes: serde would copy the whole answer before it knows which.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    /// Old shape of a partial failure.
    batch_response: Option<Vec<ItemResult>>,
    /// One spec, or batch presence.
    results: Option<Vec<ItemResult>>,
}

#[derive(Deserialize)]
struct Spec {
    results: Vec<ItemResult>,
}

/// Returns the results of a batch in the order of its channels, or `None` when the answer cannot be read.
pub(super) fn results(reply: &Reply) -> Option<Vec<ItemResult>> {
    if let Ok(Results { batch_response, results }) = serde_json::from_slice(&reply.body) {
        return batch_response.or(results);
    }
    // One entry for each spec; or the old shape without a failure.
    match serde_json::from_slice::<Vec<Spec>>(&reply.body) {
        Ok(specs) => Some(specs.into_iter().flat_map(|spec| spec.results).collect()),
        Err(_) => serde_json::from_slice(&reply.body).ok(),
    }
}

/// Returns path and query of the next page. The link is relative to the page it came with; one that leads to another
/// server is no link of ours.
pub(super) fn next_page(reply: &Reply, target: &str) -> Option<String> {
    // Only the path and query matter; which host answers is the transport's affair.
    let base = Url::parse("https://page.invalid").ok()?.join(target).ok()?;
    let links = reply.headers.get_all(http::header::LINK).iter().filter_map(|value| value.to_str().ok());
    for link in links.flat_map(|value| value.split(',')) {
        let Some((address, parameters)) = link.trim().strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
            continue;
        };
        let next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        let url = base.join(address).ok().filter(|url| url.origin() == base.origin());
        if let Some(url) = url.filter(|_| next) {
            return Some(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn channels_are_encoded_as_encode_uri_component_does() {
        for (channel, expected) in [
            ("chat:room 1/ü", "chat%3Aroom%201%2F%C3%BC"),
            ("beheard:session:a-b_c.d!~*'()", "beheard%3Asession%3Aa-b_c.d!~*'()"),
            ("100%?#[]+,&=", "100%25%3F%23%5B%5D%2B%2C%26%3D"),
        ] {
            assert_eq!(component(channel), expected);
        }
        // As `URLSearchParams`, with which ably-js writes its queries.
        let odd = "ü 🙂+%2B&a=b!~*'()/:,@";
        assert_eq!(query_value(odd), "%C3%BC+%F0%9F%99%82%2B%252B%26a%3Db%21%7E*%27%28%29%2F%3A%2C%40");
        assert_eq!(query_value("a:b,c d&e"), "a%3Ab%2Cc+d%26e");
        assert_eq!(query_length(odd), query_value(odd).len());
        assert!(is_addressable("...") && !is_addressable("..") && !is_addressable(".") && !is_addressable(""));
    }

    fn publish(id: &str) -> Publish {
        let (channel, name) = ("a \"b\"".to_owned(), "e.f".to_owned());
        Publish { channel, name, data: r#"{"j":1}"#.to_owned(), id: id.to_owned(), until: None }
    }

    #[test]
    fn a_message_carries_its_data_as_text_and_any_id() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let expected = |id: &str| json!({ "name": "e.f", "data": "{\"j\":1}", "id": id, "encoding": "json" });
        assert_eq!(read(&message(&publish("evt-1"))), json!([expected("evt-1")]));
        assert_eq!(read(&message(&publish("evt:7"))), expected("evt:7"));
        let whole = read(&spec(&publish("evt-1"), &message(&publish("evt-1"))));
        assert_eq!(whole, json!({ "channels": ["a \"b\""], "messages": [expected("evt-1")] }));
    }

    fn reply(body: &str, links: &[&str]) -> Reply {
        let mut headers = HeaderMap::new();
        for link in links {
            headers.append(http::header::LINK, link.parse().unwrap());
        }
        Reply { status: 200, headers, body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn batch_results_are_read_in_every_shape() {
        let good = r#"{"channel":"a","messageId":"m1","serials":["s"]}"#;
        let bad = r#"{"channel":"b","error":{"code":40160,"statusCode":401,"message":"no","href":"x"}}"#;
        for body in [
            format!(r#"[{{"successCount":1,"results":[{good}]}},{{"failureCount":1,"results":[{bad}]}}]"#),
            format!(r#"{{"successCount":1,"failureCount":1,"results":[{good},{bad}]}}"#),
            format!("[{good},{bad}]"),
            format!(r#"{{"error":{{"code":40020,"statusCode":400}},"batchResponse":[{good},{bad}]}}"#),
        ] {
            let read = results(&reply(&body, &[])).unwrap_or_else(|| panic!("unread: {body}"));
            assert_eq!(read.len(), 2, "{body}");
            assert_eq!((read[0].channel.as_str(), read[0].message_id.as_deref()), ("a", Some("m1")));
            assert_eq!(read[1].error.as_ref().and_then(|error| error.code), Some(40160));
        }
        assert!(results(&reply("<html>", &[])).is_none());
        assert!(results(&reply("{}", &[])).is_none());
    }

    #[test]
    fn members_are_matched_by_client_id_whatever_their_action_unless_gone() {
        let body = r#"[{"clientId":"u","action":1,"id":"c:0:0","data":"x"},{"clientId":"u","action":"enter"},
            {"clientId":"u"},{"clientId":"u","action":4,"data":null},{"clientId":"u","action":0},
            {"clientId":"u","action":3},{"clientId":"u","action":"LEAVE"},{"clientId":"U","action":1},{"clientId":null}]"#;
        let members = members(&reply(body, &[])).unwrap();
        assert_eq!(count(&members, "u"), 4);
        assert_eq!(count(&members, "nobody"), 0);
        assert!(super::members(&reply("{}", &[])).is_none());
    }

    #[test]
    fn the_next_page_is_followed_as_it_is_written() {
        let target = "/base/channels/a%3Ab%2Fc/presence?clientId=u&limit=1";
        for (links, expected) in [
            (vec![], None),
            (vec![r#"<./presence?limit=1>; rel="first""#], None),
            (
                vec![r#"<./presence?limit=1&cursor=a%2Cb%3D>; rel="next""#],
                Some("/base/channels/a%3Ab%2Fc/presence?limit=1&cursor=a%2Cb%3D"),
            ),
            (
                vec![r#"<./presence?p=1>; rel="first", <./presence?p=2>; rel="current",<./presence?p=3>; rel="next""#],
                Some("/base/channels/a%3Ab%2Fc/presence?p=3"),
            ),
            (
                vec![r#"<./x>; rel="first""#, r#"</channels/x/presence?p=9>; rel="next""#],
                Some("/channels/x/presence?p=9"),
            ),
            (vec![r#"<https://evil.example/presence?p=9>; rel="next""#], None),
            (vec!["garbage"], None),
        ] {
            assert_eq!(next_page(&reply("[]", &links), target).as_deref(), expected, "{links:?}");
        }
    }
}
