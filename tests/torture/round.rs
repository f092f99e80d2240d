//! One round: publish, strike, heal, drain, check.
//!
//! The events of a round are divided among the strikes: while a share is being published the fault strikes, and a few more are
//! published once it is healed, so that there is always something to see recovery by.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    checker::{Records, Verdict, check},
    fault::{Fault, Plan},
    inject::{hold_all, poison_event, strike},
    publisher::{Publisher, Script, Sheet},
    services::Services,
    stage::Stage,
};

/// What is asked of a round.
#[derive(Debug, Clone)]
pub struct Order {
    pub events: u64,
    pub seed: u64,
    pub replicas: usize,
    pub binary: PathBuf,
    pub short: bool,
}

/// What a round showed.
pub struct Report {
    pub verdict: Verdict,
    pub strikes: u32,
    pub kills: u32,
    pub recoveries: Vec<Duration>,
    pub wrong: Vec<String>,
    pub replicas: usize,
    /// Repeats that the workers saw and suppressed.
    pub suppressed: u64,
}

/// How long the part of a share that is published under the fault takes at least.
const SPREAD: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(240);
const RECOVERY: Duration = Duration::from_secs(120);
/// A drain that shows no progress for this long is over when an operator destroyed messages.
const STILL: Duration = Duration::from_secs(20);

/// Plays one round.
pub async fn play(services: &Services, plan: &Plan, order: &Order) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut random = StdRng::seed_from_u64(order.seed);
    let unique = format!("t{:x}{}", order.seed & 0xffff, &uuid::Uuid::new_v4().simple().to_string()[..6]);
    // The poisoned event is alone in its session: whoever waits behind it waits for it.
    let sessions = if plan.fault == Fault::Poison { order.events } else { (order.events / 5).clamp(20, 20_000) };
    let script = Script { prefix: unique, seed: order.seed, sessions, events: order.events };
    let replicas = order.replicas.max(plan.fault.replicas());
    let mut brokers = Vec::new();
    if plan.fault == Fault::ClusterLeader {
        brokers = cluster(services, &script.prefix).await?;
    }
    let mut stage = Stage::new(services, script, order.binary.clone(), replicas, plan.fault.relays(), brokers).await?;
    if plan.fault == Fault::Restarts {
        // Hands are to be full at every restart.
        stage.prefetch = (order.events / 4).clamp(16, 2048) as u16;
    }
    let played = act(&mut stage, plan, order, replicas, &mut random, started).await;
    let failed = played.as_ref().map_or(true, |report| !report.wrong.is_empty());
    stage.end(failed || std::env::var_os("TORTURE_KEEP").is_some()).await?;
    played
}

