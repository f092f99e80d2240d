//! The official npm clients (`ably`, `expo-server-sdk`) against the sandbox: what they need is what it does.
//!
//! `tests/clients` holds the scripts. What the clients sent under each label is kept, so that herald's own requests can be
//! held against theirs.

use std::{collections::BTreeMap, fs, path::Path};

use herald::sandbox::{Sandbox, Settings};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    npm::{Project, run},
    sandbox::start,
    support::{unique, within},
};

/// What the clients sent: label to journal entries.
pub type Recording = BTreeMap<String, Vec<Value>>;

/// What both the clients and herald are given to send.
pub const INPUTS: &str = include_str!("../clients/inputs.json");

/// Lets the clients send [`INPUTS`] to a sandbox of their own, once for all tests of this process, and returns what they
/// sent, or `None` after saying that npm is missing. `recorded.mjs` has the labels.
pub async fn recorded() -> Option<&'static Recording> {
    static RECORDED: OnceCell<Option<Recording>> = OnceCell::const_new();
    RECORDED.get_or_init(record).await.as_ref()
}

async fn record() -> Option<Recording> {
    let clients = Project::install("tests/clients").await?;
    let sandbox = start(Settings::default()).await;
    let recording = clients.home.join(unique("recording"));
    within(120, "the clients' recording", play(&clients, &sandbox, Some(&recording))).await;
    let text = fs::read_to_string(&recording).unwrap();
    fs::remove_file(&recording).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

async fn play(clients: &Project, sandbox: &Sandbox, recording: Option<&Path>) {
    let mut script = clients.script("run.mjs");
    script.env("SANDBOX_URL", sandbox.url()).env_remove("RECORDING");
    if let Some(recording) = recording {
        script.env("RECORDING", recording);
    }
    run(&mut script, "").await;
}

#[tokio::test]
async fn the_official_clients_work_against_the_sandbox() {
    let Some(clients) = Project::install("tests/clients").await else { return };
    let sandbox = start(Settings::default()).await;
    within(120, "the clients' script", play(&clients, &sandbox, None)).await;
}
