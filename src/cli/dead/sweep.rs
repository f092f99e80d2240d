//! `dead replay` and `dead drop`: first what would be done, then, with `--yes`, one sweep through the queue.
//!
//! A letter's replacement is confirmed before the index hears of it, and the index before the letter is acknowledged: a
//! crash in between leaves the letter twice, never gone.

use futures::FutureExt;
use jiff::Timestamp;

use crate::{
    broker::{
        Broker, Delivery, Message,
        amqp::Role,
        marks::{self, Marks},
        sweep::{Swept, Verdict, sweep_and},
    },
    cli::{connect, operator, output, stop::Stop},
    config::Config,
    domain::action::Deed,
    store::{LetterFilter, Store},
};

use super::{Act, pick::Picked};

pub(super) async fn replay(
    config: &Config,
    filter: &LetterFilter,
    act: &Act,
    rate: Option<u32>,
    ignore_expiry: bool,
    now: Timestamp,
) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let picked = Picked::read(&store, filter, (!ignore_expiry).then_some(now)).await?;
    if !announce("replay", &picked, act)? {
        return Ok(());
    }
    let broker = connect::broker(config, Role::Command).await?;
    let events = connect::topology(config).events();
    let replace = |message: &Message| {
        let marks = Marks::of_letter(message);
        let (to, mut replayed) = marks::replayed(message, &marks, &events);
        if ignore_expiry {
            let marks = Marks { ignore_expiry: true, ..Marks::read(&replayed) };
            marks.write(&mut replayed);
        }
        Verdict::Replace(to, replayed)
    };
    let wanted = picked.count();
    let action = operator::begin(&store, Deed::Replay, operator::letters(filter)).await?;
    let swept = walk(config, &broker, &store, picked, rate, "replayed", replace).await;
    action.end(swept.as_ref().map(|swept| (swept.replaced, "replayed"))).await;
    broker.close().await;
    report("replayed", wanted, swept?.replaced)
}

pub(super) async fn drop(config: &Config, filter: &LetterFilter, act: &Act) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let picked = Picked::read(&store, filter, None).await?;
    if !announce("drop", &picked, act)? {
        return Ok(());
    }
    let broker = connect::broker(config, Role::Command).await?;
    let wanted = picked.count();
    let action = operator::begin(&store, Deed::Drop, operator::letters(filter)).await?;
    let swept = walk(config, &broker, &store, picked, None, "dropped", |_| Verdict::Drop).await;
    action.end(swept.as_ref().map(|swept| (swept.dropped, "dropped"))).await;
    broker.close().await;
    report("dropped", wanted, swept?.dropped)
}

/// Says what will be done, and returns whether to do it.
fn announce(verb: &str, picked: &Picked, act: &Act) -> Result<bool, Stop> {
    output::line(&preview(verb, picked, act.yes))?;
    if picked.count() == 0 || act.dry_run {
        return Ok(false);
    }
    if act.yes { Ok(true) } else { Err(Stop::failed(format!("nothing was done; add --yes to {verb} them"))) }
}

fn preview(verb: &str, picked: &Picked, sure: bool) -> String {
    let mut text = match picked.count() {
        0 => format!("no dead letters to {verb}"),
        count => {
            let reasons: Vec<_> =
                picked.reasons.iter().map(|(reason, n)| format!("{n} {}", output::clean(reason))).collect();
            let letters = if count == 1 { "letter" } else { "letters" };
            format!("{} {verb} {count} {letters}: {}", if sure { "will" } else { "would" }, reasons.join(", "))
        }
    };
    if picked.expired > 0 {
        text += &format!("; {} would expire at once and stay (--ignore-expiry replays them, too)", picked.expired);
    }
    text
}

/// Sweeps the queue once, doing `act` with each letter that was picked.
async fn walk<B: Broker>(
    config: &Config,
    broker: &B,
    store: &Store,
    mut picked: Picked,
    rate: Option<u32>,
    how: &'static str,
    act: impl Fn(&Message) -> Verdict,
) -> Result<Swept, Stop> {
    let queue = connect::topology(config).dead();
    let bar = output::progress(broker.depth(&queue).await?.ready, "dead letters");
    let decide = |delivery: &Delivery| {
        bar.inc(1);
        match picked.take(&delivery.message) {
            Some(number) => (act(&delivery.message), number),
            None => (Verdict::Keep, 0),
        }
    };
    let settle = |numbers: Vec<i64>| {
        let store = store.clone();
        async move { store.end_letters(&numbers, how).await.map_err(Stop::from) }.boxed()
    };
    let swept = sweep_and(broker, &queue, rate, decide, settle).await;
    bar.finish_and_clear();
    swept
}

fn report(verb: &str, wanted: u64, done: u64) -> Result<(), Stop> {
    output::line(&format!("{verb} {done}"))?;
    if done < wanted {
        let missing = wanted - done;
        let why = "they left the queue meanwhile; `herald run` mends the index";
        eprintln!("herald: warning: {missing} letters of the index were not found in the queue: {why}");
    }
    Ok(())
}
