//! Outages of one provider on real RabbitMQ and PostgreSQL: what waits, what goes on, what comes back.

mod credentials;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::StreamExt;
use herald::{
    domain::{
        ledger::{Entry, State},
        outcome::Provider,
    },
    sandbox::{Action, Endpoint, Fault, Match, Sandbox, Settings},
};
use serde_json::{Value, json};

use crate::{
    rig::{Rig, event, free_port},
    support::within,
};

/// Events of one measured batch.
const BATCH: usize = 1000;

/// A provider that can be switched off: then nobody listens at its address.
struct Switch {
    port: u16,
    sandbox: Option<Sandbox>,
    settings: Settings,
}

impl Switch {
    async fn on(settings: Settings) -> Switch {
        let mut switch = Switch { port: free_port(), sandbox: None, settings };
        switch.turn_on().await;
        switch
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn turn_on(&mut self) {
        let sandbox = Sandbox::start_with(([127, 0, 0, 1], self.port).into(), self.settings.clone()).await;
        self.sandbox = Some(sandbox.expect("sandbox"));
    }

    async fn turn_off(&mut self) {
        self.sandbox.take().expect("it is on").stop().await;
    }

    fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("it is on")
    }
}

fn unlimited() -> Settings {
    Settings { channel_rate: 0, project_rate: 0, ..Settings::default() }
}

/// An event of a session of its own: for its channel only, or for a user who is absent.
fn single(provider: Provider, id: &str, user: usize) -> Value {
    match provider {
        Provider::Ably => json!({"id": id, "sessionId": format!("s-{id}"), "event": "partner.advanced"}),
        Provider::Expo => event(id, "partner.advanced", &format!("s-{id}"), &format!("u{user}")),
    }
}

async fn add_users(rig: &Rig, count: usize) {
    rig.add_users((0..count).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]"))))).await;
}

async fn send_all(rig: &Rig, events: impl IntoIterator<Item = Value>) {
    futures::stream::iter(events.into_iter().map(|event| rig.send(event)))
        .buffer_unordered(200)
        .collect::<Vec<()>>()
        .await;
}

/// Waits for what `condition` returns, for at most `seconds`.
async fn patiently<T>(seconds: u64, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(seconds, what, waiting).await
}

async fn ended(rig: &Rig, id: &str, seconds: u64) -> Entry {
    let done = async || rig.entry(id).await.filter(|entry| entry.state != State::Waiting);
    patiently(seconds, &format!("{id} has ended"), done).await
}

async fn held(rig: &Rig, id: &str, reason: &str) -> Entry {
    let held = async || rig.entry(id).await.filter(|entry| entry.reason.as_deref() == Some(reason));
    patiently(60, &format!("{id} is {reason}"), held).await
}

/// Returns the better of two measurements: other work on the machine is not what is measured.
async fn pace(rig: &Rig, provider: Provider, name: &str) -> f64 {
    let first = batch(rig, provider, &format!("{name}-a")).await;
    first.max(batch(rig, provider, &format!("{name}-b")).await)
}

/// Sends a batch for `provider` and returns how many events a second arrived.
async fn batch(rig: &Rig, provider: Provider, name: &str) -> f64 {
    let arrived = || rig.sandbox.control().effect_totals().0;
    let (before, started) = (arrived(), Instant::now());
    send_all(rig, (0..BATCH).map(|n| single(provider, &format!("{name}-{n}"), n))).await;
    patiently(120, &format!("{name} has arrived"), async || (arrived() >= before + BATCH).then_some(())).await;
    BATCH as f64 / started.elapsed().as_secs_f64()
}

