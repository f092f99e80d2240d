use opentelemetry::trace::FutureExt as _;
use proptest::prelude::*;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn message(fields: &[(&str, AMQPValue)]) -> Message {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert((*name).into(), value.clone());
    }
    Message { body: Default::default(), properties: BasicProperties::default().with_headers(table) }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn bytes(trace: &str, span: &str, flags: u8) -> Vec<u8> {
    let (trace, span) = (TraceId::from_hex(trace).unwrap(), SpanId::from_hex(span).unwrap());
    [&[0, 0][..], &trace.to_bytes(), &[1], &span.to_bytes(), &[2, flags]].concat()
}

/// Returns trace, span, whether it is sampled, and the state.
fn parent(message: &Message) -> Option<(String, String, bool, String)> {
    let cx = read(message)?;
    let span = cx.span().span_context().clone();
    assert!(span.is_valid() && span.is_remote());
    Some((span.trace_id().to_string(), span.span_id().to_string(), span.is_sampled(), span.trace_state().header()))
}

#[test]
fn a_parent_is_read_from_text_and_binary_and_from_nothing_else() {
    let there = |sampled| Some((TRACE.to_owned(), SPAN.to_owned(), sampled, String::new()));
    let written = format!("00-{TRACE}-{SPAN}-01");
    for (value, expected) in [
        (text(&written), there(true)),
        (AMQPValue::ByteArray(written.as_bytes().into()), there(true)),
        (AMQPValue::ShortString(written.as_str().into()), there(true)),
        (text(&format!("00-{TRACE}-{SPAN}-00")), there(false)),
        // A later version, with something more.
        (text(&format!("cc-{TRACE}-{SPAN}-01-more")), there(true)),
        (AMQPValue::ByteArray(bytes(TRACE, SPAN, 1).into()), there(true)),
        (AMQPValue::LongString(bytes(TRACE, SPAN, 0).into()), there(false)),
        (text(""), None),
        (text("00"), None),
        (text(&format!("ff-{TRACE}-{SPAN}-01")), None),
        (text(&format!("00-{TRACE}-{SPAN}-01-more")), None),
        (text(&format!("00-{}-{SPAN}-01", TRACE.to_uppercase())), None),
        (text(&format!("00-{}-{SPAN}-01", "0".repeat(32))), None),
        (text(&format!("00-{TRACE}-{}-01", "0".repeat(16))), None),
        (AMQPValue::ByteArray(bytes(&"0".repeat(32), SPAN, 1).into()), None),
        (AMQPValue::ByteArray(bytes(TRACE, SPAN, 1)[1..].into()), None),
        (AMQPValue::LongString(vec![0xff; 29].into()), None),
        (AMQPValue::LongLongInt(1), None),
        (AMQPValue::Void, None),
    ] {
        assert_eq!(parent(&message(&[("traceparent", value.clone())])), expected, "{value:?}");
    }
    assert_eq!(parent(&message(&[("tracestate", text("a=b"))])), None);
    assert_eq!(parent(&Message::default()), None);
}

#[test]
fn the_state_comes_along_unless_it_makes_no_sense() {
    let long = format!("a={}", "b".repeat(MAX_STATE));
    for (state, expected) in [("a=b,c=d", "a=b,c=d"), ("Bearer secret", ""), (long.as_str(), "")] {
        for value in [text(&format!("00-{TRACE}-{SPAN}-01")), AMQPValue::ByteArray(bytes(TRACE, SPAN, 1).into())] {
            let message = message(&[("traceparent", value), ("tracestate", text(state))]);
            assert_eq!(parent(&message).map(|(.., state)| state).as_deref(), Some(expected), "{state:.40}");
        }
    }
}

#[tokio::test]
async fn a_copy_says_the_trace_it_is_handled_in_unless_it_says_one_itself() {
    let written = |mut copy: Message| async move {
        write(&mut copy);
        crate::broker::headers_json(&copy)
    };
    let span = |state: &str| {
        let (trace, span) = (TraceId::from_hex(TRACE).unwrap(), SpanId::from_hex(SPAN).unwrap());
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, state.parse().unwrap())
    };
    let here = |state: &str| Context::new().with_remote_span_context(span(state));
    let ours = format!("00-{TRACE}-{SPAN}-01");
    let theirs = format!("00-{}-{SPAN}-00", TRACE.replace('4', "5"));

    let untouched = written(message(&[("a", text("b"))])).await;
    assert_eq!(untouched, serde_json::json!({"a": "b"}));
    let added = written(message(&[("a", text("b"))])).with_context(here("")).await;
    assert_eq!(added, serde_json::json!({"a": "b", "traceparent": ours}));
    let kept =
        written(message(&[("traceparent", text(&theirs)), ("tracestate", text("x=y"))])).with_context(here("")).await;
    assert_eq!(kept, serde_json::json!({"traceparent": theirs, "tracestate": "x=y"}));
    // What cannot be read belongs to no trace, and neither does its state.
    let senseless = message(&[("traceparent", text("?")), ("tracestate", text("x=y"))]);
    let replaced = written(senseless.clone()).with_context(here("")).await;
    assert_eq!(replaced, serde_json::json!({"traceparent": ours}));
    let with_state = written(senseless).with_context(here("k=v")).await;
    assert_eq!(with_state, serde_json::json!({"traceparent": ours, "tracestate": "k=v"}));
}

proptest! {
    #[test]
    fn no_header_breaks_reading(parent in prop::collection::vec(any::<u8>(), 0..60), state in prop::collection::vec(any::<u8>(), 0..60)) {
        for kind in [|bytes: &[u8]| AMQPValue::LongString(bytes.into()), |bytes: &[u8]| AMQPValue::ByteArray(bytes.into())] {
            let mut message = message(&[("traceparent", kind(&parent)), ("tracestate", kind(&state))]);
            let before = message.clone();
            prop_assert!(read(&message).is_none_or(|cx| cx.span().span_context().is_valid()));
            write(&mut message);
            prop_assert_eq!(message, before);
        }
    }
}
