//! The users of RabbitMQ that `docs/operating.md` gives the least rights to: each can do its work, and nothing else.

use herald::{
    broker::{
        Broker, BrokerError, Standing,
        amqp::{Amqp, AmqpOptions, Role},
        topology::Topology,
    },
    domain::ledger::State,
    sandbox::{Action, Endpoint, Fault, Match},
};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::{Value, json};

use super::read;
use crate::{
    broker::setup::{PATIENCE, Raw, User, delete_queues, options},
    rig::{Rig, event},
    support::{amqp_url, eventually, unique, within},
};

/// Returns the patterns that the page gives to `user`, for queues under `prefix`.
fn patterns(user: &str, prefix: &str) -> [String; 3] {
    let page = read("docs/operating.md");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("rabbitmqctl set_permissions -p / {user} ")))
        .unwrap_or_else(|| panic!("no line for {user}"));
    let patterns: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
    let patterns: [&str; 3] = patterns.try_into().expect("three patterns");
    patterns.map(|pattern| pattern.replace("herald[.]", &format!("{prefix}[.]")))
}

async fn create(user: &str, prefix: &str, url: &str) -> User {
    let page = read("docs/operating.md");
    let tags = page.lines().find_map(|line| line.strip_prefix(&format!("rabbitmqctl set_user_tags {user} ")));
    let patterns = patterns(user, prefix);
    User::create(url, [&patterns[0], &patterns[1], &patterns[2]], tags.unwrap_or_default()).await
}

/// Whether the broker lets this user do it; a refusal ends the channel, so each is tried on one of its own.
async fn may<T>(url: &str, act: impl AsyncFnOnce(&lapin::Channel) -> Result<T, lapin::Error>) -> bool {
    let raw = Raw::connect(url).await;
    match within(20, "the broker's answer", act(&raw.channel)).await {
        Ok(_) => true,
        Err(error) => {
            assert!(
                error.to_string().contains("ACCESS_REFUSED") || format!("{error:?}").contains("ACCESSREFUSED"),
                "{error}"
            );
            false
        }
    }
}