/// One provider is down: its events wait without using attempts, the other keeps its pace, and then everything arrives once.
async fn outage(down: Provider) {
    let other = if down == Provider::Ably { Provider::Expo } else { Provider::Ably };
    let Some(mut rig) = Rig::new("outage").await else { return };
    add_users(&rig, BATCH).await;
    let mut switch = Switch::on(unlimited()).await;
    let url = switch.url();
    let key = if down == Provider::Ably { "HERALD_ABLY__URL" } else { "HERALD_EXPO__URL" };
    // Long enough that what opens the breaker is not exhausted by then.
    rig.topology.schedule = [1, 2, 30].map(Duration::from_secs).to_vec();
    let worker = rig.start_with(&[(key, &url), ("HERALD_RETRY__SCHEDULE", r#"["1s","2s","30s"]"#)]).await;
    let before = pace(&rig, other, "before").await;
    switch.turn_off().await;

    // The failures that open the breaker are charged; what comes then is not.
    let mut opening = 0;
    loop {
        let id = format!("opening-{opening}");
        rig.send(single(down, &id, opening)).await;
        opening += 1;
        let told = async || rig.entry(&id).await.filter(|entry| entry.reason.is_some());
        let entry = patiently(60, "an event meets the outage", told).await;
        if entry.reason.as_deref() == Some("held:breaker") {
            break;
        }
        assert!(opening < 20, "the breaker opens: {entry:?}");
    }
    let waiting: Vec<String> = (0..200).map(|n| format!("held-{n}")).collect();
    send_all(&rig, waiting.iter().enumerate().map(|(n, id)| single(down, id, n))).await;
    let during = pace(&rig, other, "during").await;
    println!(
        "{down} down: {other} carried {before:.0} events/s before and {during:.0} during, {opening} sends opened the breaker"
    );
    // Far below: this runs beside other tests. A provider that waited for the other would carry next to nothing.
    assert!(during > before * 0.25, "{other} keeps its pace: {before:.0} before, {during:.0} during");
    for id in &waiting {
        let entry = held(&rig, id, "held:breaker").await;
        assert_eq!((entry.attempt, entry.state), (0, State::Waiting), "{id} uses no attempt: {entry:?}");
    }
    if down == Provider::Ably {
        for n in [0, BATCH - 1] {
            let entry = rig.entry(&format!("during-a-{n}")).await.unwrap();
            assert_eq!((entry.evidence.presence.as_deref(), entry.route.as_deref()), (Some("unknown"), Some("push")));
        }
    }

    switch.turn_on().await;
    let started = Instant::now();
    let opened = (0..opening).map(|n| format!("opening-{n}"));
    for id in waiting.iter().cloned().chain(opened) {
        let entry = ended(&rig, &id, 120).await;
        assert_eq!(entry.state, State::Done, "{id}: {entry:?}");
    }
    println!("{down} back: {} events delivered after {:?}", waiting.len() + opening, started.elapsed());
    let effects = switch.sandbox().control().effects(0, usize::MAX);
    assert_eq!(effects.len(), waiting.len() + opening, "everything that waited arrived");
    assert!(effects.iter().all(|effect| effect.count == 1), "and once");
    let log = rig.log(worker);
    assert!(log.contains(&format!("{down} is shut")) && log.contains(&format!("{down} is open again")));
    assert!(rig.books().await.closed());
    rig.end().await;
}

#[tokio::test]
async fn expo_down_holds_pushes_and_ably_keeps_its_pace() {
    outage(Provider::Expo).await;
}

#[tokio::test]
async fn ably_down_falls_to_push_holds_publishes_and_expo_keeps_its_pace() {
    outage(Provider::Ably).await;
}

#[tokio::test]
async fn while_expo_answers_503_no_held_push_is_risked_on_finding_out() {
    let Some(mut rig) = Rig::new("probes").await else { return };
    add_users(&rig, 30).await;
    rig.start().await;
    let control = rig.sandbox.control().clone();
    let matching = Match { provider: Some(herald::sandbox::Provider::Expo), ..Match::default() };
    control.add_fault(Fault { matching, status: Some(503), ..Fault::new(Action::Status) });
    let mut sent = 0;
    loop {
        let id = format!("e{sent}");
        rig.send(single(Provider::Expo, &id, sent)).await;
        sent += 1;
        let told =
            async || rig.entry(&id).await.filter(|entry| entry.reason.is_some() || entry.state != State::Waiting);
        if patiently(60, "an event meets the outage", told).await.reason.as_deref() == Some("held:breaker") {
            break;
        }
        assert!(sent < 20, "the breaker opens");
    }
    let requests = || control.counters()["send"].requests;
    let (id, before) = (format!("e{}", sent - 1), requests());
    let probes = async || (control.counters()["receipts"].requests >= 4).then_some(());
    patiently(90, "four probes have gone out", probes).await;
    assert_eq!(requests(), before, "no push has");
    let entry = held(&rig, &id, "held:breaker").await;
    assert!(entry.attempt == 0 && entry.attempts.iter().all(|attempt| attempt.outcome == "held"), "{entry:?}");
    control.clear_faults();
    let entry = ended(&rig, &id, 120).await;
    assert_eq!((entry.state, entry.attempt, rig.effects()[&id]), (State::Done, 0, (0, 1)), "{entry:?}");
    println!(
        "Expo answered 503: {before} pushes met it, then {} harmless probes",
        control.counters()["receipts"].requests
    );
    rig.end().await;
}

#[tokio::test]
async fn after_an_outage_held_and_fresh_share_the_rate_and_the_expired_end_without_a_request() {
    const HELD: usize = 1500;
    const FRESH: usize = 600;
    const LATE: usize = 100;
    let Some(mut rig) = Rig::new("release").await else { return };
    add_users(&rig, HELD).await;
    let limited = Settings { channel_rate: 0, ..Settings::default() };
    assert_eq!(limited.project_rate, 600, "Expo's own limit");
    let mut switch = Switch::on(limited).await;
    let url = switch.url();
    switch.turn_off().await;
    for instance in ["first", "second"] {
        rig.start_as(instance, &[("HERALD_EXPO__URL", &url), ("HERALD_EXPO__RATE", "600")]).await;
    }

    let life = jiff::Timestamp::now() + Duration::from_secs(20);
    send_all(&rig, (0..HELD).map(|n| single(Provider::Expo, &format!("held-{n}"), n))).await;
    let late = (0..LATE).map(|n| {
        let mut event = single(Provider::Expo, &format!("late-{n}"), n);
        event["expiresAt"] = life.to_string().into();
        event
    });
    send_all(&rig, late).await;
    let hold = rig.topology.hold(Provider::Expo);
    patiently(90, "nearly everything is held", async || {
        (rig.ready_messages(&hold).await as usize > HELD * 3 / 4).then_some(())
    })
    .await;
    patiently(60, "the short lives are over", async || (jiff::Timestamp::now() > life).then_some(())).await;

    switch.turn_on().await;
    let started = Instant::now();
    let control = switch.sandbox().control().clone();
    patiently(90, "the provider is found again", async || (control.effect_totals().0 > 0).then_some(())).await;
    send_all(&rig, (0..FRESH).map(|n| single(Provider::Expo, &format!("fresh-{n}"), n))).await;
    patiently(120, "all have arrived", async || (control.effect_totals().0 >= HELD + FRESH).then_some(())).await;
    let took = started.elapsed();
    let at_work = {
        let sends: Vec<_> =
            control.entries(0, None, usize::MAX).into_iter().filter(|e| e.endpoint == Endpoint::Send).collect();
        sends[sends.len() - 1].time.duration_since(sends[0].time)
    };
    for n in 0..LATE {
        let entry = ended(&rig, &format!("late-{n}"), 120).await;
        assert_eq!((entry.state, entry.reason.as_deref()), (State::Dead, Some("expired")), "{entry:?}");
    }

    let journal = control.entries(0, None, usize::MAX);
    let sends: Vec<_> = journal.iter().filter(|entry| entry.endpoint == Endpoint::Send).collect();
    let refused = sends.iter().filter(|entry| entry.status == Some(429)).count();
    let asked_for = |id: &str| sends.iter().flat_map(|entry| &entry.items).any(|item| item.id.as_deref() == Some(id));
    assert!((0..LATE).all(|n| !asked_for(&format!("late-{n}"))), "no request for what expired");
    let mut effects = BTreeMap::<String, usize>::new();
    control
        .effects(0, usize::MAX)
        .into_iter()
        .for_each(|effect| *effects.entry(effect.event.to_string()).or_default() += 1);
    assert_eq!(effects.len(), HELD + FRESH);
    assert!(effects.values().all(|times| *times == 1), "each once: {effects:?}");
    let at: Vec<(i64, usize)> = sends.iter().map(|entry| (entry.time.as_millisecond(), entry.items.len())).collect();
    let busiest = at.iter().map(|(from, _)| {
        at.iter().filter(|(time, _)| (*from..from + 1000).contains(time)).map(|(_, items)| items).sum::<usize>()
    });
    let order = control.effects(0, usize::MAX);
    let place = |effect: Option<usize>| effect.expect("it arrived");
    let first_fresh = place(order.iter().position(|effect| effect.event.starts_with("fresh-")));
    let last_held = place(order.iter().rposition(|effect| effect.event.starts_with("held-")));
    println!(
        "{HELD} held and {FRESH} fresh after an outage, two workers: {took:?}, {} s from the first request to the last, {} requests, {refused} answered 429, busiest second {} \
         notifications; first fresh at place {first_fresh}, last held at {last_held}; first request carried {}",
        at_work.as_secs_f64(),
        sends.len(),
        busiest.max().unwrap_or(0),
        sends[0].items.len(),
    );
    // On a busy machine requests bunch up on their way, and the provider sees more of them within a second than were sent.
    assert!(refused * 20 <= sends.len(), "no stampede over the limit: {refused} of {}", sends.len());
    assert!(first_fresh < last_held, "fresh events do not wait for all held ones");
    assert!(rig.books().await.closed());
    rig.end().await;
}
