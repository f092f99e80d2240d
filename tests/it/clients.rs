//! The official npm clients (`ably`, `expo-server-sdk`) against the sandbox: what they need is what it does.
//!
//! `tests/clients` holds the scripts. What the clients sent under each label is kept, so that herald's own requests can be
//! held against theirs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use herald::sandbox::{Sandbox, Settings};
use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};

use crate::{
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
    let home = home().await?;
    let sandbox = start(Settings::default()).await;
    let recording = home.join(unique("recording"));
    within(120, "the clients' recording", run(&home, &sandbox, Some(&recording))).await;
    let text = fs::read_to_string(&recording).unwrap();
    fs::remove_file(&recording).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// Returns where the installed clients are.
async fn home() -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    within(600, "npm ci", install(&home)).await.then_some(home)
}

/// Copies the scripts to `home` and installs what the lock file names, unless that is installed already.
async fn install(home: &Path) -> bool {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    fs::create_dir_all(home).unwrap();
    // Another test process may be installing: whoever comes second finds everything in place.
    let lock = fs::File::create(home.join("lock")).unwrap();
    let _held = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    for file in fs::read_dir(&scripts).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        let (text, copy) = (fs::read(file.path()).unwrap(), home.join(file.file_name()));
        // What is in place is not touched: it may be running.
        if fs::read(&copy).ok().as_ref() != Some(&text) {
            fs::write(copy, text).unwrap();
        }
    }
    let wanted = fs::read_to_string(scripts.join("package-lock.json")).unwrap();
    let installed = home.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return true;
    }
    let npm = Command::new("npm").arg("ci").current_dir(home).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = match npm {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "npm cannot be run ({error}) and under CI no test may be skipped"
            );
            eprintln!("skipped: npm cannot be run ({error})");
            return false;
        }
    };
    assert!(output.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(installed, wanted).unwrap();
    true
}

async fn run(home: &Path, sandbox: &Sandbox, recording: Option<&Path>) {
    let mut script = Command::new(home.join("node_modules/.bin/node"));
    script.arg("run.mjs").current_dir(home).env("SANDBOX_URL", sandbox.url()).env_remove("RECORDING");
    if let Some(recording) = recording {
        script.env("RECORDING", recording);
    }
    let output = script.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_official_clients_work_against_the_sandbox() {
    let Some(home) = home().await else { return };
    let sandbox = start(Settings::default()).await;
    within(120, "the clients' script", run(&home, &sandbox, None)).await;
}
