//! The operator's page in a real browser: headless Chromium, driven by the scripts of `tests/page`, against a whole herald.
//!
//! A script plays an operator and sees only the page; what the world does meanwhile (events, faults, a worker that ends) it
//! asks for in a line of JSON, which is answered here. Screenshots go to `target/screenshots`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use herald::{
    domain::ledger::State,
    sandbox::{Action, Credential, DEFAULT_KEY, Endpoint, Fault, Match, Provider, Standing},
    store::{Find, LetterFilter},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{
    broker::setup::management_url,
    npm::Project,
    rig::{Rig, event, free_port},
    support::{eventually, within},
};

/// The browser of Debian's package `chromium`, or one that is named so elsewhere.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "there is no chromium and under CI no test may be skipped");
        eprintln!("skipped: there is no chromium; `scripts/tools --install chromium` tells or does what is needed");
    }
    found
}

/// Runs `script` until it ends, answering what it asks of the world.
async fn play(rig: &mut Rig, script: &str, variables: &[(&str, &str)]) {
    let (Some(chromium), Some(project)) = (chromium(), Project::install("tests/page").await) else { return };
    let screenshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&screenshots).unwrap();
    let mut node = project.script(script);
    node.env("PAGE", rig.http(0))
        .env("CHROMIUM", chromium)
        .env("SCREENSHOTS", screenshots)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut node = node.spawn().expect("node");
    let (mut answers, asked) = (node.stdin.take().unwrap(), node.stdout.take().unwrap());
    let mut lines = BufReader::new(asked).lines();
    let playing = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            match line.strip_prefix("ask ") {
                Some(order) => {
                    let answer = world(rig, serde_json::from_str(order).unwrap()).await;
                    answers.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
                }
                None => eprintln!("{script}: {line}"),
            }
        }
        node.wait().await.unwrap()
    };
    let status = within(480, script, playing).await;
    assert!(status.success(), "{script} failed, see above");
}

/// Does what the script asks for.
async fn world(rig: &mut Rig, order: Value) -> Value {
    let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
    match order["do"].as_str().unwrap() {
        // `count` events of one name, for `user` or nobody in particular, in sessions of their own or in `session`.
        "send" => {
            for number in 0..order["count"].as_u64().unwrap_or(1) {
                let id = format!("{}-{number}", text("id"));
                let session = order["session"].as_str().map_or_else(|| id.clone(), str::to_owned);
                let mut sent = event(&id, &text("event"), &session, &text("user"));
                if order["user"].is_null() {
                    sent.as_object_mut().unwrap().remove("partnerId");
                }
                rig.send(sent).await;
            }
        }
        "publish" => rig.publish(text("body"), Some(&text("id"))).await,
        "enter" => rig.enter(&text("session"), &text("user")),
        // Ably refuses what is published in the sessions that have `contains` in their name.
        "refuse" => {
            // Alone or in a batch.
            let matching =
                Match { provider: Some(Provider::Ably), contains: Some(text("contains")), ..Match::default() };
            rig.sandbox.control().add_fault(Fault { matching, status: Some(400), ..Fault::new(Action::Status) });
        }
        // Ably refuses our key.
        "revoke" => {
            let everything = [("*".to_owned(), vec!["*".to_owned()])].into();
            let secret = DEFAULT_KEY.to_owned();
            let credential = Credential { secret, capability: everything, standing: Standing::Revoked };
            rig.sandbox.control().add_credential(credential);
        }
        // Expo takes a while.
        "slow" => {
            let matching = Match { endpoint: Some(Endpoint::Send), ..Match::default() };
            rig.sandbox.control().add_fault(Fault {
                matching,
                delay_ms: order["ms"].as_u64(),
                ..Fault::new(Action::Slow)
            });
        }
        "mend" => rig.sandbox.control().clear_faults(),
        "until" => {
            let state = State::parse(&text("state")).unwrap();
            rig.until(&text("id"), state).await;
        }
        "delivered" => {
            let id = text("id");
            eventually("it is delivered once", async || (rig.effects().get(&id) == Some(&(1, 0))).then_some(())).await;
        }
        "ready" => {
            let queue = format!("{}.{}", rig.prefix, text("queue"));
            return json!(rig.ready_messages(&queue).await);
        }
        "letters" => return json!(rig.store.letter_count(&LetterFilter::default()).await.unwrap()),
        "entry" => return json!(rig.store.find(&Find::Id(text("id")), 1).await.unwrap()),
        "stop" => rig.kill(0),
        other => panic!("the script asks for {other}"),
    }
    Value::Null
}

/// A herald with two users, one with a phone, and a worker.
async fn stage(name: &str, variables: &[(&str, &str)]) -> Option<Rig> {
    let mut rig = Rig::new(name).await?;
    let phone = |token: &str| Some(format!("ExponentPushToken[{token}]"));
    rig.add_users([("ada".to_owned(), phone("adasphone1234567890")), ("eve".to_owned(), None)]).await;
    rig.start_with(variables).await;
    Some(rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_everything_and_acts_on_it() {
    let management = management_url();
    let Some(mut rig) = stage("page", &[("HERALD_BROKER__MANAGEMENT_URL", &management)]).await else { return };
    play(&mut rig, "story.mjs", &[]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_asks_for_the_token_and_no_other_site_can() {
    let Some(mut rig) = stage("token", &[("HERALD_HTTP__TOKEN", "page-test-token")]).await else { return };
    let evil = free_port().to_string();
    play(&mut rig, "token.mjs", &[("TOKEN", "page-test-token"), ("EVIL_PORT", &evil)]).await;
    rig.end().await;
}

#[tokio::test]
async fn the_chart_library_is_the_npm_packages() {
    let Some(project) = Project::install("tests/page").await else { return };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
    for (ours, theirs) in
        [("uplot.js", "dist/uPlot.iife.min.js"), ("uplot.css", "dist/uPlot.min.css"), ("uplot.LICENSE", "LICENSE")]
    {
        let theirs = std::fs::read(project.home.join("node_modules/uplot").join(theirs)).unwrap();
        assert_eq!(std::fs::read(page.join(ours)).unwrap(), theirs, "{ours}");
    }
}
