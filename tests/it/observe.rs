//! What operators watch: metrics of a real worker, alerts, the dashboard, the manifests, the users of RabbitMQ.

mod alerts;
mod dashboard;
mod manifests;
mod metrics;
pub mod page;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::io::AsyncWriteExt;

/// Returns the path of a file of the project.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs promtool with `input` on its standard input; `None` after saying that it is missing.
async fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = tokio::process::Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool cannot be run ({error}) and under CI no test may be skipped: scripts/tools --install promtool"
            );
            eprintln!("skipped: promtool cannot be run ({error}); scripts/tools promtool says where it comes from");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    Some(crate::support::within(60, "promtool", child.wait_with_output()).await.unwrap())
}

#[track_caller]
fn passed(output: &Output) {
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
}

/// Herald's metrics as `docs/metrics.md` tells them (a unit test holds that page against the code): kind and labels by name.
fn table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        (
            cells[0].trim_matches('`').to_owned(),
            (cells[1].to_owned(), labels.filter(|label| !label.is_empty()).collect()),
        )
    });
    let table: BTreeMap<_, _> = rows.collect();
    assert!(table.len() > 40, "{table:?}");
    table
}

/// Names and selectors of an expression that herald's table does not have.
fn strangers(expression: &str, recorded: &BTreeSet<String>) -> Vec<String> {
    let table = table();
    let labels: BTreeSet<&String> = table.values().flat_map(|(_, labels)| labels).collect();
    let mut strangers = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = expression;
    while let Some(start) = rest.find(is_word) {
        let word: String = rest[start..].chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[start + word.len()..];
        let ours = ["herald", "messaging_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        if !ours || recorded.contains(&word) || labels.contains(&word) || rest.starts_with("[.]") {
            continue;
        }
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        let histogram = base.and_then(|base| table.get(base)).filter(|(kind, _)| kind == "histogram");
        let Some((_, own)) = table.get(&word).filter(|(kind, _)| kind != "histogram").or(histogram) else {
            strangers.push(word);
            continue;
        };
        let selector = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or("", |(inner, _)| inner);
        for label in selector.split(", ").filter_map(|pair| Some(pair.split_once(['=', '!'])?.0.trim())) {
            if !own.contains(label) && !["job", "instance", "le"].contains(&label) {
                strangers.push(format!("{word}{{{label}}}"));
            }
        }
    }
    strangers
}

#[test]
fn strangers_are_found() {
    let recorded = BTreeSet::from(["herald:known:rate".to_owned()]);
    let found = |expression: &str| strangers(expression, &recorded).join(" ");
    assert_eq!(found("max(herald_ready) + sum by (le) (rate(herald_event_age_seconds_bucket{job=\"x\"}[5m]))"), "");
    assert_eq!(
        found("sum by (messaging_operation_name) (messaging_client_sent_messages_total) / herald:known:rate"),
        ""
    );
    assert_eq!(found("herald_redy"), "herald_redy");
    assert_eq!(
        found("herald_event_age_seconds"),
        "herald_event_age_seconds",
        "a histogram has no sample of its own name"
    );
    assert_eq!(found("herald_overdue_count"), "herald_overdue_count");
    assert_eq!(found("herald_ready{queue=\"x\"}"), "herald_ready{queue}");
    assert_eq!(found("herald_queue_ready{queue=~\".+[.]events\", job=\"x\"} - herald:other"), "herald:other");
}
