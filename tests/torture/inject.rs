//! One strike of a fault: what is done to the servers, the network, the providers or the processes, and how it is undone.
//!
//! Every strike leaves things healed: servers up, relays open, no rule in the sandbox, every worker started (not necessarily
//! ready). Random moments come from the round's generator, so that a seed names them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use herald::sandbox::{Action, Endpoint, Fault as Rule, Match, Phase, Provider};
use rand::{Rng, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{fault::Fault, stage::Stage};

/// What a strike did.
pub struct Struck {
    pub kills: u32,
    pub healed: Instant,
    /// Effects at the moment of healing: more of them means that it works again.
    pub effects: usize,
    /// Events that were not in the queue an operator destroyed: ended, or in another queue.
    pub safe: u64,
}

const PRESENCE: &[Endpoint] = &[Endpoint::Presence, Endpoint::BatchPresence];
const ABLY: &[Endpoint] = &[Endpoint::Publish, Endpoint::BatchPublish];
const EXPO: &[Endpoint] = &[Endpoint::Send];
const SENDS: &[Endpoint] = &[Endpoint::Publish, Endpoint::BatchPublish, Endpoint::Send];
const ALL: &[Endpoint] =
    &[Endpoint::Presence, Endpoint::BatchPresence, Endpoint::Publish, Endpoint::BatchPublish, Endpoint::Send];

/// Carries out one strike.
pub async fn strike(stage: &mut Stage, fault: Fault, random: &mut StdRng, short: bool) -> anyhow::Result<Struck> {
    let mut kills = 0;
    let mut safe = 0;
    match fault {
        Fault::None => {}
        Fault::KillPresence => kills += killed_while_held(stage, random, PRESENCE, Phase::Before).await?,
        Fault::KillSendBefore => kills += killed_while_held(stage, random, SENDS, Phase::Before).await?,
        Fault::KillSendAfter => kills += killed_while_held(stage, random, SENDS, Phase::After).await?,
        Fault::KillLookup => kills += killed_while_locked(stage, random, &stage.app(), "\"User\"").await?,
        Fault::KillLedger => kills += killed_while_locked(stage, random, &stage.ledger(), "events").await?,
        Fault::KillConfirm => {
            rule(stage, Rule::new(Action::Status), SENDS);
            kills += killed_while_kept_back(stage, random, 0, |mode, on| mode.hold_confirms = on).await?;
        }
        Fault::KillAck => kills += killed_while_kept_back(stage, random, 0, |mode, on| mode.hold_acks = on).await?,
        Fault::KillRandom => {
            pause(random, 0, 1500).await;
            stage.signal(0, "-KILL").await?;
            stage.spawn(0)?;
            kills += 1;
        }
        Fault::Terminate => {
            pause(random, 0, 1500).await;
            let status = stage.signal(0, "-TERM").await?;
            ensure!(status.success(), "on SIGTERM the worker ended with {status}");
            stage.spawn(0)?;
            kills += 1;
        }
        Fault::Reset => {
            pause(random, 0, 1000).await;
            relays(stage, |mode| mode.cut = true);
            pause(random, 0, 1500).await;
            relays(stage, |mode| mode.cut = false);
        }
        Fault::Blackhole => {
            pause(random, 0, 500).await;
            relays(stage, |mode| mode.blackhole = true);
            pause(random, 22_000, if short { 24_000 } else { 35_000 }).await;
            relays(stage, |mode| mode.blackhole = false);
        }
        Fault::BrokerRestart | Fault::RelayBroker => {
            pause(random, 0, 500).await;
            stage.services.rabbitmq(if random.random() { "restart" } else { "kill" }).await?;
            stage.services.rabbitmq("start").await?;
        }
        Fault::BrokerAway => {
            pause(random, 0, 500).await;
            stage.services.rabbitmq("stop").await?;
            tokio::time::sleep(Duration::from_secs(if short { 10 } else { 60 })).await;
            stage.services.rabbitmq("start").await?;
        }
        Fault::CloseAll => {
            pause(random, 0, 500).await;
            stage.services.ctl(&["close_all_connections", "--vhost", &stage.vhost, "torture"]).await?;
        }
        Fault::DeleteEmpty => {
            until(stage, "the queue is empty", Duration::from_secs(120), async |stage| {
                let (rows, waiting) = stage.rows().await?;
                Ok(waiting == 0 && rows > 0 && stage.queued().await? == 0)
            })
            .await?;
            stage.delete_events_queue().await?;
        }
        Fault::DeleteFull => safe = delete_full(stage, random).await?,
        Fault::ChannelError => {
            pause(random, 0, 1000).await;
            stage.relays.iter().for_each(crate::relay::Relay::break_channels);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Fault::MemoryAlarm => {
            stage.services.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await?;
            pause(random, 3_000, if short { 5_000 } else { 15_000 }).await;
            stage.services.ctl(&["set_vm_memory_high_watermark", "0.4"]).await?;
        }
        Fault::ConfirmsWithheld => {
            let before = stage.relays[0].held();
            relays(stage, |mode| mode.hold_confirms = true);
            rule(stage, Rule::new(Action::Status), SENDS);
            until(stage, "a confirm is withheld", Duration::from_secs(60), async |stage| {
                Ok(stage.relays[0].held() > before)
            })
            .await?;
            stage.sandbox.control().clear_faults();
            // Longer than herald waits for a confirm, in the long form.
            pause(random, 3_000, if short { 6_000 } else { 40_000 }).await;
            relays(stage, |mode| mode.hold_confirms = false);
        }
        Fault::PostgresRestart | Fault::RelayPostgres => {
            pause(random, 0, 500).await;
            let verb = if random.random() { "restart" } else { "kill" };
            stage.services.postgres(verb).await?;
            stage.services.postgres("start").await?;
        }
        Fault::PostgresSlow => {
            stage.database_relay.set(|mode| mode.delay = Duration::from_millis(random.random_range(50..300)));
            pause(random, 3_000, if short { 5_000 } else { 20_000 }).await;
            stage.database_relay.set(|mode| mode.delay = Duration::ZERO);
        }
        Fault::PostgresLocks => locks(stage, random, short).await?,
        Fault::Provider500 => provider(stage, random, Rule::new(Action::Status), 1_000, 5_000).await,
        Fault::Provider429 => provider(stage, random, Rule::new(Action::Throttle), 1_000, 5_000).await,
        Fault::ProviderRetryAfter => {
            let retry_after = Some(random.random_range(1..9));
            provider(stage, random, Rule { retry_after, ..Rule::new(Action::Throttle) }, 500, 3_000).await;
        }
        Fault::ProviderHang => provider(stage, random, Rule::new(Action::Hang), 4_000, 8_000).await,
        Fault::ProviderResetBefore => provider(stage, random, Rule::new(Action::ResetBefore), 1_000, 5_000).await,
        Fault::ProviderResetAfter => provider(stage, random, Rule::new(Action::ResetAfter), 500, 2_000).await,
        Fault::ProviderLost => provider(stage, random, Rule::new(Action::LostAnswer), 500, 4_000).await,
        Fault::ProviderGarbage => provider(stage, random, Rule::new(Action::Garbage), 500, 2_000).await,
        Fault::ProviderShort => provider(stage, random, Rule::new(Action::WrongTicketCount), 500, 3_000).await,
        Fault::ReplicaKilled => {
            pause(random, 0, 1500).await;
            let victim = random.random_range(0..stage.replicas());
            stage.signal(victim, "-KILL").await?;
            pause(random, 0, 3000).await;
            stage.spawn(victim)?;
            kills += 1;
        }
        Fault::Restarts => {
            // Presence is slow, so that hands stay full and many events are being handled whenever the process dies.
            let delay_ms = Some(random.random_range(300..1_500));
            rule(stage, Rule { delay_ms, ..Rule::new(Action::Slow) }, PRESENCE);
            stage.ready(0).await?;
            pause(random, 100, 1_000).await;
            stage.signal(0, "-KILL").await?;
            stage.sandbox.control().clear_faults();
            stage.spawn(0)?;
            kills += 1;
        }
        Fault::Poison => kills += poison(stage).await?,
        Fault::ClusterLeader => cluster_leader(stage, random).await?,
        Fault::RelayKill => {
            pause(random, 0, 1500).await;
            let victim = random.random_range(stage.relays_of_rows());
            stage.signal(victim, "-KILL").await?;
            pause(random, 0, 1500).await;
            stage.spawn(victim)?;
            kills += 1;
        }
        Fault::RelayKillConfirm => {
            let victim = random.random_range(stage.relays_of_rows());
            kills += killed_while_kept_back(stage, random, victim, |mode, on| mode.hold_confirms = on).await?;
        }
        Fault::RelayKillSettle => {
            let held = stage.hold_settling().await?;
            until(stage, "a relay waits to settle", Duration::from_secs(60), async |stage| {
                stage.settling_waits().await
            })
            .await?;
            pause(random, 0, 1000).await;
            let victim = random.random_range(stage.relays_of_rows());
            stage.signal(victim, "-KILL").await?;
            held.close().await?;
            stage.spawn(victim)?;
            kills += 1;
        }
    }
    Ok(Struck { kills, healed: Instant::now(), effects: stage.effects(), safe })
}

async fn pause(random: &mut StdRng, from: u64, to: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(from..=to))).await;
}

