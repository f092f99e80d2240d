//! The published table: one row per round, appended between two markers.

use std::{path::Path, time::Duration};

use anyhow::Context;

use crate::{fault::Plan, round::Report};

/// Where rows are added: before this line.
const END: &str = "<!-- torture: end of table -->";

/// Returns the row of a round.
pub fn row(plan: &Plan, report: &Report, seed: u64, commit: &str, version: &str) -> String {
    let verdict = &report.verdict;
    let mut recoveries = report.recoveries.clone();
    recoveries.sort_unstable();
    let recovery = match recoveries.len() {
        0 => "-".to_owned(),
        count => format!("{} / {}", seconds(recoveries[count / 2]), seconds(recoveries[count - 1])),
    };
    let words = match report.replicas {
        // What the relay published again is seen nowhere else.
        1 if plan.fault.relays() > 0 => format!("{} ({} repeats suppressed)", plan.words, report.suppressed),
        1 => plan.words.to_owned(),
        n if plan.fault.replicas() > 1 && n == plan.fault.replicas() => plan.words.to_owned(),
        n => format!("{} ({n} replicas)", plan.words),
    };
    format!(
        "| {words} | {} | {} | {} | {} | {} | {} / {} | {} | {recovery} | {seed} | {commit} | {version} |",
        verdict.confirmed,
        report.strikes.max(report.kills),
        verdict.lost.len(),
        verdict.unexpected.len(),
        verdict.dead_total(),
        verdict.repeats_ably,
        verdict.repeats_expo,
        verdict.destroyed,
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// Adds a row to the table in `file`.
pub fn append(file: &Path, row: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let at = text.find(END).with_context(|| format!("{}: no line {END}", file.display()))?;
    std::fs::write(file, format!("{}{row}\n{}", &text[..at], &text[at..]))?;
    Ok(())
}
