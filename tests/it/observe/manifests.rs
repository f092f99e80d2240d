//! Kubernetes, compose and systemd: valid by their own rules, and true to what herald is.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use herald::{
    config::{Inputs, REFERENCE, examine},
    domain::parse_duration,
};
use serde_json::Value;

use crate::{
    npm::{Project, run},
    support::within,
};

use super::{file, read};

const KUBERNETES: [&str; 4] = ["herald.yaml", "servicemonitor.yaml", "scaledobject.yaml", "rabbitmq.yaml"];
/// What herald reads beside `HERALD_<SECTION>__<KEY>`.
const ECOSYSTEM: [&str; 5] =
    ["AMQP_URL", "DATABASE_URL", "ABLY_API_KEY", "EXPO_ACCESS_TOKEN", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Validates the manifests and returns their documents by kind; `None` after saying that npm is missing.
async fn documents() -> Option<BTreeMap<String, Value>> {
    let mut script = Project::install("tests/manifests").await?.script("validate.mjs");
    script.args(KUBERNETES.map(|name| file("config/kubernetes").join(name)));
    let told = within(60, "the validation", run(&mut script, "")).await;
    let documents: Vec<Value> = serde_json::from_str(&told).unwrap();
    Some(documents.into_iter().map(|document| (document["kind"].as_str().unwrap().to_owned(), document)).collect())
}

fn default_of(section: &str, key: &str) -> String {
    let reference: toml::Table = REFERENCE.parse().unwrap();
    reference[section][key].as_str().unwrap().to_owned()
}

fn grace() -> Duration {
    parse_duration(&default_of("shutdown", "grace")).unwrap()
}

#[tokio::test]
async fn the_manifests_are_valid_and_fit_together() {
    let Some(documents) = documents().await else { return };
    let get = |kind: &str, pointer: &str| {
        documents[kind].pointer(pointer).unwrap_or_else(|| panic!("{kind} has no {pointer}")).clone()
    };
    let pod = |pointer: &str| get("Deployment", &format!("/spec/template/spec{pointer}"));
    let labels = get("Deployment", "/spec/template/metadata/labels");
    for selector in [
        get("Deployment", "/spec/selector/matchLabels"),
        get("Service", "/spec/selector"),
        get("PodDisruptionBudget", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!(get("ServiceMonitor", "/spec/selector/matchLabels"), get("Service", "/metadata/labels"));
    assert_eq!(get("ServiceMonitor", "/spec/endpoints/0/port"), get("Service", "/spec/ports/0/name"));
    assert_eq!(get("Service", "/spec/ports/0/targetPort"), pod("/containers/0/ports/0/name"));

    // A second signal or SIGKILL comes after what herald itself allows, with room for closing connections.
    assert!(pod("/terminationGracePeriodSeconds").as_u64().unwrap() >= grace().as_secs() + 10);
    assert_eq!(pod("/enableServiceLinks"), false);
    assert_eq!(pod("/securityContext/runAsNonRoot"), true);
    assert!(read("Dockerfile").contains(&format!("USER {0}:{0}", pod("/securityContext/runAsUser"))));
    for (pointer, expected) in [("readOnlyRootFilesystem", true), ("allowPrivilegeEscalation", false)] {
        assert_eq!(pod(&format!("/containers/0/securityContext/{pointer}")), expected);
    }
    assert!(pod("/containers/0/resources/limits/memory").is_string());
    let server = read("src/http/server.rs");
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(pod(&format!("/containers/0/{probe}/httpGet/path")), path);
        assert_eq!(pod(&format!("/containers/0/{probe}/httpGet/port")), pod("/containers/0/ports/0/name"));
        assert!(server.contains(&format!(".route({path:?}")), "{path} is not served");
    }
    let env: BTreeMap<String, String> = pod("/containers/0/env")
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair["name"].as_str().unwrap().to_owned(), pair["value"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(env["HERALD_HTTP__LISTEN"], format!("0.0.0.0:{}", pod("/containers/0/ports/0/containerPort")));
    let mount = pod("/containers/0/volumeMounts/0/mountPath");
    let make_secret = read("config/kubernetes/herald.yaml");
    for (name, value) in &env {
        let ecosystem = ECOSYSTEM.contains(&name.trim_end_matches("_FILE"));
        assert!(ecosystem || name.starts_with("HERALD_"), "{name} means nothing to herald");
        if name.ends_with("_FILE") {
            let key = value.strip_prefix(&format!("{}/", mount.as_str().unwrap())).expect("a mounted file");
            assert!(make_secret.contains(&format!("--from-file={key}")), "the Secret is made without {key}");
        }
    }
    for secret in
        ["HERALD_STORE__URL_FILE", "AMQP_URL_FILE", "DATABASE_URL_FILE", "ABLY_API_KEY_FILE", "HERALD_HTTP__TOKEN_FILE"]
    {
        assert!(env.contains_key(secret), "{secret}");
    }

    let trigger = get("ScaledObject", "/spec/triggers/0");
    assert_eq!(trigger["metadata"]["protocol"], "http", "amqp does not see what is unacknowledged");
    assert_eq!(trigger["metadata"]["queueName"], format!("{}.events", default_of("broker", "prefix")));
    assert_eq!(trigger["authenticationRef"]["name"], get("TriggerAuthentication", "/metadata/name"));
    assert_eq!(get("ScaledObject", "/spec/scaleTargetRef/name"), get("Deployment", "/metadata/name"));
    assert!(get("ScaledObject", "/spec/minReplicaCount").as_u64().unwrap() >= 1);

    let size = "max_message_size = 1048576";
    assert!(read("config/rabbitmq.conf").contains(size));
    assert!(get("RabbitmqCluster", "/spec/rabbitmq/additionalConfig").as_str().unwrap().contains(size));
}

/// Returns every word of a text that herald would read as configuration.
fn variables(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("HERALD_") && word.contains("__")).map(str::to_owned).collect()
}

#[test]
fn every_variable_used_anywhere_is_a_key() {
    let mut files: Vec<String> =
        ["docker-compose.yml", "Dockerfile", "README.md", "config/sandbox.env", "config/systemd/herald.service"]
            .map(str::to_owned)
            .to_vec();
    files.extend(KUBERNETES.map(|name| format!("config/kubernetes/{name}")));
    files.extend(["bounded", "metrics", "operating", "reliability", "security"].map(|name| format!("docs/{name}.md")));
    let mut seen = 0;
    for name in files {
        for variable in variables(&read(&name)) {
            // The README's own placeholder.
            if ["HERALD_SECTION__KEY", "HERALD___"].contains(&variable.as_str()) || variable.ends_with("__") {
                continue;
            }
            seen += 1;
            let env = BTreeMap::from([(variable.clone(), "x".to_owned())]);
            let (_, problems) = examine(&Inputs { env, ..Inputs::default() });
            let unknown = problems.iter().find(|problem| problem.problem.starts_with("unknown variable"));
            assert!(unknown.is_none(), "{name}: {variable}: {}", unknown.unwrap());
        }
    }
    assert!(seen > 15, "{seen}");
    let env = BTreeMap::from([("HERALD_HTTP__LISTNE".to_owned(), "x".to_owned())]);
    assert!(examine(&Inputs { env, ..Inputs::default() }).1[0].problem.starts_with("unknown variable"));
}

#[tokio::test]
async fn compose_publishes_on_loopback_only_and_mounts_what_is_there() {
    let text = read("docker-compose.yml");
    let mut published = 0;
    for line in text.lines().map(str::trim) {
        let Some(item) = line.strip_prefix("- ").map(|item| item.trim_matches('"')) else { continue };
        if let Some(mounted) = item.strip_prefix("./") {
            let source = mounted.split(':').next().unwrap();
            assert!(file(source).exists(), "{source} is mounted and not there");
        } else if item.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
            published += 1;
            assert!(item.starts_with("127.0.0.1:"), "{item} is published to everybody");
        }
    }
    assert!(published >= 7, "{published}");
    for (profile, service) in [("monitoring", "prometheus"), ("monitoring", "grafana"), ("sandbox", "sandbox")] {
        assert!(text.contains(&format!("  {service}:\n")) && text.contains(&format!("profiles: [\"{profile}\"]")));
    }
    let seconds = text.split("stop_grace_period: ").nth(1).and_then(|rest| parse_duration(rest.lines().next()?).ok());
    assert!(seconds.unwrap() > grace());
    let prometheus = read("config/prometheus/prometheus.yml");
    assert!(prometheus.contains("herald:8080") && prometheus.contains("- alerts.yml"));
    let dashboards = read("config/grafana/provisioning/dashboards/herald.yml");
    let folder = dashboards.split("path: ").nth(1).unwrap().trim();
    assert!(text.contains(&format!("./config/grafana/herald.json:{folder}/herald.json:ro")));
    // It validates without an engine; where it is not installed the checks above have to do.
    let mut compose = tokio::process::Command::new("docker-compose");
    compose.args(["--profile", "monitoring", "--profile", "sandbox", "config", "--quiet"]).current_dir(file("."));
    if let Ok(output) = compose.stdin(Stdio::null()).kill_on_drop(true).output().await {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn the_unit_is_one_that_systemd_takes() {
    let unit = read("config/systemd/herald.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert!(value("TimeoutStopSec").parse::<u64>().unwrap() > grace().as_secs());
    assert!(value("RestartPreventExitStatus").split(' ').any(|code| code == "78"));
    for used in unit.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, value) = used.split_once('=').unwrap();
        assert!(name.starts_with("HERALD_") || ECOSYSTEM.contains(&name.trim_end_matches("_FILE")), "{name}");
        if let Some(credential) = value.strip_prefix("%d/") {
            assert!(unit.contains(&format!("LoadCredential={credential}:")), "{credential} is not loaded");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("herald.service");
    std::fs::write(&copy, unit.replace("/usr/local/bin/herald", env!("CARGO_BIN_EXE_herald"))).unwrap();
    let mut verify = tokio::process::Command::new("systemd-analyze");
    verify.arg("verify").arg(&copy).stdin(Stdio::null()).kill_on_drop(true);
    // Where there is no systemd the checks above have to do.
    if let Ok(output) = verify.output().await {
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("herald.service:"), "{told}");
    }
}
