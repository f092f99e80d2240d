//! What operators watch: metrics of a real worker, alerts, the dashboard, the manifests, the users of RabbitMQ.

mod metrics;
pub mod page;

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
