//! The demo's table: what went where and why, told by the ledger and held against the sandbox's journal.
//!
//! Called by the demo at its end. The two are independent: the ledger is what herald says it did, the journal what the
//! providers saw. Where they differ, the line says so and the demo fails.

use super::{script::Line, stage::Stage};
use crate::{
    broker::Broker,
    domain::{judge::provider_of, ledger::Entry, outcome::Provider},
    sandbox,
};

/// Prints the table and tells whether ledger, journal and script agree.
pub async fn print<B: Broker>(stage: &Stage<B>, lines: &[Line]) -> anyhow::Result<bool> {
    let effects = stage.effects();
    let mut agree = true;
    println!("\n{:<3} {:<28} {:<24} {:<22} {:<13} why", "#", "shows", "event", "ended as", "Ably  phones");
    for (number, line) in lines.iter().enumerate() {
        let entry = stage.entry(line).await?.ok_or_else(|| anyhow::anyhow!("`{}` is not in the ledger", line.id))?;
        let ended = ended(&entry);
        let seen = Seen::in_journal(&effects, &line.id);
        let mut problems = Vec::new();
        let expected = line.after_replay.unwrap_or(line.expected);
        if ended != expected {
            problems.push(format!("expected `{expected}`"));
        }
        let told = Seen::in_ledger(&entry);
        if told != seen {
            problems.push(format!("the ledger says Ably {} phones {}", told.ably, told.phones));
        }
        println!(
            "{:<3} {:<28} {:<24} {:<22} {:>4}  {:>6} {}{}",
            number + 1,
            line.shows,
            entry.event.as_deref().unwrap_or("-"),
            ended,
            seen.ably,
            seen.phones,
            why(&entry),
            problems.iter().map(|problem| format!("  <-- {problem}")).collect::<String>(),
        );
        agree &= problems.is_empty();
    }
    println!("\n{}", if agree { "ledger and journal agree" } else { "LEDGER AND JOURNAL DIFFER" });
    Ok(agree)
}

fn ended(entry: &Entry) -> String {
    let how = entry.via.filter(|_| entry.state == crate::domain::ledger::State::Done).map(|via| via.as_str());
    format!("{} {}", entry.state.as_str(), how.or(entry.reason.as_deref()).unwrap_or(""))
}

fn why(entry: &Entry) -> String {
    let mut why = match (&entry.detail, entry.evidence.rule.as_str()) {
        (Some(detail), _) => detail.clone(),
        (None, rule) => rule.to_owned(),
    };
    if entry.attempt > 0 {
        why.push_str(&format!("; {} attempts before it", entry.attempt));
    }
    if entry.replay > 0 {
        why.push_str("; replayed");
    }
    why
}

/// How often an event reached a channel, and how many phones it reached.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    ably: u64,
    phones: u64,
}

impl Seen {
    fn in_journal(effects: &[sandbox::Effect], id: &str) -> Seen {
        let count =
            |provider| effects.iter().filter(|e| e.provider == provider && &*e.event == id).map(|e| e.count).sum();
        Seen { ably: count(sandbox::Provider::Ably), phones: count(sandbox::Provider::Expo) }
    }

    fn in_ledger(entry: &Entry) -> Seen {
        let count = |provider| {
            let accepted = entry.targets.iter().filter(|(key, record)| provider_of(key) == provider && record.accepted);
            accepted.count() as u64
        };
        Seen { ably: count(Provider::Ably), phones: count(Provider::Expo) }
    }
}