/// What nobody but the setup user may do.
async fn may_change_queues(url: &str, topology: &Topology) -> bool {
    let (events, other) = (topology.events(), format!("{}.other", topology.prefix));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let declare = may(url, async |channel| channel.queue_declare(other.into(), durable, FieldTable::default()).await);
    let delete = may(url, async |channel| channel.queue_delete(events.into(), Default::default()).await);
    declare.await || delete.await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_user_declares_everything_and_reaches_no_other_queue() {
    let Some(url) = amqp_url() else { return };
    let topology = Topology {
        prefix: unique("setup"),
        schedule: vec![std::time::Duration::from_secs(5)],
        dead_retention: std::time::Duration::from_secs(3600),
    };
    let user = create("herald-setup", &topology.prefix, &url).await;
    let broker = Amqp::start(options(&user.url, &topology));
    assert_eq!(broker.ready(PATIENCE).await, Ok(()));
    let found = broker.compare(PATIENCE).await.unwrap();
    assert!(found.iter().all(|found| found.standing == Standing::Fits), "{found:?}");
    broker.close().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let elsewhere = unique("elsewhere");
    assert!(
        !may(&user.url, async |channel| channel.queue_declare(elsewhere.into(), durable, FieldTable::default()).await)
            .await
    );
    user.delete().await;
    delete_queues(&url, &topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_user_does_the_whole_job_and_changes_no_queue() {
    let Some(mut rig) = Rig::new("runuser").await else { return };
    let user = create("herald-run", &rig.prefix, &rig.amqp_url).await;
    rig.add_users([("ben".into(), Some("ExponentPushToken[phone-ben]".into()))]).await;
    rig.enter("s1", "ada");
    let worker = rig.start_with(&[("AMQP_URL", &user.url)]).await;
    rig.send(event("published", "partner.advanced", "s1", "ada")).await;
    rig.send(event("pushed", "partner.advanced", "s1", "ben")).await;
    rig.until("published", State::Done).await;
    rig.until("pushed", State::Done).await;
    // A copy to a retry queue and back.
    let publish = Match { endpoint: Some(Endpoint::Publish), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: publish.clone(), times: Some(4), ..Fault::new(Action::Status) });
    rig.send(event("retried", "partner.advanced", "s1", "ada")).await;
    assert!(rig.until("retried", State::Done).await.attempt >= 1);
    // A copy to a hold queue, consumed again.
    let throttle = Fault { matching: publish, times: Some(1), retry_after: Some(7), ..Fault::new(Action::Throttle) };
    rig.sandbox.control().add_fault(throttle);
    rig.send(event("held", "partner.advanced", "s1", "ada")).await;
    rig.until("held", State::Done).await;
    assert!(rig.log(worker).contains("held"), "it went through the hold queue");
    // A dead letter, read, put back by the command and dead again.
    rig.publish(b"{".to_vec(), Some("broken")).await;
    eventually("a dead letter", async || (rig.letters().await.len() == 1).then_some(())).await;
    let replay = |rig: &Rig| {
        let mut command = rig.command(&["dead", "replay", "--yes"]);
        tokio::task::block_in_place(|| command.env("AMQP_URL", &user.url).output().unwrap())
    };
    let replayed = replay(&rig);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    eventually("it is dead again", async || {
        rig.letters().await.first().filter(|letter| letter.replay == 1).map(|_| ())
    })
    .await;
    assert!(!may_change_queues(&user.url, &rig.topology).await);
    let retry = rig.topology.retry(rig.topology.schedule[0]);
    assert!(!may(&user.url, async |channel| channel.basic_get(retry.into(), Default::default()).await).await);
    user.delete().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_user_sees_everything_and_takes_nothing() {
    let Some(rig) = Rig::new("statususer").await else { return };
    let user = create("herald-status", &rig.prefix, &rig.amqp_url).await;
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    let status = eventually("the management API has counted", async || {
        let mut command = rig.command(&["status", "--json"]);
        command.env("AMQP_URL", &user.url).env("HERALD_BROKER__MANAGEMENT_URL", user.management_url());
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let status: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let queues = status["queues"].as_array().unwrap().clone();
        let events = queues.iter().find(|queue| queue["queue"] == rig.topology.events().as_str())?;
        (events["unacked"] == json!(0) && events["ready"] == json!(1)).then_some(queues)
    })
    .await;
    assert_eq!(status.len(), rig.topology.queues().len());
    assert!(!may_change_queues(&user.url, &rig.topology).await);
    let dead = rig.topology.dead();
    let publish = may(&user.url, async |channel| {
        channel.confirm_select(Default::default()).await?;
        channel.basic_publish("".into(), dead.into(), Default::default(), b"x", Default::default()).await?.await
    });
    assert!(!publish.await);
    user.delete().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_sends_events_and_nothing_else() {
    let Some(rig) = Rig::new("pubuser").await else { return };
    let user = create("herald-publisher", &rig.prefix, &rig.amqp_url).await;
    let events = rig.topology.events();
    let body = event("e1", "partner.advanced", "s1", "ada").to_string();
    let publish = may(&user.url, async |channel| {
        channel.confirm_select(Default::default()).await?;
        let exchange = events.as_str().into();
        channel
            .basic_publish(exchange, "partner.advanced".into(), Default::default(), body.as_bytes(), Default::default())
            .await?
            .await
    });
    assert!(publish.await, "it may publish to the exchange");
    eventually("the event lies in the queue", async || (rig.ready_messages(&events).await == 1).then_some(())).await;
    let queue = events.clone();
    assert!(!may(&user.url, async |channel| channel.basic_get(queue.into(), Default::default()).await).await);
    let dead = rig.topology.dead();
    let around = may(&user.url, async |channel| {
        channel.confirm_select(Default::default()).await?;
        channel.basic_publish("".into(), dead.into(), Default::default(), b"x", Default::default()).await?.await
    });
    assert!(!around.await, "not straight into a queue");
    assert!(!may_change_queues(&user.url, &rig.topology).await);
    // herald itself cannot work as this user, and says why.
    let options = AmqpOptions { role: Role::Worker, ..options(&user.url, &rig.topology) };
    let broker = Amqp::start(options);
    broker.ready(PATIENCE).await.unwrap();
    let consumed = within(20, "the refusal", broker.consume(&events, 1)).await.map(|_| ());
    assert!(matches!(consumed, Err(BrokerError::Config(_))), "{consumed:?}");
    broker.close().await;
    user.delete().await;
    rig.end().await;
}
