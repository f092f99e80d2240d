//! The forms a message may have: herald's own JSON, or a CloudEvent 1.0, structured or binary.
//!
//! Called by `decode`, and by the broker for which headers count. It only finds out where an event's fields stand and what they
//! are called; whether they are right is decided for every form alike. CloudEvents have no binding of their own for AMQP 0-9-1: this
//! follows the one for AMQP 1.0, whose application properties are headers here
//! (<https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/amqp-protocol-binding.md>), and reads Knative's as well
//! (<https://github.com/knative-extensions/eventing-rabbitmq/blob/main/cloudevents-protocol-spec/spec.md>).

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Malformed, Meta, field};

/// The media type of a structured CloudEvent, without its `+json`.
const MEDIA_TYPE: &str = "application/cloudevents";
/// What the headers of a binary CloudEvent begin with: the first two are legal for AMQP 1.0, the third is Knative's.
const PREFIXES: [&str; 3] = ["cloudEvents_", "cloudEvents:", "ce-"];
const SPEC_VERSION: &str = "1.0";

/// How a message says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The body has every field.
    Plain,
    /// The body is a CloudEvent as JSON.
    Structured,
    /// The headers are the attributes of a CloudEvent, the body is its data.
    Binary,
}

/// What the fields of an event are called.
pub(super) struct Names {
    pub session_id: &'static str,
    pub event: &'static str,
    pub partner_id: &'static str,
    pub exclude_user_id: &'static str,
    pub occurred_at: &'static str,
    pub expires_at: &'static str,
}

const PLAIN: Names = Names {
    session_id: "sessionId",
    event: "event",
    partner_id: "partnerId",
    exclude_user_id: "excludeUserId",
    occurred_at: "occurredAt",
    expires_at: "expiresAt",
};

const CLOUD_EVENT: Names = Names {
    session_id: "subject",
    event: "type",
    partner_id: "partnerid",
    exclude_user_id: "excludeuserid",
    occurred_at: "time",
    expires_at: "expirytime",
};

/// Tells whether a header is an attribute of a binary CloudEvent that herald reads.
pub fn is_attribute(header: &str) -> bool {
    attribute(header).is_some_and(|name| {
        let Names { session_id, event, partner_id, exclude_user_id, occurred_at, expires_at } = CLOUD_EVENT;
        ["specversion", "id", "source", session_id, event, partner_id, exclude_user_id, occurred_at, expires_at]
            .contains(&name)
    })
}

fn attribute(header: &str) -> Option<&str> {
    PREFIXES.into_iter().find_map(|prefix| header.strip_prefix(prefix))
}

/// Returns an attribute's value as it stands in JSON. A time may be a number of milliseconds, AMQP 1.0's own type for it.
fn written_out(name: &str, value: &Value) -> Value {
    let is_time = [CLOUD_EVENT.occurred_at, CLOUD_EVENT.expires_at].contains(&name);
    let time = value.as_i64().filter(|_| is_time).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| value.clone(), |time| time.to_string().into())
}

impl Form {
    /// Tells the form by content type, then by headers.
    pub(super) fn of(meta: &Meta<'_>) -> Result<Form, Malformed> {
        let content_type = meta.content_type.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let wrong = |what: &str| {
            let shown = field::shown(content_type);
            Err(Malformed::new("content_type", format!("is `{shown}`; {what}")))
        };
        match media_type.strip_prefix(MEDIA_TYPE) {
            Some("+json") => Ok(Form::Structured),
            Some(rest) if rest.starts_with("-batch") => wrong("expected one event in each message, not a batch"),
            Some(rest) if rest.is_empty() || rest.starts_with('+') => wrong("expected application/cloudevents+json"),
            _ if meta.headers.is_empty() => Ok(Form::Plain),
            _ => Ok(Form::Binary),
        }
    }

