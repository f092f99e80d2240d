//! Servers of a test's own, for tests that break or overload them: started by the project's scripts, removed on drop.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

/// A private RabbitMQ.
pub struct Rabbit {
    pub url: String,
    pub management_url: String,
    folder: TempDir,
}

impl Rabbit {
    /// Starts a node; `None` after saying that the test is skipped when there is no RabbitMQ to start.
    pub fn start() -> Option<Rabbit> {
        let folder = folder();
        let info = script("rabbitmq-node", "start", &folder, &[])?;
        let value = |key: &str| value(&info, key);
        Some(Rabbit { url: value("url"), management_url: value("management_url"), folder })
    }

    /// Returns the script that breaks and mends this node, and what its verbs are followed by.
    pub fn script(&self) -> [String; 3] {
        let folder = self.folder.path().to_str().expect("UTF-8");
        [path("rabbitmq-node").to_str().expect("UTF-8").into(), "own".into(), folder.into()]
    }

    /// Stops or starts the node again: `stop`, `start`, `kill`.
    pub fn run(&self, verb: &str) {
        script("rabbitmq-node", verb, &self.folder, &[]).expect(verb);
    }

    /// Lets messages be as large as RabbitMQ takes them when nobody says otherwise, 128 MiB.
    pub fn take_large_messages(&self) {
        let allow = ["eval", "application:set_env(rabbit, max_message_size, 134217728)."];
        script("rabbitmq-node", "ctl", &self.folder, &allow).expect("rabbitmqctl");
    }
}

/// A private PostgreSQL.
pub struct Postgres {
    pub url: String,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server; `None` after saying that the test is skipped when there is no PostgreSQL to start.
    pub fn start() -> Option<Postgres> {
        let folder = folder();
        let info = script("postgres-node", "start", &folder, &[])?;
        Some(Postgres { url: value(&info, "url"), folder })
    }

    /// Stops or starts the server again: `stop`, `start`, `restart`, `kill`.
    pub fn run(&self, verb: &str) {
        script("postgres-node", verb, &self.folder, &[]).expect(verb);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        script("postgres-node", "remove", &self.folder, &[]);
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        script("rabbitmq-node", "remove", &self.folder, &[]);
    }
}

/// The servers run as users of their own, who must get into the folder.
fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("herald-own.").tempdir_in("/tmp").expect("folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("permissions");
    folder
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "scripts", name].iter().collect()
}

fn script(name: &str, verb: &str, folder: &TempDir, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(path(name)).arg(verb).arg("own").arg(folder.path()).args(arguments).output().expect("script");
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "{name} {verb}: {words}");
        eprintln!("skipped: {name} {verb}: {words}");
        return None;
    }
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

fn value(info: &str, key: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {info}")).to_owned()
}
