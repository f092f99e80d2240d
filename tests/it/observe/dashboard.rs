//! `config/grafana/herald.json`: what Grafana needs of it, the names it uses, and that Prometheus can read every expression.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{alerts::recorded, passed, promtool, read, strangers};

fn dashboard() -> Value {
    serde_json::from_str(&read("config/grafana/herald.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().expect("panels").iter().collect()
}

/// Every expression with the panel it stands in; annotations and variables included.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].to_string(), target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        found.push(("annotation".to_owned(), annotation["expr"].as_str().expect("an expression").to_owned()));
    }
    found
}

#[test]
fn it_is_whole() {
    let dashboard = dashboard();
    for key in ["uid", "title", "time", "templating", "annotations", "schemaVersion", "refresh"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    assert!(dashboard["id"].is_null(), "an id is the database's to give");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&json!("datasource"), &json!("datasource")));
    let names: BTreeSet<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["datasource", "job", "instance"]));

    let panels = panels(&dashboard);
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Now", "Flow", "Queues", "Providers", "Dead letters", "Latency", "Resources"]);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in &panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let cell = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(cell("x") + cell("w") <= 24, "{panel}");
        for (x, y) in
            (cell("x")..cell("x") + cell("w")).flat_map(|x| (cell("y")..cell("y") + cell("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
        }
        if panel["type"] == "row" {
            continue;
        }
        for text in ["title", "description"] {
            assert!(panel[text].as_str().is_some_and(|text| !text.is_empty()), "{panel}");
        }
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for at in targets.iter().chain([*panel]) {
            assert_eq!(at["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{}", panel["title"]);
        }
    }
}

#[test]
fn every_metric_it_shows_is_in_the_table() {
    for (panel, expression) in expressions(&dashboard()) {
        assert_eq!(strangers(&expression, &recorded()), Vec::<String>::new(), "{panel}: {expression}");
    }
}

#[tokio::test]
async fn prometheus_reads_every_expression() {
    let rules = expressions(&dashboard()).into_iter().enumerate().map(|(number, (_, expression))| {
        let expression = expression.replace("$__rate_interval", "5m").replace("$job", "j").replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        json!({"record": format!("panel:{number}"), "expr": expression})
    });
    let text = json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]}).to_string();
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, text).unwrap();
    let Some(checked) = promtool(&["check", "rules", file.to_str().unwrap()], "").await else { return };
    passed(&checked);
}
