//! `config/prometheus/alerts.yml`: promtool's checks and cases, the names it uses, and its runbook.

use std::collections::BTreeSet;

use super::{file, passed, promtool, read, strangers, table};

const ALERTS: &str = "config/prometheus/alerts.yml";

/// Returns the values of a key, in the order of the file.
fn values_of<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).collect()
}

/// Returns the names of the recording rules.
pub(super) fn recorded() -> BTreeSet<String> {
    values_of(&read(ALERTS), "record").into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn promtool_accepts_the_rules_and_every_case_is_as_expected() {
    let rules = file(ALERTS);
    let Some(checked) = promtool(&["check", "rules", rules.to_str().unwrap()], "").await else { return };
    passed(&checked);
    let cases = file("config/prometheus/alerts_test.yml");
    passed(&promtool(&["test", "rules", cases.to_str().unwrap()], "").await.unwrap());
    // The Debian package of Prometheus reads rule files named in a configuration, too.
    let configuration = file("config/prometheus/prometheus.yml");
    passed(&promtool(&["check", "config", configuration.to_str().unwrap()], "").await.unwrap());
}

#[test]
fn each_alert_has_a_case_that_fires_and_one_that_stays_silent() {
    let (rules, cases) = (read(ALERTS), read("config/prometheus/alerts_test.yml"));
    let cases: Vec<&str> = cases.split("  - name: ").skip(1).collect();
    for alert in values_of(&rules, "alert") {
        let of =
            |what: &str| cases.iter().filter(|case| case.starts_with(&format!("{alert} {what}"))).collect::<Vec<_>>();
        let (fires, silent) = (of("fires"), of("stays silent"));
        let named = format!("alertname: {alert}\n");
        assert!(fires.iter().any(|case| case.contains(&named) && case.contains("exp_labels")), "{alert} never fires");
        assert!(!silent.is_empty(), "{alert} never stays silent");
        for case in silent {
            assert!(case.contains(&named) && !case.contains("exp_labels"), "{alert}: {case}");
        }
    }
}

#[test]
fn every_metric_that_alerts_use_is_in_the_table() {
    let (rules, recorded) = (read(ALERTS), recorded());
    // Everything but the words for people is an expression or names no metric.
    let words = ["summary:", "description:", "runbook:", "#", "- alert:", "- name:"];
    let lines = rules.lines().filter(|line| !words.iter().any(|word| line.trim().starts_with(word)));
    let expressions = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(strangers(&expressions, &recorded), Vec::<String>::new());
}

#[test]
fn each_alert_has_its_section_in_the_runbook_and_points_to_it() {
    let (rules, page) = (read(ALERTS), read("docs/operating.md"));
    let alerts = values_of(&rules, "alert");
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, alerts, "sections of docs/operating.md and alerts, in the same order");
    let pointers: Vec<String> =
        alerts.iter().map(|alert| format!("docs/operating.md#{}", alert.to_lowercase())).collect();
    assert_eq!(values_of(&rules, "runbook"), pointers);
}

#[test]
fn every_metric_that_the_runbook_names_is_in_the_table() {
    let page = read("docs/operating.md");
    // Beside metrics only queues, users and files begin with the same letters; they go on with a dot or dash, or stand in SQL.
    let quoted = page.split('`').skip(1).step_by(2).filter(|text| text.starts_with("herald_"));
    for text in quoted {
        // A histogram's own name is for people; a selector must be one that selects.
        let known = table().contains_key(text) || strangers(text, &recorded()).is_empty();
        assert!(known, "{text}");
    }
}
