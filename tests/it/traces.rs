//! Traces, as a receiver gets them: a worker process on real RabbitMQ and PostgreSQL, and spans by their wire format.

use herald::{
    broker::{Broker, Destination, Message, headers_json},
    domain::ledger::State,
    sandbox::{Action, Endpoint, Fault, Match},
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::{
    collector::{Collector, Span},
    relay::{Mode, Relay},
    rig::{Rig, event, free_port},
    support::eventually,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{PRODUCER}-01")
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Publishes as a producer that traces.
async fn send(rig: &Rig, event: &Value, headers: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    let to = Destination::Exchange { exchange: rig.topology.events(), routing_key: "partner.advanced".into() };
    let id = event["id"].as_str().unwrap();
    let properties = BasicProperties::default().with_headers(table).with_message_id(id.into());
    rig.broker.publish(&to, Message { body: event.to_string().into(), properties }).await.unwrap();
}

fn publish_only(id: &str, session: &str) -> Value {
    json!({"id": id, "sessionId": session, "event": "partner.advanced", "data": {"stage": 2}})
}

fn refusing(endpoint: Endpoint, status: u16) -> Fault {
    let matching = Match { endpoint: Some(endpoint), ..Match::default() };
    Fault { matching, status: Some(status), ..Fault::new(Action::Status) }
}

/// The attributes that the conventions want, and herald's own, on the span of an event.
fn attributes(span: &Span, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    assert_eq!(span.attributes, expected, "{}", span.name);
}

#[tokio::test]
async fn every_stop_stands_in_the_trace_that_the_producer_began() {
    let Some(mut rig) = Rig::new("spans").await else { return };
    let collector = Collector::start().await;
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    rig.enter("here", "ada");
    rig.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let queue = rig.topology.events();
    let parent = [("traceparent", text(&traceparent())), ("tracestate", text("vendor=1"))];

    send(&rig, &event("present", "partner.advanced", "here", "ada"), &parent).await;
    rig.until("present", State::Done).await;
    send(&rig, &event("absent", "partner.advanced", "elsewhere", "ada"), &parent).await;
    rig.until("absent", State::Done).await;

    let present = collector.handled("present", 1).await.remove(0);
    assert_eq!((present.trace.as_str(), present.parent.as_str()), (TRACE, PRODUCER));
    assert_eq!((present.name.as_str(), present.state.as_str()), (format!("process {queue}").as_str(), "vendor=1"));
    assert!(!present.failed);
    attributes(
        &present,
        &[
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", &format!("{queue}:partner.advanced:{queue}")),
            ("messaging.rabbitmq.destination.routing_key", "partner.advanced"),
            ("messaging.message.id", "present"),
            ("herald.event.id", "present"),
            ("herald.event.name", "partner.advanced"),
            ("herald.session.id", "here"),
            ("herald.user.id", "ada"),
            ("herald.redelivered", "false"),
            ("herald.route", "realtime"),
            ("herald.attempt", "0"),
            ("herald.state", "done"),
        ],
    );
    let resource = |key: &str| present.resource.get(key).map(String::as_str);
    assert_eq!((resource("service.name"), resource("service.instance.id")), (Some("herald"), Some("rig")));
    assert_eq!(resource("service.version"), Some(env!("CARGO_PKG_VERSION")));

    let absent = collector.handled("absent", 1).await.remove(0);
    for (span, asked) in [(&present, &["presence"][..]), (&absent, &["presence", "tokens"])] {
        collector.below(span, "settle").await;
        let stops = ["receive", "claim", "gather", "route", "send", "judge", "settle"];
        assert_eq!(collector.names_below(span), stops, "{span:?}");
        let gather = collector.below(span, "gather").await;
        assert_eq!(collector.names_below(&gather), asked);
        let receive = collector.below(span, "receive").await;
        assert_eq!((receive.begin, collector.names_below(&receive)), (span.begin, vec!["decode".to_owned()]));
    }
    let in_trace = collector.spans().into_iter().filter(|span| span.trace == TRACE).collect::<Vec<_>>();
    assert_eq!(in_trace.len(), collector.spans().len(), "everything belongs to the producer's trace");
    for span in &in_trace {
        let above = in_trace.iter().find(|above| above.id == span.parent);
        assert!(above.is_none_or(|above| above.begin <= span.begin && span.end <= above.end), "{span:?} in {above:?}");
        assert!(above.is_some() || span.parent == PRODUCER, "{span:?} hangs in the air");
    }

    let gather = collector.below(&present, "gather").await;
    let presence = collector.below(&gather, "presence").await;
    attributes(&presence, &[("herald.presence", "present"), ("herald.presence.members", "1")]);
    let asked = collector.below(&presence, "ably presence").await;
    assert_eq!(asked.kind, SpanKind::Client);
    let port = rig.sandbox.url().rsplit(':').next().unwrap().to_owned();
    attributes(
        &asked,
        &[
            ("http.request.method", "GET"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("http.response.status_code", "200"),
        ],
    );
    let sent = collector.below(&present, "send").await;
    let id = rig.entry("present").await.unwrap().targets["ably"].provider_id.clone().unwrap();
    attributes(&sent, &[("herald.target", "ably"), ("herald.provider", "ably"), ("herald.provider.id", &id)]);
    assert!(collector.below(&sent, "ably publish").await.has("http.response.status_code", "201"));
    attributes(&collector.below(&present, "claim").await, &[("herald.claim", "granted")]);
    attributes(&collector.below(&present, "route").await, &[("herald.route", "realtime")]);
    attributes(&collector.below(&present, "judge").await, &[("herald.disposition", "done")]);

    let gather = collector.below(&absent, "gather").await;
    attributes(
        &collector.below(&gather, "tokens").await,
        &[("herald.tokens.usable", "1"), ("herald.tokens.invalid", "0")],
    );
    let pushed = collector.below(&absent, "send").await;
    assert!(
        pushed.has("herald.provider", "expo") && pushed.attributes["herald.target"].starts_with("expo:"),
        "{pushed:?}"
    );
    assert_eq!(collector.below(&pushed, "expo send").await.kind, SpanKind::Client);

    // To others, our traces are nobody's business.
    for entry in rig.sandbox.control().entries(0, None, 1_000) {
        let told = entry.headers.keys().find(|name| ["traceparent", "tracestate", "baggage"].contains(&name.as_str()));
        assert_eq!(told, None, "{entry:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_retry_goes_on_in_the_trace_of_the_first_attempt() {
    let Some(mut rig) = Rig::new("retraced").await else { return };
    let collector = Collector::start().await;
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    rig.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;

    let traced = [("traceparent", text(&traceparent()))];
    let garbled = [("traceparent", text("00-what")), ("tracestate", text("of=nobody"))];
    for (id, headers) in [("traced", &traced[..]), ("fresh", &[]), ("garbled", &garbled)] {
        // Somebody between Expo and us, once: neither tried again at once nor final.
        let somebody = Fault { times: Some(1), body: Some("no".into()), ..refusing(Endpoint::Send, 418) };
        rig.sandbox.control().add_fault(somebody);
        send(&rig, &event(id, "partner.advanced", "s", "ada"), headers).await;
        rig.until(id, State::Done).await;
    }

    let [first, second] = collector.handled("traced", 2).await.try_into().unwrap();
    for attempt in [&first, &second] {
        assert_eq!((attempt.trace.as_str(), attempt.parent.as_str()), (TRACE, PRODUCER));
        assert!(attempt.has("herald.attempt", "1"), "one is used up: {attempt:?}");
    }
    assert!(first.failed && first.has("error.type", "transient") && first.has("herald.state", "waiting"), "{first:?}");
    assert!(!second.failed && second.has("herald.state", "done"), "{second:?}");
    // It came back by the default exchange.
    assert!(second.has("messaging.destination.name", &rig.topology.events()), "{second:?}");
    let retry = rig.topology.retry(rig.topology.schedule[0]);
    let copied = collector.below(&collector.below(&first, "settle").await, &format!("publish {retry}")).await;
    assert_eq!(copied.kind, SpanKind::Producer);
    attributes(
        &copied,
        &[
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", &retry),
        ],
    );

    // Without a trace to continue, the first attempt begins one; what cannot be read is no trace.
    let mut begun = Vec::new();
    for id in ["fresh", "garbled"] {
        let [first, second] = collector.handled(id, 2).await.try_into().unwrap();
        assert_eq!((first.parent.as_str(), first.state.as_str()), ("", ""), "{first:?}");
        assert_eq!((&second.trace, &second.parent, second.state.as_str()), (&first.trace, &first.id, ""), "{id}");
        begun.push(first.trace);
    }
    assert!(begun[0] != begun[1] && !begun.contains(&TRACE.to_owned()), "{begun:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_dead_letter_and_its_replay_stay_in_the_trace() {
    let Some(mut rig) = Rig::new("deadtrace").await else { return };
    let collector = Collector::start().await;
    rig.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let mut binary = vec![0, 0];
    binary.extend((0..16).map(|at| u8::from_str_radix(&TRACE[at * 2..at * 2 + 2], 16).unwrap()));
    binary.push(1);
    binary.extend((0..8).map(|at| u8::from_str_radix(&PRODUCER[at * 2..at * 2 + 2], 16).unwrap()));
    binary.extend([2, 1]);
    rig.sandbox.control().add_fault(refusing(Endpoint::Publish, 422));

    send(&rig, &publish_only("lost", "lost"), &[("traceparent", AMQPValue::ByteArray(binary.into()))]).await;
    send(&rig, &json!({"id": "unreadable", "event": "e"}), &[]).await;
    rig.until("lost", State::Dead).await;
    let lost = collector.handled("lost", 1).await.remove(0);
    assert_eq!((lost.trace.as_str(), lost.parent.as_str()), (TRACE, PRODUCER));
    assert!(lost.failed && lost.has("error.type", "rejected") && lost.has("herald.state", "dead"), "{lost:?}");
    let sent = collector.below(&lost, "send").await;
    assert!(
        sent.failed && sent.has("error.type", "rejected") && sent.has("http.response.status_code", "422"),
        "{sent:?}"
    );

    let unreadable = collector.handled("unreadable", 1).await.remove(0);
    assert!(unreadable.failed && unreadable.has("error.type", "malformed"), "{unreadable:?}");
    let decode = collector.below(&collector.below(&unreadable, "receive").await, "decode").await;
    attributes(&decode, &[("herald.field", "sessionId"), ("error.type", "malformed")]);
    // Its letter says the trace that herald began for it.
    let ours = format!("00-{}-{}-01", unreadable.trace, unreadable.id);
    let mut walk = rig.broker.walk(&rig.topology.dead()).await.unwrap();
    let mut letters = Vec::new();
    while let Some(letter) = walk.next().await.unwrap() {
        letters.push(headers_json(&letter.message)["traceparent"].clone());
    }
    walk.close().await;
    assert!(letters.len() == 2 && letters.contains(&json!(ours)), "{letters:?}");

    rig.sandbox.control().clear_faults();
    let replayed = rig.command(&["dead", "replay", "--event", "partner.advanced", "--yes"]).output().unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    rig.until("lost", State::Done).await;
    let again = collector.handled("lost", 2).await.remove(1);
    assert_eq!((again.trace.as_str(), again.parent.as_str()), (TRACE, PRODUCER));
    assert!(again.has("herald.replay", "1") && again.has("herald.state", "done"), "{again:?}");

    // Neither present nor absent, and nobody to push to: asked again, until there is no other time.
    send(&rig, &event("unsure", "partner.advanced", "fault-presence-500", "nobody"), &[]).await;
    let attempt = rig.until("unsure", State::Dead).await.attempt as usize;
    let attempts = collector.handled("unsure", attempt).await;
    let told: Vec<&str> = attempts.iter().map(|span| span.attributes["error.type"].as_str()).collect();
    assert_eq!((told[0], told[told.len() - 1]), ("not_tried", "exhausted"), "{attempts:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_request_for_many_events_links_to_each() {
    let Some(mut rig) = Rig::new("batchtrace").await else { return };
    let collector = Collector::start().await;
    let worker = rig.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let control = rig.sandbox.control().clone();
    /// So many requests go out for one event each; what comes then gathers, for one of them or until a request is half full.
    const EAGER: u32 = 6;
    let matching = Match { endpoint: Some(Endpoint::Publish), ..Match::default() };
    control.add_fault(Fault { matching, times: Some(EAGER), ..Fault::new(Action::Hold) });
    for n in 0..EAGER {
        rig.send(publish_only(&format!("out-{n}"), &format!("out-{n}"))).await;
        eventually("it is held", async || (control.held().len() == n as usize + 1).then_some(())).await;
    }
    for n in 0..20 {
        rig.send(publish_only(&format!("in-{n}"), &format!("in-{n}"))).await;
    }
    let waiting = "herald_provider_waiting{provider=\"ably\"}";
    eventually("all wait", async || (rig.counter(waiting).await == u64::from(EAGER) + 20).then_some(())).await;
    control.release();
    for n in 0..20 {
        rig.until(&format!("in-{n}"), State::Done).await;
    }

    let mut sends = Vec::new();
    for n in 0..20 {
        let handled = collector.handled(&format!("in-{n}"), 1).await.remove(0);
        sends.push(collector.below(&handled, "send").await.id);
    }
    let request = eventually("a request of many", async || {
        collector.spans().into_iter().find(|span| span.name == "ably publish" && span.links.len() > 1)
    })
    .await;
    let of_traces = collector.spans().iter().filter(|span| span.trace == request.trace).count();
    assert_eq!((request.parent.as_str(), of_traces), ("", 2), "a trace of its own: {request:?}");
    assert!(request.has("herald.batch.items", &request.links.len().to_string()), "{request:?}");
    assert!(request.links.iter().all(|link| sends.contains(link)), "{request:?}");
    assert!(collector.below(&request, "ably batch_publish").await.has("http.response.status_code", "201"));
    println!("one request carried {} of 20 events", request.links.len());
    assert_eq!(rig.terminate(worker).await, Some(0));
    rig.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_or_hangs_holds_up_nothing() {
    let Some(mut rig) = Rig::new("nowhere").await else { return };
    let collector = Collector::start().await;
    let relay = Relay::start(collector.url.strip_prefix("http://").unwrap().to_owned()).await;
    relay.set(Mode::Blackhole);
    let (away, hanging) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", relay.port()));
    for (number, endpoint) in [away, hanging].iter().enumerate() {
        let worker = rig.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).await;
        for n in 0..100 {
            let session = format!("s-{number}-{n}");
            rig.send(publish_only(&session, &session)).await;
        }
        eventually("all are delivered", async || {
            let books = rig.books().await;
            (books.closed() && books.waiting == 0 && books.received == (number as i64 + 1) * 100).then_some(())
        })
        .await;
        assert_eq!(rig.counter("herald_trace_spans_total{result=\"exported\"}").await, 0);
        let lost = ["failed", "dropped"].map(|result| format!("herald_trace_spans_total{{result=\"{result}\"}}"));
        eventually("what is lost is counted", async || {
            (rig.counter(&lost[0]).await + rig.counter(&lost[1]).await > 0).then_some(())
        })
        .await;
        assert_eq!(rig.terminate(worker).await, Some(0));
        let log = rig.log(worker);
        let said = log.lines().filter(|line| line.contains("otlp.endpoint does not take the traces")).count();
        assert_eq!(said, 1, "one line a minute: {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
    rig.end().await;
}

#[tokio::test]
async fn log_lines_about_an_event_bear_its_trace() {
    let Some(mut rig) = Rig::new("logtrace").await else { return };
    let collector = Collector::start().await;
    // Malformed: a dead letter is told at info.
    let malformed = |id: &str| json!({"id": id, "event": "e"});
    let line = |log: String, id: &str| {
        let found = log.lines().find(|line| line.contains("dead letter") && line.contains(id));
        found.unwrap_or_else(|| panic!("no line about {id} in {log}")).to_owned()
    };
    for (number, format) in ["text", "json"].into_iter().enumerate() {
        for endpoint in ["", &collector.url] {
            let (with, without) =
                (format!("with-{number}{}", endpoint.len()), format!("without-{number}{}", endpoint.len()));
            let variables = [
                ("HERALD_LOG__FORMAT", format),
                ("HERALD_LOG__LEVEL", "info"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ];
            let worker = rig.start_with(&variables).await;
            send(&rig, &malformed(&with), &[("traceparent", text(&traceparent()))]).await;
            send(&rig, &malformed(&without), &[]).await;
            rig.until(&with, State::Dead).await;
            rig.until(&without, State::Dead).await;
            assert_eq!(rig.terminate(worker).await, Some(0));
            let told = |id: &str| {
                let line = line(rig.log(worker), id);
                match format {
                    "json" => serde_json::from_str::<Value>(&line).unwrap()["trace_id"].as_str().map(str::to_owned),
                    _ => line.rsplit_once(" trace_id=").map(|(_, id)| id.to_owned()),
                }
            };
            assert_eq!(told(&with).as_deref(), Some(TRACE), "{format}");
            match endpoint {
                "" => assert_eq!(told(&without), None, "there is no trace to tell"),
                _ => assert_eq!(told(&without), Some(collector.handled(&without, 1).await.remove(0).trace)),
            }
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn the_producers_decision_and_opentelemetrys_variables_count() {
    let Some(mut rig) = Rig::new("sampled").await else { return };
    let collector = Collector::start().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OTEL_SERVICE_NAME", "herald-eu"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours"),
    ];
    let worker = rig.start_with(&variables).await;
    send(&rig, &publish_only("wanted", "s1"), &[("traceparent", text(&traceparent()))]).await;
    let unwanted = format!("00-{}-{PRODUCER}-00", TRACE.replace('4', "5"));
    send(&rig, &publish_only("unwanted", "s2"), &[("traceparent", text(&unwanted))]).await;
    send(&rig, &publish_only("undecided", "s3"), &[]).await;
    for id in ["wanted", "unwanted", "undecided"] {
        rig.until(id, State::Done).await;
    }
    // The end sends what waits.
    assert_eq!(rig.terminate(worker).await, Some(0));
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.trace == TRACE), "{spans:?}");
    assert_eq!(spans[0].resource["service.name"], "herald-eu");
    assert!(collector.headers().iter().all(|headers| headers["x-tenant"] == "ours"));
    rig.end().await;
}
