//! `dead replay` and `dead drop`: first what would be done, then, with `--yes`, one walk through the queue.

use jiff::Timestamp;

use crate::{
    broker::{Broker, amqp::Role, sweep::Pace},
    cli::{connect, interrupt, operator, output, stop::Stop},
    config::Config,
    domain::action::Deed,
    letters::{Action, Done, Picked, carry_out, this_process},
    store::{LetterFilter, Store},
};

use super::Act;

/// Said at the first Ctrl-C.
pub(super) const STOPPING: &str = "stopping after what is in hand; once more ends at once, and loses nothing either";

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
    let action = operator::begin(&store, Deed::Replay, filter.recorded()).await?;
    let done = walk(config, &store, picked, Action::Replay { ignore_expiry }, rate).await;
    action.end(done.as_ref().map(|done| (done.done, "replayed"))).await;
    report("replayed", done?)
}

pub(super) async fn drop(config: &Config, filter: &LetterFilter, act: &Act) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let picked = Picked::read(&store, filter, None).await?;
    if !announce("drop", &picked, act)? {
        return Ok(());
    }
    let action = operator::begin(&store, Deed::Drop, filter.recorded()).await?;
    let done = walk(config, &store, picked, Action::Drop, None).await;
    action.end(done.as_ref().map(|done| (done.done, "dropped"))).await;
    report("dropped", done?)
}

/// Says what will be done, and returns whether to do it.
fn announce(verb: &str, picked: &Picked, act: &Act) -> Result<bool, Stop> {
    output::line(&preview(verb, picked, act.yes))?;
    if picked.count() == 0 { Ok(false) } else { act.decide(verb) }
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

/// Walks the queue once, doing `action` with each letter that was picked.
async fn walk(config: &Config, store: &Store, picked: Picked, action: Action, rate: Option<u32>) -> Result<Done, Stop> {
    let broker = connect::broker(config, Role::Command).await?;
    let topology = connect::topology(config);
    let bar = output::progress(broker.depth(&topology.dead()).await?.ready, "dead letters");
    let pace = Pace { per_second: rate, stop: interrupt::on_signal(STOPPING) };
    let owner = this_process("herald dead");
    let done = carry_out((&broker, store, &topology), &owner, picked, action, &pace, |_| bar.inc(1)).await;
    bar.finish_and_clear();
    broker.close().await;
    Ok(done?)
}

fn report(verb: &str, done: Done) -> Result<(), Stop> {
    let Done { wanted, done, interrupted } = done;
    output::line(&format!("{verb} {done}"))?;
    match wanted - done {
        0 => Ok(()),
        left if interrupted => Err(Stop::failed(format!(
            "interrupted: {left} of {wanted} letters lie in the queue as before; the same command goes on with them"
        ))),
        missing => {
            let why = "they left the queue meanwhile; `herald run` mends the index";
            eprintln!("herald: warning: {missing} letters of the index were not found in the queue: {why}");
            Ok(())
        }
    }
}