    pub(super) fn names(self) -> &'static Names {
        match self {
            Form::Plain => &PLAIN,
            Form::Structured | Form::Binary => &CLOUD_EVENT,
        }
    }

    /// Returns the message's fields by their names.
    pub(super) fn fields(self, body: &[u8], meta: &Meta<'_>) -> Result<Map<String, Value>, Malformed> {
        match self {
            Form::Plain | Form::Structured => field::parsed("body", body),
            Form::Binary => {
                let mut fields = Map::new();
                for (header, value) in &meta.headers {
                    let Some(name) = attribute(header) else { continue };
                    let value = written_out(name, value);
                    if fields.insert(name.to_owned(), value.clone()).is_some_and(|other| other != value) {
                        let problem = format!("say two things of `{name}`; expected one header for each attribute");
                        return Err(Malformed::new("headers", problem));
                    }
                }
                // No body is no data.
                let data = if body.is_empty() { Map::new() } else { field::parsed("data", body)? };
                fields.insert("data".to_owned(), data.into());
                Ok(fields)
            }
        }
    }

    /// Takes a CloudEvent's source, after checking that it is a CloudEvent herald reads.
    pub(super) fn source(self, fields: &mut Map<String, Value>) -> Result<Option<String>, Malformed> {
        if self == Form::Plain {
            return Ok(None);
        }
        match field::string(fields, "specversion")?.as_deref() {
            Some(SPEC_VERSION) => {}
            None => return Err(Malformed::new("specversion", format!("is missing; expected `{SPEC_VERSION}`"))),
            Some(other) => {
                let problem = format!("is `{}`; expected `{SPEC_VERSION}`", field::shown(other));
                return Err(Malformed::new("specversion", problem));
            }
        }
        if fields.get("data_base64").is_some_and(|data| !data.is_null()) {
            return Err(Malformed::new("data_base64", "is not read; expected the payload as an object in data"));
        }
        let source = field::optional(fields, "source")?;
        let missing = || Malformed::new("source", "is missing; expected a URI reference that names the producer");
        source.ok_or_else(missing).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::event::{Event, MAX_BODY, decode};

    /// A CloudEvent with every attribute herald reads and some that it does not.
    fn full() -> Value {
        json!({
            "specversion": "1.0", "id": "e1", "source": "/backend", "type": "partner.advanced", "subject": "s1",
            "time": "2026-01-01T00:00:00Z", "partnerid": "p1", "excludeuserid": "u1", "expirytime": "2026-01-02T00:00:00Z",
            "datacontenttype": "application/json", "dataschema": "https://example.org/s", "traceparent": "00-1",
            "data": {"toStage": 2},
        })
    }

    /// [`full`] with `change` laid over it; null takes an attribute away.
    fn changed(change: Value) -> Value {
        let mut event = full();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => event.as_object_mut().unwrap().remove(name),
                value => event.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        event
    }

    fn structured(event: &Value) -> Result<Event, Malformed> {
        let meta = Meta { content_type: Some("application/cloudevents+json"), ..Meta::default() };
        decode(event.to_string().as_bytes(), &meta)
    }

    /// Reads the same event in binary mode, with `prefix` before the attributes' names.
    fn binary(event: &Value, prefix: &str) -> Result<Event, Malformed> {
        let mut attributes = event.as_object().unwrap().clone();
        let body = attributes.remove("data").map_or(String::new(), |data| data.to_string());
        let headers = attributes.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value));
        let headers = headers.filter(|(name, _)| is_attribute(name)).collect();
        decode(body.as_bytes(), &Meta { content_type: Some("application/json"), headers, ..Meta::default() })
    }

    #[test]
    fn both_modes_read_as_the_same_event() {
        let event = structured(&full()).unwrap();
        let plain = json!({"id": "e1", "sessionId": "s1", "event": "partner.advanced", "partnerId": "p1",
            "excludeUserId": "u1", "data": {"toStage": 2}, "occurredAt": "2026-01-01T00:00:00Z",
            "expiresAt": "2026-01-02T00:00:00Z"});
        let plain = decode(plain.to_string().as_bytes(), &Meta::default()).unwrap();
        assert_eq!(event, Event { source: Some("/backend".to_owned()), ..plain });
        for prefix in PREFIXES {
            assert_eq!(binary(&full(), prefix).unwrap(), event);
        }
        let in_ms = changed(json!({"time": 1_767_225_600_000_i64, "expirytime": 1_767_312_000_000_i64}));
        assert_eq!(binary(&in_ms, PREFIXES[0]).unwrap(), event);
        assert_eq!(structured(&in_ms).unwrap_err().to_string(), "time: is a number; expected a string");
        let bare =
            changed(json!({"time": null, "partnerid": null, "excludeuserid": "", "expirytime": null, "data": null}));
        let event = structured(&bare).unwrap();
        assert_eq!((&event.partner_id, &event.exclude_user_id, event.data.len()), (&None, &None, 0));
        assert_eq!(binary(&bare, PREFIXES[0]).unwrap(), event);
    }

    #[test]
    fn the_content_type_tells_the_form() {
        let headers = Map::from_iter([("cloudEvents_id".to_owned(), json!("e"))]);
        for (content_type, headers, expected) in [
            (None, &Map::new(), Ok(Form::Plain)),
            (Some("application/json; charset=utf-8"), &Map::new(), Ok(Form::Plain)),
            (Some("application/cloudeventsx+json"), &Map::new(), Ok(Form::Plain)),
            (Some("text/plain; a=application/cloudevents+json"), &Map::new(), Ok(Form::Plain)),
            (Some("application/cloudevents+json"), &Map::new(), Ok(Form::Structured)),
            (Some(" Application/CloudEvents+JSON ; charset=UTF-8"), &Map::new(), Ok(Form::Structured)),
            // Structured events may repeat their attributes as headers.
            (Some("application/cloudevents+json"), &headers, Ok(Form::Structured)),
            (Some("application/json"), &headers, Ok(Form::Binary)),
            (None, &headers, Ok(Form::Binary)),
            (Some("application/cloudevents-batch+json"), &Map::new(), Err("not a batch")),
            (Some("APPLICATION/CLOUDEVENTS-BATCH+json; x=y"), &headers, Err("not a batch")),
            (Some("application/cloudevents+avro"), &headers, Err("expected application/cloudevents+json")),
            (Some("application/cloudevents"), &headers, Err("expected application/cloudevents+json")),
        ] {
            let form = Form::of(&Meta { content_type, headers: headers.clone(), message_id: None });
            match (form, expected) {
                (Ok(form), Ok(expected)) => assert_eq!(form, expected, "{content_type:?}"),
                (Err(malformed), Err(part)) => {
                    let told = malformed.to_string();
                    assert!(told.starts_with("content_type: is `") && told.contains(part), "{told}");
                }
                (form, _) => panic!("{content_type:?} is {form:?}"),
            }
        }
    }

    #[test]
    fn every_mistake_names_its_attribute_in_both_modes() {
        let long = "x".repeat(129);
        for (change, expected) in [
            (json!({"specversion": null}), "specversion: is missing; expected `1.0`"),
            (json!({"specversion": "0.3"}), "specversion: is `0.3`; expected `1.0`"),
            (json!({"specversion": 1.0}), "specversion: is a number; expected a string"),
            (json!({"source": null}), "source: is missing; expected a URI reference"),
            (json!({"source": ""}), "source: is missing"),
            (json!({"source": "x".repeat(256)}), "source: has 256 bytes"),
            (json!({"source": "\u{0}"}), "source: holds the control character U+0000"),
            (json!({"id": null}), "id: is missing"),
            (json!({"id": long}), "id: has 129 characters"),
            (json!({"type": null}), "type: is missing; expected a string"),
            (json!({"type": long}), "type: has 129 characters"),
            (json!({"subject": null}), "subject: is missing; expected a string"),
            (json!({"subject": "🙂".repeat(100)}), "subject: has 400 bytes"),
            (json!({"subject": "a\nb"}), "subject: holds the control character U+000A"),
            (json!({"partnerid": 7}), "partnerid: is a number; expected a string"),
            (json!({"partnerid": ""}), "partnerid: is empty"),
            (json!({"excludeuserid": {"base64": "/w=="}}), "excludeuserid: is an object; expected a string"),
            (json!({"time": "2026-01-01"}), "time: is `2026-01-01`; expected an RFC 3339 time"),
            (json!({"expirytime": "soon"}), "expirytime: is `soon`"),
            (json!({"expirytime": i64::MAX}), "expirytime: is a number; expected a string"),
            (json!({"expirytime": 1.5}), "expirytime: is a number; expected a string"),
            (json!({"data": "text"}), "data: is a string"),
            (json!({"data": [1]}), "data: is an array"),
            (json!({"data": 7}), "data: is a number"),
        ] {
            let event = changed(change);
            for problem in [structured(&event), binary(&event, PREFIXES[0])] {
                let told = problem.unwrap_err().to_string();
                assert!(told.starts_with(expected), "{told} for {event}");
            }
        }
    }

    #[test]
    fn what_only_one_mode_can_get_wrong() {
        let told = structured(&changed(json!({"data_base64": "e30=", "data": null}))).unwrap_err().to_string();
        assert_eq!(told, "data_base64: is not read; expected the payload as an object in data");

        let headers = |fields: Value| fields.as_object().unwrap().clone();
        let required = json!({"cloudEvents_specversion": "1.0", "cloudEvents_id": "e", "cloudEvents_source": "s",
            "cloudEvents_type": "t", "cloudEvents_subject": "s"});
        let read = |body: &[u8], more: Value| {
            let mut headers = headers(required.clone());
            headers.extend(more.as_object().unwrap().clone());
            decode(body, &Meta { headers, ..Meta::default() })
        };
        for (body, expected) in [
            (&b"{"[..], "data: is not JSON"),
            (b"\xff", "data: is not UTF-8 from byte 0"),
            (b"null", "data: is null; expected a JSON object"),
            (&vec![b' '; MAX_BODY + 1], "body: has 65537 bytes"),
        ] {
            let told = read(body, json!({})).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{told}");
        }
        let told = read(b"", json!({"cloudEvents:id": "other"})).unwrap_err().to_string();
        assert_eq!(told, "headers: say two things of `id`; expected one header for each attribute");
        assert_eq!(read(b"", json!({"cloudEvents:id": "e"})).unwrap().id, "e");
    }

    #[test]
    fn the_message_id_stands_in_for_a_missing_id() {
        let body = changed(json!({"id": null})).to_string();
        let content_type = Some("application/cloudevents+json");
        let meta = Meta { message_id: Some("m1"), content_type, ..Meta::default() };
        assert_eq!(decode(body.as_bytes(), &meta).unwrap().id, "m1");
    }

    #[test]
    fn the_source_is_part_of_the_identity() {
        let identity = |change: Value| structured(&changed(change)).unwrap().identity();
        let one = identity(json!({}));
        assert_eq!(one, binary(&full(), PREFIXES[0]).unwrap().identity());
        assert_eq!(one, identity(json!({"type": "other", "data": {}})));
        let plain = json!({"id": "e1", "sessionId": "s1", "event": "e", "partnerId": "p1"}).to_string();
        let plain = decode(plain.as_bytes(), &Meta::default()).unwrap().identity();
        for other in [identity(json!({"source": "/other"})), identity(json!({"partnerid": "p2"})), plain] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_what_is_read_counts_as_an_attribute() {
        for (header, expected) in [
            ("cloudEvents_id", true),
            ("cloudEvents:expirytime", true),
            ("cloudEvents_traceparent", false),
            ("cloudEvents_data", false),
            ("cloudEvents_", false),
            ("cloudevents_id", false),
            ("ce-id", true),
            ("ce_id", false),
            ("ce-traceparent", false),
            ("id", false),
        ] {
            assert_eq!(is_attribute(header), expected, "{header}");
        }
    }
}
