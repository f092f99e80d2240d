//! The private servers of a run: RabbitMQ and PostgreSQL started by the project's scripts, and what an operator does to them.
//!
//! Everything goes through `scripts/rabbitmq-node` and `scripts/postgres-node`, in the folder that `scripts/with-services` gave us
//! and clears away. Must never touch a server that this run did not start.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use url::Url;

/// The servers shared by the rounds of one run.
#[derive(Debug, Clone)]
pub struct Services {
    dir: PathBuf,
    rabbitmq: String,
    postgres: String,
    pub amqp: Url,
    pub management: Url,
    pub database: Url,
    /// What the broker says of itself.
    pub version: String,
}

impl Services {
    /// Finds the servers that `scripts/with-services` started for this run alone.
    pub async fn find() -> anyhow::Result<Services> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: use `make torture`"));
        let dir = PathBuf::from(variable("HERALD_TEST_DIR")?);
        let mut services = Services {
            rabbitmq: "shared-rabbitmq".into(),
            postgres: "shared-postgres".into(),
            amqp: variable("HERALD_TEST_AMQP_URL")?.parse()?,
            management: variable("HERALD_TEST_MANAGEMENT_URL")?.parse()?,
            database: variable("HERALD_TEST_DATABASE_URL")?.parse()?,
            version: String::new(),
            dir,
        };
        for node in [&services.rabbitmq, &services.postgres] {
            ensure!(
                services.dir.join(node).is_dir(),
                "{node} is not ours: unset HERALD_TEST_AMQP_URL and HERALD_TEST_DATABASE_URL"
            );
        }
        let overview = services.manage(reqwest::Method::GET, "overview", None).await?;
        let overview: serde_json::Value = serde_json::from_str(&overview)?;
        services.version = overview["rabbitmq_version"].as_str().context("the broker's version")?.to_owned();
        Ok(services)
    }

    /// Starts one more RabbitMQ node in the run's folder; returns its URL.
    pub async fn start_node(&self, name: &str) -> anyhow::Result<Url> {
        let told = script("rabbitmq-node", &["start", name, self.dir_text()]).await?;
        let url = told.lines().find_map(|line| line.strip_prefix("url=")).context("the node's url")?;
        Ok(url.parse()?)
    }

    pub async fn node(&self, verb: &str, name: &str) -> anyhow::Result<()> {
        script("rabbitmq-node", &[verb, name, self.dir_text()]).await.map(drop)
    }

    pub async fn node_ctl(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        script("rabbitmq-node", &[&["ctl", name, self.dir_text()], arguments].concat()).await
    }

    pub async fn rabbitmq(&self, verb: &str) -> anyhow::Result<()> {
        self.node(verb, &self.rabbitmq).await
    }

    pub async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.node_ctl(&self.rabbitmq, arguments).await
    }

    pub async fn postgres(&self, verb: &str) -> anyhow::Result<()> {
        script("postgres-node", &[verb, &self.postgres, self.dir_text()]).await.map(drop)
    }

    fn dir_text(&self) -> &str {
        self.dir.to_str().expect("mktemp's folders are ASCII")
    }

    /// Makes a vhost of its own for a round.
    pub async fn add_vhost(&self, name: &str) -> anyhow::Result<()> {
        self.manage(reqwest::Method::PUT, &format!("vhosts/{name}"), Some("{}")).await?;
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        let path = format!("permissions/{name}/{}", self.amqp.username());
        self.manage(reqwest::Method::PUT, &path, Some(all)).await?;
        Ok(())
    }

    pub async fn delete_vhost(&self, name: &str) -> anyhow::Result<()> {
        self.manage(reqwest::Method::DELETE, &format!("vhosts/{name}"), None).await.map(drop)
    }

    async fn manage(&self, method: reqwest::Method, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        let mut url = self.management.clone();
        url.set_path(&format!("/api/{path}"));
        let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
        let _ = (url.set_username(""), url.set_password(None));
        let mut tries = 0;
        loop {
            let mut request = reqwest::Client::new().request(method.clone(), url.clone());
            request = request.basic_auth(&user, password.as_deref()).timeout(Duration::from_secs(20));
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_owned());
            }
            tries += 1;
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer.text().await?),
                Ok(answer) if tries > 20 => bail!("{path}: {}", answer.status()),
                Err(error) if tries > 20 => bail!("{path}: {error}"),
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

async fn script(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // The node stays behind with the script's standard output and error, so their end is not waited for.
    let mut child = command.spawn()?;
    let waiting = tokio::time::timeout(Duration::from_secs(180), child.wait());
    let status = waiting.await.with_context(|| format!("{name} {} took too long", arguments.join(" ")))??;
    let mut told = String::new();
    if let Some(mut out) = child.stdout.take() {
        use tokio::io::AsyncReadExt;
        let _ = tokio::time::timeout(Duration::from_secs(1), out.read_to_string(&mut told)).await;
    }
    ensure!(status.success(), "{name} {} ended with {status}: {told}", arguments.join(" "));
    Ok(told)
}

/// Returns `url` with another port and path.
pub fn at(url: &Url, port: u16, path: Option<&str>) -> String {
    let mut url = url.clone();
    let _ = url.set_port(Some(port));
    if let Some(path) = path {
        url.set_path(path);
    }
    url.to_string()
}
