//! The five minutes of `docs/backend.md`, walked: its blocks are run one after the other as a reader would, on a real RabbitMQ, with
//! the herald of this build. Only the addresses are others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use herald::broker::topology::Topology;

use crate::{
    npm::{Project, copy},
    rig::{free_port, remove_queues},
    support::{amqp_url, eventually, unique},
};

const DOC: &str = include_str!("../../docs/backend.md");
const SECTION: &str = "## Five minutes: from npm install to a push";

/// The system's npm needs the Node.js it came with, which may be older than what herald's package asks for.
const NPM: &str = r#"npm() { env PATH="$OUTER_PATH" npm "$@"; }"#;

/// One block of code: its language and text.
fn blocks(section: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = section.split("```").collect();
    parts.chunks(2).filter_map(|pair| pair.get(1)?.split_once('\n')).collect()
}

fn section() -> &'static str {
    let (_, rest) = DOC.split_once(SECTION).expect("the section");
    rest.split_once("\n## ").expect("another section").0
}

/// Somebody at a terminal in a folder: what was exported, and what runs in the background, is kept there.
struct Terminal {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    /// Where herald says that it takes events.
    ready: String,
}

impl Terminal {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `text` in the shell and returns what it printed.
    async fn run(&self, text: &str) -> String {
        let out = self.path("out");
        let script = format!("set -e\n. ./exported\n{NPM}\n{text}\nexport -p > exported\njobs -p >> background\n");
        // Into a file: what is left in the background has the same output and does not end.
        let file = fs::File::create(&out).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.folder.path()).stdin(Stdio::null());
        bash.stdout(file.try_clone().unwrap()).stderr(file);
        for (name, _) in std::env::vars_os() {
            let production = ["AMQP_", "DATABASE_", "ABLY_", "EXPO_", "OTEL_", "HERALD_"];
            if production.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                bash.env_remove(&name);
            }
        }
        bash.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut bash = tokio::process::Command::from(bash);
        let status = tokio::time::timeout(Duration::from_secs(120), bash.kill_on_drop(true).status());
        let status = status.await.unwrap_or_else(|_| panic!("not in time: {text}")).unwrap();
        let told = fs::read_to_string(&out).unwrap();
        assert!(status.success(), "{text}\n{told}\n{}", self.logs());
        told
    }

    /// Writes a file, whose first line is its name.
    fn write(&self, text: &str) {
        let name = text.lines().next().and_then(|line| line.strip_prefix("// ")).expect("the file's name");
        fs::write(self.path(name), text).unwrap();
    }

    fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("sandbox.log:\n{}\nherald.log:\n{}", read("sandbox.log"), read("herald.log"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.path("background")).unwrap_or_default();
        let _ = Command::new("kill").args(pids.split_whitespace()).status();
    }
}

/// Returns the terminal as the reader has it before the first block, and how the blocks' addresses read here.
async fn sit_down(prefix: &str, amqp_url: &str) -> Option<(Terminal, [(String, String); 3])> {
    let node = Project::install("clients").await?.home.join("node_modules/.bin");
    // npm names the project after it.
    let folder = tempfile::Builder::new().prefix("herald-walk-").tempdir().unwrap();
    // A copy without what npm installed: as in a fresh clone.
    let package = folder.path().join("herald/clients/typescript");
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/typescript")), &package);
    fs::write(folder.path().join("exported"), "").unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_herald")).parent().unwrap();
    let outer = std::env::var("PATH").unwrap_or_default();
    let paths = [node, binary.to_owned()].into_iter().chain(std::env::split_paths(&outer));
    let [sandbox, http] = [(), ()].map(|()| format!("127.0.0.1:{}", free_port()));
    let environment = [
        ("PATH", std::env::join_paths(paths).unwrap().into_string().unwrap()),
        ("OUTER_PATH", outer.clone()),
        ("HERALD_BROKER__PREFIX", prefix.to_owned()),
        ("HERALD_SANDBOX__LISTEN", sandbox.clone()),
        ("HERALD_HTTP__LISTEN", http.clone()),
    ];
    let addresses = [
        ("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(), amqp_url.to_owned()),
        ("127.0.0.1:8181".to_owned(), sandbox),
        ("/path/to/herald".to_owned(), folder.path().join("herald").display().to_string()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    Some((Terminal { folder, environment, ready: format!("http://{http}/readyz") }, addresses))
}

#[tokio::test]
async fn the_five_minutes_of_the_backend_s_page() {
    let Some(amqp_url) = amqp_url() else { return };
    // Another test may have installed it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let prefix = unique("walk");
    let Some((terminal, addresses)) = sit_down(&prefix, &amqp_url).await else { return };
    for (address, _) in &addresses {
        assert!(section().contains(address.as_str()), "the page has no {address} any more");
    }
    let mut told = Vec::new();
    for (language, text) in blocks(section()) {
        let text = addresses.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        match language {
            "js" => terminal.write(&text),
            "sh" => told.push(step(&terminal, &text).await),
            other => panic!("a block of {other}"),
        }
    }
    let [_, _, notified, explained, pushes, again] = told.try_into().expect("six blocks of commands");
    let id = notified.trim().strip_prefix("enqueued ").expect("an id").to_owned();
    for part in [&id, "partner.signed_compact", "push"] {
        assert!(explained.contains(part), "{part} in {explained}");
    }
    for part in
        ["ExponentPushToken[bob-phone]", "Partner is ready", "They signed the Curiosity Compact. Your turn!", &id]
    {
        assert!(pushes.contains(part), "{part} in {pushes}");
    }
    assert!(again.contains("realtime") && !again.contains(&id), "{again}");

    drop(terminal);
    let config = herald::config::load(&herald::config::Inputs::default()).unwrap().config;
    let (schedule, dead_retention) = (config.retry.schedule, config.dead.retention);
    remove_queues(&amqp_url, &Topology { prefix, schedule, dead_retention }).await;
}

/// Runs a block; where a reader would look again a moment later, so does this.
async fn step(terminal: &Terminal, text: &str) -> String {
    let text = text.trim_end();
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    let shows = match last.split_whitespace().collect::<Vec<_>>()[..] {
        ["herald", "run", ..] => {
            let told = terminal.run(text).await;
            let ready =
                async || Some(reqwest::get(&terminal.ready).await.ok()?.status().is_success()).filter(|ready| *ready);
            eventually("herald is ready", ready).await;
            return told;
        }
        ["herald", "explain", ..] => "done",
        ["node", "pushes.js"] => "to: ",
        _ => return terminal.run(text).await,
    };
    terminal.run(before).await;
    // Until herald has done it, the command fails or shows nothing.
    eventually(last, async || Some(terminal.run(&format!("{last} || true")).await).filter(|told| told.contains(shows)))
        .await
}