fn relays(stage: &Stage, change: impl Fn(&mut crate::relay::Mode)) {
    stage.relays.iter().for_each(|relay| relay.set(&change));
}

/// Waits until `condition` holds.
async fn until(
    stage: &Stage,
    what: &str,
    patience: Duration,
    condition: impl AsyncFn(&Stage) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while !condition(stage).await? {
        ensure!(started.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn rule(stage: &Stage, rule: Rule, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        let matching = Match { endpoint: Some(*endpoint), ..rule.matching.clone() };
        stage.sandbox.control().add_fault(Rule { matching, ..rule.clone() });
    }
}

async fn killed_while_held(
    stage: &mut Stage,
    random: &mut StdRng,
    endpoints: &[Endpoint],
    phase: Phase,
) -> anyhow::Result<u32> {
    rule(stage, Rule { phase, ..Rule::new(Action::Hold) }, endpoints);
    until(stage, "a request is held", Duration::from_secs(60), async |stage| {
        Ok(!stage.sandbox.control().held().is_empty())
    })
    .await?;
    pause(random, 0, 300).await;
    stage.signal(0, "-KILL").await?;
    stage.sandbox.control().clear_faults();
    stage.spawn(0)?;
    Ok(1)
}

/// Takes the strongest lock there is on a table; it ends when the connection is dropped.
async fn lock(stage: &Stage, schema: &str, table: &str) -> anyhow::Result<PgConnection> {
    let mut connection = PgConnection::connect(stage.services.database.as_str()).await?;
    let lock = format!(r#"BEGIN; LOCK TABLE "{schema}".{table} IN ACCESS EXCLUSIVE MODE"#);
    connection.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await?;
    Ok(connection)
}

async fn somebody_waits(stage: &Stage, schema: &str) -> anyhow::Result<bool> {
    let count = "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE NOT l.granted AND n.nspname = $1";
    let waiting: i64 = sqlx::query_scalar(count).bind(schema).fetch_one(&stage.pool).await?;
    Ok(waiting > 0)
}

async fn killed_while_locked(stage: &mut Stage, random: &mut StdRng, schema: &str, table: &str) -> anyhow::Result<u32> {
    // The lock itself waits for whoever is at the table, and everybody else then waits for it.
    let lock = lock(stage, schema, table).await?;
    let waiting = until(stage, "somebody waits for the lock", Duration::from_secs(60), async |stage| {
        somebody_waits(stage, schema).await
    });
    waiting.await?;
    pause(random, 0, 300).await;
    stage.signal(0, "-KILL").await?;
    lock.close().await?;
    stage.spawn(0)?;
    Ok(1)
}

async fn killed_while_kept_back(
    stage: &mut Stage,
    random: &mut StdRng,
    victim: usize,
    hold: impl Fn(&mut crate::relay::Mode, bool),
) -> anyhow::Result<u32> {
    let before = stage.relays[0].held();
    relays(stage, |mode| hold(mode, true));
    until(stage, "something is kept back", Duration::from_secs(60), async |stage| Ok(stage.relays[0].held() > before))
        .await?;
    pause(random, 0, 1000).await;
    stage.signal(victim, "-KILL").await?;
    // What was kept back is never delivered.
    relays(stage, |mode| mode.cut = true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    relays(stage, |mode| hold(mode, false));
    relays(stage, |mode| mode.cut = false);
    stage.sandbox.control().clear_faults();
    stage.spawn(victim)?;
    Ok(1)
}

/// One provider or both, for a while.
async fn provider(stage: &Stage, random: &mut StdRng, fault: Rule, from: u64, to: u64) {
    let endpoints = match random.random_range(0..4) {
        0 => EXPO,
        1 => ABLY,
        2 => PRESENCE,
        _ => ALL,
    };
    pause(random, 0, 500).await;
    rule(stage, fault, endpoints);
    pause(random, from, to).await;
    stage.sandbox.control().clear_faults();
}

async fn locks(stage: &Stage, random: &mut StdRng, short: bool) -> anyhow::Result<()> {
    for round in 0..if short { 2 } else { 6 } {
        let (schema, table) = if random.random() { (stage.ledger(), "events") } else { (stage.app(), "\"User\"") };
        let held = lock(stage, &schema, table).await?;
        // Once longer than herald waits for a statement.
        let long = round == 1;
        pause(random, if long { 11_000 } else { 500 }, if long { 13_000 } else { 3_000 }).await;
        held.close().await?;
        pause(random, 100, 1_000).await;
    }
    Ok(())
}

/// Lets no request to a provider through until the rules are cleared.
pub fn hold_all(stage: &Stage) {
    rule(stage, Rule::new(Action::Hold), ALL);
}

/// Deletes the events queue while it holds events. Returns how many events were not in it.
async fn delete_full(stage: &mut Stage, random: &mut StdRng) -> anyhow::Result<u64> {
    pause(random, 0, 500).await;
    let (rows, waiting) = stage.rows().await?;
    let elsewhere = stage.queued_elsewhere().await?;
    stage.delete_events_queue().await?;
    stage.sandbox.control().clear_faults();
    Ok((rows - waiting) as u64 + elsewhere)
}

/// Makes every request that names the poisoned event's session wait. Called before it is published.
pub fn poison_event(stage: &Stage) {
    let session = stage.script.session_id(stage.script.session(stage.script.poison()));
    for provider in [Provider::Ably, Provider::Expo] {
        // Channels end with the session or go on with a colon; a push names it as a text.
        for end in [":presence", "\"", "/messages"] {
            let contains = Some(format!("{session}{end}"));
            let matching = Match { provider: Some(provider), contains, endpoint: None };
            stage.sandbox.control().add_fault(Rule { matching, ..Rule::new(Action::Hold) });
        }
    }
}

/// Aborts the worker each time the poisoned event is handled, until the event is dead. Returns how often.
async fn poison(stage: &mut Stage) -> anyhow::Result<u32> {
    let target = stage.script.id(stage.script.poison());
    let mut aborts = 0;
    let started = Instant::now();
    loop {
        ensure!(started.elapsed() < Duration::from_secs(240), "the poisoned event is not dead after {aborts} aborts");
        if !stage.sandbox.control().held().is_empty() {
            stage.signal(0, "-ABRT").await?;
            aborts += 1;
            // The server notices a moment later that the client is gone.
            while !stage.sandbox.control().held().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stage.spawn(0)?;
        }
        let state = format!(r#"SELECT state FROM "{}".events WHERE event_id = $1"#, stage.ledger());
        let state: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(state)).bind(&target).fetch_optional(&stage.pool).await?;
        if state.as_deref() == Some("dead") {
            stage.sandbox.control().clear_faults();
            return Ok(aborts);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Kills the node that leads the events queue, waits a while, and starts it again.
async fn cluster_leader(stage: &mut Stage, random: &mut StdRng) -> anyhow::Result<()> {
    pause(random, 0, 500).await;
    let queue = stage.topology.events();
    let list = stage
        .services
        .node_ctl(&stage.nodes[0], &["list_queues", "-q", "--no-table-headers", "name", "leader"])
        .await?;
    let leader = list.lines().find_map(|line| line.strip_prefix(&queue)?.trim().split('@').next());
    let leader = leader.context("the queue's leader")?.to_owned();
    stage.services.node("kill", &leader).await?;
    pause(random, 2_000, 6_000).await;
    stage.services.node("start", &leader).await?;
    Ok(())
}