async fn act(
    stage: &mut Stage,
    plan: &Plan,
    order: &Order,
    replicas: usize,
    random: &mut StdRng,
    started: Instant,
) -> anyhow::Result<Report> {
    let strikes = if order.short { plan.short } else { plan.strikes };
    let sheet = Sheet::new(order.events);
    let publisher = Publisher {
        urls: stage.urls.clone(),
        exchange: stage.topology.events(),
        script: stage.script.clone(),
        sheet: sheet.clone(),
        confirmed: Arc::new(AtomicU64::new(0)),
        outbox: (plan.fault.relays() > 0).then(|| stage.outbox()),
    };
    for number in (0..replicas).chain(stage.relays_of_rows()) {
        stage.start(number).await?;
    }
    let mut redelivered = HashSet::new();
    let (mut kills, mut destroyed, mut destroyable) = (0, 0, 0u64);
    let mut recoveries = Vec::new();
    let share = order.events / u64::from(strikes);
    let working = Instant::now();
    if plan.fault == Fault::Poison {
        poison_event(stage);
    }
    for number in 0..strikes {
        let mut from = share * u64::from(number);
        let mut to = if number + 1 == strikes { order.events } else { from + share };
        // The rest of the share comes after the fault.
        let mut middle = from + ((to - from) * 4).div_ceil(5);
        if plan.fault == Fault::Restarts {
            // All but the rest after the last restart is there before the first.
            let most = order.events * 4 / 5;
            (from, middle) = if number == 0 { (0, most) } else { (most, most) };
            to = if number + 1 == strikes { order.events } else { middle };
        }
        let before = tokio::spawn({
            let publisher = publisher.clone();
            // Spread over a while, so that the fault strikes in the middle of it.
            let rate = (middle - from) as f64 / SPREAD.as_secs_f64();
            async move { publisher.publish(from..middle, rate).await }
        });
        if plan.fault == Fault::DeleteEmpty {
            before.await??;
            doubtful(stage, &sheet, &mut redelivered);
            let struck = strike(stage, plan.fault, random, order.short).await.context("strike")?;
            recover(stage, &publisher, middle..to, struck.effects, struck.healed, &mut recoveries).await?;
            continue;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        if plan.fault == Fault::DeleteFull {
            // While nothing can be sent, the queue fills; nothing else is published until it is gone.
            hold_all(stage);
            while sheet.all()[..middle as usize].iter().any(|sent| !sent.confirmed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            destroyable = middle;
        }
        if plan.fault == Fault::None {
            before.await??;
            publisher.publish(middle..to, 0.0).await?;
            continue;
        }
        doubtful(stage, &sheet, &mut redelivered);
        let struck = strike(stage, plan.fault, random, order.short).await;
        doubtful(stage, &sheet, &mut redelivered);
        before.await??;
        let struck = struck.context("strike")?;
        doubtful(stage, &sheet, &mut redelivered);
        kills += struck.kills;
        // What was confirmed, had not ended and lay in no other queue.
        destroyed += destroyable.saturating_sub(struck.safe);
        if plan.fault == Fault::Restarts && number + 1 < strikes {
            publisher.publish(middle..to, 0.0).await?;
            continue;
        }
        recover(stage, &publisher, middle..to, struck.effects, struck.healed, &mut recoveries).await?;
    }
    let draining = Instant::now();
    let drained = drain(stage, &sheet, destroyed).await?;
    let took = working.elapsed();
    let repeats = stage.repeats().await;
    let mut wrong = Vec::new();
    if let Err(error) = stage.all_run() {
        wrong.push(error.to_string());
    }
    if let Err(error) = stage.stop().await {
        wrong.push(error.to_string());
    }
    let (received, closed) = stage.books().await?;
    let records = Records {
        sent: sheet.all(),
        effects: stage.sandbox.control().effects(0, usize::MAX),
        ledger: stage.ledger_rows().await?,
        letters: stage.letters().await?,
        queued: stage.queued().await? + stage.unrelayed().await?,
        received,
        closed,
        redelivered,
        destroyed,
        destroyable,
    };
    let verdict = check(&stage.script, &records, replicas == 1);
    if !drained {
        wrong.push(format!("not drained within {DRAIN:?}"));
    }
    wrong.extend(verdict.wrong());
    wrong.extend(expected(plan.fault, &verdict));
    let drained = draining.elapsed();
    println!(
        "  {}: {} events in {:.1} s ({:.0}/s), drained in {:.1} s, whole round {:.1} s; {} checked for order, {} crossed, {} destroyed, {repeats} repeats suppressed, dead {:?}",
        plan.name,
        verdict.confirmed,
        took.as_secs_f64(),
        verdict.confirmed as f64 / took.as_secs_f64(),
        drained.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        verdict.ordered,
        verdict.crossed,
        verdict.destroyed,
        verdict.dead
    );
    Ok(Report { verdict, strikes, kills, recoveries, wrong, replicas, suppressed: repeats })
}

/// What a kind of fault demands beyond what all demand.
fn expected(fault: Fault, verdict: &Verdict) -> Vec<String> {
    let mut wrong = Vec::new();
    if verdict.dead_total() > 0 && !fault.may_die() {
        wrong.push(format!("events died: {:?}", verdict.dead));
    }
    if fault == Fault::Poison && (verdict.dead.len() != 1 || verdict.dead.get("crashed_worker") != Some(&1)) {
        wrong.push(format!("the poisoned event alone should have died: {:?}", verdict.dead));
    }
    if matches!(fault, Fault::None | Fault::Terminate)
        && verdict.repeats_ably + verdict.repeats_expo + verdict.crossed > 0
    {
        let (ably, expo, crossed) = (verdict.repeats_ably, verdict.repeats_expo, verdict.crossed);
        wrong.push(format!("{ably} repeats at Ably, {expo} at Expo, {crossed} crossed, and nothing had happened"));
    }
    wrong
}

/// Notes the events that were sent and have had no effect yet: the broker may deliver them once more, behind others.
fn doubtful(stage: &Stage, sheet: &Sheet, redelivered: &mut HashSet<u64>) {
    let arrived: HashSet<u64> = {
        let effects = stage.sandbox.control().effects(0, usize::MAX);
        effects.iter().filter_map(|effect| stage.script.number(&effect.event)).collect()
    };
    let sent = sheet.all().into_iter().enumerate().filter(|(_, sent)| sent.publishes > 0);
    redelivered.extend(sent.map(|(n, _)| n as u64).filter(|n| !arrived.contains(n)));
}

/// Publishes the rest of a share and waits for the first effect since the fault was healed.
async fn recover(
    stage: &Stage,
    publisher: &Publisher,
    rest: std::ops::Range<u64>,
    effects: usize,
    healed: Instant,
    recoveries: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    let publishing = publisher.publish(rest, 0.0);
    let recovering = async {
        while stage.effects() == effects {
            anyhow::ensure!(healed.elapsed() < RECOVERY, "nothing moved for {RECOVERY:?} after the fault was healed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(healed.elapsed())
    };
    let (published, recovered) = tokio::join!(publishing, recovering);
    published?;
    recoveries.push(recovered?);
    Ok(())
}

/// Waits until every confirmed event has ended; false when that took too long.
async fn drain(stage: &Stage, sheet: &Sheet, destroyed: u64) -> anyhow::Result<bool> {
    let confirmed = sheet.all().iter().filter(|sent| sent.confirmed).count() as i64;
    let (mut last, mut since, started) = ((0, 0), Instant::now(), Instant::now());
    loop {
        let now = stage.rows().await?;
        // Copies of what has ended may still wait in a retry queue; they come to nothing, but they come.
        if now.0 >= confirmed && now.1 == 0 && stage.queued().await? + stage.unrelayed().await? == 0 {
            return Ok(true);
        }
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if destroyed > 0 && since.elapsed() > STILL {
            return Ok(true);
        }
        if started.elapsed() > DRAIN && since.elapsed() > STILL {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts three nodes and joins them.
async fn cluster(services: &Services, prefix: &str) -> anyhow::Result<Vec<(String, url::Url)>> {
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let name = format!("{prefix}n{number}");
        let url = services.start_node(&name).await?;
        if let Some((first, _)) = nodes.first() {
            let first = format!("{first}@localhost");
            for arguments in [&["stop_app"][..], &["join_cluster", &first], &["start_app"]] {
                services.node_ctl(&name, arguments).await?;
            }
        }
        nodes.push((name, url));
    }
    // The users of the first node are everybody's now.
    let (user, password) = (nodes[0].1.username().to_owned(), nodes[0].1.password().map(str::to_owned));
    for (_, url) in &mut nodes {
        let _ = (url.set_username(&user), url.set_password(password.as_deref()));
    }
    Ok(nodes)
}
