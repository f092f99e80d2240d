//! Each line failing, without the services behind it; tests with them are among the integration tests.

use super::*;
use crate::{
    broker::{Found, Standing as Stands},
    config::{Config, Loaded},
};

fn loaded(set: &[(&str, &str)]) -> (Loaded, Vec<Problem>) {
    let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    examine(&Inputs { set, ..Inputs::default() })
}

fn config(set: &[(&str, &str)]) -> Config {
    let (loaded, problems) = loaded(set);
    assert_eq!(problems, []);
    loaded.config
}

#[track_caller]
fn check(lines: &[Line], standing: Standing, part: &str) {
    assert!(lines.iter().any(|line| line.standing == standing && line.text.contains(part)), "{lines:#?}");
}

#[test]
fn configuration() {
    let (good, none) = loaded(&[]);
    check(&local::configuration(&good, &none), Standing::Ok, "the environment");
    let (bad, problems) = loaded(&[("expo.rate", "0"), ("ably.timeout", "x")]);
    let lines = local::configuration(&bad, &problems);
    check(&lines, Standing::Wrong, "expo.rate");
    check(&lines, Standing::Wrong, "ably.timeout");
}

#[test]
fn catalogue() {
    check(&local::catalogue(&config(&[])), Standing::Ok, "11 events");
    check(&local::catalogue(&config(&[("catalogue.path", "/no/such/file")])), Standing::Wrong, "catalogue.path");
}

#[tokio::test]
async fn what_the_configuration_forbids_is_not_tried() {
    let (_, problems) = loaded(&[("broker.prefetch", "0")]);
    let tried = async { vec![Line::new("broker", Standing::Ok, "tried")] };
    let lines = unless(&problems, "broker.", ["broker", "queues"], tried).await;
    check(&lines, Standing::Skipped, "broker.prefetch is wrong");
    let tried = async { vec![Line::new("expo", Standing::Ok, "tried")] };
    check(&unless(&problems, "expo.", ["expo"], tried).await, Standing::Ok, "tried");
}

#[test]
fn queues() {
    let found = |standing| Found { what: "queue `h.dead`".to_owned(), standing };
    check(&queues::stand(&[found(Stands::Fits), found(Stands::Fits)]), Standing::Ok, "all 2");
    for (standing, expected, part) in [
        (Stands::Missing, Standing::Warning, "`h.dead` is missing; `herald run` declares it"),
        (Stands::Tolerated("ttl".into()), Standing::Warning, "ttl"),
        (Stands::Unchecked("no right".into()), Standing::Warning, "was not checked: no right"),
        (
            Stands::Differs("x-queue-type is classic".into()),
            Standing::Wrong,
            "x-queue-type is classic; empty and delete",
        ),
    ] {
        check(&queues::stand(&[found(Stands::Fits), found(standing)]), expected, part);
    }
}

#[tokio::test]
async fn what_run_cannot_do_without_is_wrong() {
    check(&providers::ably(&config(&[])).await, Standing::Wrong, "ABLY_API_KEY");
    check(&databases::users(&config(&[])).await, Standing::Wrong, "DATABASE_URL");
    check(&databases::users(&config(&[("users.url", "none")])).await, Standing::Ok, "realtime only");
}

#[test]
fn lines_read_well() {
    let line = |standing| render(&Line::new("broker", standing, "x\u{1b}y"));
    assert_eq!(line(Standing::Ok), "ok     broker         x y");
    assert_eq!(line(Standing::Wrong), "WRONG  broker         x y");
}
