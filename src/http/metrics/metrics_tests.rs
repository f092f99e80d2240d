//! The table held against the sources and against `docs/metrics.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::table::{GROUPS, Kind, Metric, metrics};

/// What every Prometheus client names.
const PROCESS: &str = "process_";
/// What OpenTelemetry's messaging conventions name.
const CONVENTIONS: &str = "messaging_";

/// Returns every name counted with in the sources below `folder`, with the labels it is given.
fn counted_in(folder: &Path) -> Vec<(String, Vec<String>)> {
    let mut counted = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            counted.extend(counted_in(&entry));
            continue;
        }
        let text: String = std::fs::read_to_string(&entry).unwrap().split_whitespace().collect();
        for kind in ["counter", "gauge", "histogram"] {
            let marker = format!("{kind}!(\"");
            for call in text.split(&marker).skip(1) {
                let (name, rest) = call.split_once('"').unwrap();
                counted.push((name.to_owned(), labels_of(rest)));
            }
        }
    }
    counted
}

/// Returns the labels given in the rest of a macro's arguments.
fn labels_of(rest: &str) -> Vec<String> {
    let mut depth = 1;
    let end = rest.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    let arguments = &rest[..end.unwrap()];
    let before_values = arguments.split("\"=>").collect::<Vec<_>>();
    let (_, labels) = before_values.split_last().unwrap();
    labels.iter().map(|label| label.rsplit('"').next().unwrap().to_owned()).collect()
}

#[test]
fn every_name_counted_with_is_in_the_table_with_its_labels_and_none_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut counted: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (name, labels) in counted_in(&root.join("src")) {
        counted.entry(name).or_default().insert(labels);
    }
    for metric in metrics() {
        let found = counted.remove(metric.name).unwrap_or_default();
        let expected: Vec<String> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        assert!(!found.is_empty(), "{} is never counted with", metric.name);
        assert_eq!(found, BTreeSet::from([expected]), "{}: labels in the sources and in the table", metric.name);
    }
    assert_eq!(counted, BTreeMap::new(), "counted with, and not in the table");
}

#[test]
fn names_follow_the_rule_and_are_unique() {
    let mut names = BTreeSet::new();
    for metric @ Metric { name, help, labels, .. } in metrics() {
        assert!(["herald_", CONVENTIONS, PROCESS].iter().any(|prefix| name.starts_with(prefix)), "{name}");
        assert!(!help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        let seconds = name.ends_with("_seconds") || name.ends_with("_seconds_total");
        let in_seconds = metric.unit == metrics::Unit::Seconds || *name == "process_cpu_seconds_total";
        assert_eq!(seconds, in_seconds, "{name}");
        if name.starts_with(CONVENTIONS) {
            assert!(labels.contains(&"messaging_system") && labels.contains(&"messaging_operation_name"), "{name}");
        }
        // Whatever names one event, session, user or token would grow without end.
        for label in *labels {
            assert!(!["id", "session", "user", "token"].iter().any(|part| label.split('_').any(|word| word == *part)));
        }
        assert!(names.insert(name), "{name} twice");
    }
}

/// Where the generated part of `docs/metrics.md` begins and ends.
const BEGIN: &str = "<!-- metrics: made from src/http/metrics/table.rs -->\n";
const END: &str = "<!-- metrics: end -->";

fn tables() -> String {
    let mut text = String::new();
    for (title, metrics) in GROUPS {
        text += &format!("\n### {}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n", title);
        for Metric { name, kind, labels, help, .. } in *metrics {
            let kind = format!("{kind:?}").to_lowercase();
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            text += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
    }
    text + "\n"
}

#[test]
fn the_page_about_metrics_has_every_row_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the begin mark");
    let (found, after) = rest.split_once(END).expect("the end mark");
    let expected = tables();
    if found == expected {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    }
    panic!(
        "docs/metrics.md is not what the table says: run `UPDATE_DOCS=1 cargo test --lib http::metrics`\n{expected}"
    );
}
