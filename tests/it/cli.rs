//! The binary as an operator and a script see it: exit codes, one clear line, standard output against standard error.

use std::process::{Command, Output};

/// Runs `herald` in an empty folder with `env` and nothing else.
fn herald(args: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    herald_in(folder.path(), args, env)
}

fn herald_in(folder: &std::path::Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.current_dir(folder).env_clear().args(args).envs(env.iter().copied());
    command.output().unwrap()
}

/// Checks the exit code, and that every line on standard error is one of ours.
#[track_caller]
fn check(output: &Output, code: i32, part: &str) {
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{told}{wrong}");
    assert!(format!("{told}{wrong}").contains(part), "{part:?} is not in {told}{wrong}");
    if code != 64 {
        assert!(wrong.lines().all(|line| line.starts_with("herald: ")), "{wrong}");
    }
}

/// An address where nobody listens.
const NOBODY: &str = "amqp://guest:hunter2@127.0.0.1:1/%2f";

#[test]
fn help_and_version_are_no_errors_and_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["send", "--help"], &["dead", "replay", "--help"], &["help", "run"]]
    {
        let output = herald(args, &[]);
        check(&output, 0, "");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    let version = herald(&["--version"], &[]);
    assert_eq!(version.stdout, format!("herald {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn wrong_usage_is_64() {
    for args in [
        &[][..],
        &["fly"],
        &["send"],
        &["send", "a.b"],
        &["send", "a.b", "--session", "s", "--data", "[]"],
        &["send", "a.b", "--session", "s", "--id", "1", "--file", "x"],
        &["explain"],
        &["explain", "id", "--user", "u"],
        &["dead"],
        &["dead", "list", "--older", "soon"],
        &["dead", "drop", "--yes", "--dry-run"],
        &["dead", "replay", "--rate", "0"],
        &["status", "--set", "novalue"],
    ] {
        let output = herald(args, &[]);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_is_78_and_told_whole() {
    for command in [&["run"][..], &["status"], &["explain", "x"], &["dead", "list"], &["send", "a", "--session", "s"]] {
        let output = herald(command, &[("HERALD_BROKER__PREFETSCH", "1"), ("HERALD_EXPO__RATE", "0")]);
        check(&output, 78, "herald: configuration: HERALD_BROKER__PREFETSCH: unknown variable (did you mean");
        check(&output, 78, "herald: configuration: expo.rate (HERALD_EXPO__RATE): must be");
        assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 2);
    }
    check(&herald(&["status", "--config", "absent.toml"], &[]), 78, "absent.toml (--config): cannot be read");
    check(&herald(&["status"], &[("HERALD_CONFIG", "absent.toml")]), 78, "absent.toml (HERALD_CONFIG): cannot be read");
    check(&herald(&["run"], &[]), 78, "ably.key (ABLY_API_KEY): not set");
    check(&herald(&["run"], &[]), 78, "users.url (DATABASE_URL): not set");
}

#[test]
fn a_file_in_the_default_place_is_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::write(folder.path().join("config/herald.toml"), "colour = \"red\"\n").unwrap();
    check(&herald_in(folder.path(), &["status"], &[]), 78, "colour in config/herald.toml line 1: unknown key");
}

#[test]
fn a_taken_port_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let env = [
        ("HERALD_HTTP__LISTEN", address.as_str()),
        ("ABLY_API_KEY", "a.k:s"),
        ("DATABASE_URL", "none"),
        ("AMQP_URL", NOBODY),
    ];
    let run = herald(&["run"], &env);
    check(&run, 1, &format!("herald: http.listen: {address} is taken by another process"));
    let sandbox = herald(&["sandbox"], &[("HERALD_SANDBOX__LISTEN", &address)]);
    check(&sandbox, 1, &address);
}

#[test]
fn an_unreachable_broker_is_1_and_its_password_is_not_told() {
    for command in [&["send", "a", "--session", "s"][..], &["status"]] {
        let output = herald(command, &[("AMQP_URL", NOBODY)]);
        check(&output, 1, "herald: ");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
}

#[test]
fn what_is_not_in_the_ledger_is_1_with_a_hint() {
    check(&herald(&["explain", "never-seen"], &[]), 1, "nothing in the ledger for the id `never-seen`");
    check(&herald(&["dead", "show", "7"], &[]), 1, "no dead letter matches");
    check(&herald(&["dead", "list"], &[]), 0, "no dead letters match");
    check(&herald(&["dead", "drop"], &[]), 0, "no dead letters to drop");
}

#[test]
fn check_runs_every_line_and_exits_by_the_worst() {
    let output = herald(&["check"], &[("AMQP_URL", NOBODY), ("HERALD_EXPO__RATE", "0"), ("DATABASE_URL", "none")]);
    for part in [
        "WRONG  configuration  expo.rate (HERALD_EXPO__RATE)",
        "ok     catalogue ",
        "AWAY   broker ",
        "-      queues         not tried: no broker",
        "ok     store ",
        "ok     users          none: realtime only",
        "WRONG  ably           ably.key (ABLY_API_KEY): not set",
        "-      expo           not tried: expo.rate is wrong",
    ] {
        check(&output, 78, part);
    }
    let env = [
        ("AMQP_URL", NOBODY),
        ("ABLY_API_KEY", "a.k:s"),
        ("HERALD_ABLY__URL", "http://127.0.0.1:1"),
        ("HERALD_EXPO__URL", "http://127.0.0.1:1"),
        ("DATABASE_URL", "none"),
    ];
    let away = herald(&["check", "--json"], &env);
    check(&away, 1, r#"{"what":"broker","standing":"unreachable""#);
    check(&away, 1, r#"{"what":"ably","standing":"unreachable""#);
    check(&away, 1, r#"{"what":"expo","standing":"unreachable""#);
}
