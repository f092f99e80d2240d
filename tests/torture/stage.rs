//! What one round is played on: a vhost, two schemas, a sandbox and relays of its own, and the herald processes, from outside.
//!
//! Made anew for every round and cleared away after it. The harness itself goes past the relays.

use std::{
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use herald::{
    broker::topology::Topology,
    sandbox::{DEFAULT_KEY, Sandbox, Settings},
};
use sqlx::{AssertSqlSafe, Executor, PgPool, postgres::PgPoolOptions};
use url::Url;

use crate::{
    publisher::Script,
    relay::{Protocol, Relay},
    services::{Services, at},
};

/// Delays short enough for a round. The last is as long as a push of unknown fate waits here.
const SCHEDULE: [u64; 3] = [1, 2, 5];

const CATALOGUE: &str = r#"
[default]
title = "t"
body = "t"
["t.presence"]
title = "t"
body = "t"
["t.always"]
title = "t"
body = "t"
route = "always"
["t.realtime"]
title = "t"
body = "t"
route = "realtime"
["t.push"]
title = "t"
body = "t"
route = "push"
"#;

pub struct Stage {
    pub services: Services,
    pub script: Arc<Script>,
    pub topology: Topology,
    pub sandbox: Sandbox,
    /// Between herald and the broker, one for each broker node.
    pub relays: Vec<Relay>,
    /// Between herald and PostgreSQL.
    pub database_relay: Relay,
    pub pool: PgPool,
    /// The brokers as the harness reaches them.
    pub urls: Vec<String>,
    pub vhost: String,
    workers: Vec<Worker>,
    binary: PathBuf,
    folder: tempfile::TempDir,
    /// Broker nodes of this round alone.
    pub nodes: Vec<String>,
    pub prefetch: u16,
    /// How many of the processes are workers; the others are relays.
    replicas: usize,
}

struct Worker {
    /// `run` or `outbox`.
    verb: &'static str,
    child: Option<Child>,
    log: PathBuf,
    port: u16,
    /// Which broker node it connects to.
    node: usize,
}

impl Stage {
    /// Sets everything up but the workers. `brokers`: nodes other than the shared one.
    pub async fn new(
        services: &Services,
        script: Script,
        binary: PathBuf,
        replicas: usize,
        relays_of_rows: usize,
        brokers: Vec<(String, Url)>,
    ) -> anyhow::Result<Stage> {
        let vhost = script.prefix.clone();
        let (nodes, urls): (Vec<String>, Vec<Url>) = brokers.into_iter().unzip();
        let own = !nodes.is_empty();
        let brokers = if own { urls } else { vec![services.amqp.clone()] };
        if !own {
            services.add_vhost(&vhost).await?;
        }
        let path = if own { "/%2f".to_owned() } else { format!("/{vhost}") };
        let mut relays = Vec::new();
        for broker in &brokers {
            relays.push(Relay::start(broker.port().context("port")?, Protocol::Amqp).await?);
        }
        let urls = brokers.iter().map(|url| at(url, url.port().unwrap_or(5672), Some(&path))).collect();
        let database_relay = Relay::start(services.database.port().context("port")?, Protocol::Plain).await?;
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30));
        let pool = pool.connect(services.database.as_str()).await?;
        let settings = Settings {
            channel_rate: 0,
            project_rate: 0,
            journal_entries: 1000,
            effects: 3_000_000,
            tickets: 1000,
            ..Settings::default()
        };
        let sandbox = Sandbox::start_with(([127, 0, 0, 1], 0).into(), settings).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("messages.toml"), CATALOGUE)?;
        let prefix = script.prefix.clone();
        let workers = (0..replicas + relays_of_rows).map(|number| {
            let log = folder.path().join(format!("w{number}.log"));
            let verb = if number < replicas { "run" } else { "outbox" };
            Ok(Worker { verb, child: None, log, port: free_port()?, node: number % brokers.len() })
        });
        let workers = workers.collect::<anyhow::Result<Vec<_>>>()?;
        let stage = Stage {
            services: services.clone(),
            topology: Topology {
                prefix: prefix.clone(),
                schedule: SCHEDULE.map(Duration::from_secs).to_vec(),
                dead_retention: Duration::from_secs(14 * 86_400),
            },
            script: Arc::new(script),
            sandbox,
            relays,
            database_relay,
            pool,
            urls,
            vhost,
            workers,
            binary,
            folder,
            nodes,
            prefetch: 2048,
            replicas,
        };
        stage.fill().await?;
        if relays_of_rows > 0 {
            stage.make_outbox().await?;
        }
        Ok(stage)
    }

    /// Puts every session's user into the app's database and those who are looking into presence.
    async fn fill(&self) -> anyhow::Result<()> {
        let (app, script) = (self.app(), &self.script);
        let tables = format!(
            r#"CREATE SCHEMA "{app}"; CREATE TABLE "{app}"."User" (id TEXT PRIMARY KEY, "pushToken" TEXT, "updatedAt" TIMESTAMPTZ)"#
        );
        self.pool.execute(sqlx::raw_sql(AssertSqlSafe(tables))).await?;
        let (ids, tokens): (Vec<_>, Vec<_>) = (0..script.sessions).map(|s| (script.user(s), script.token(s))).unzip();
        let insert =
            format!(r#"INSERT INTO "{app}"."User" (id, "pushToken") SELECT * FROM unnest($1::text[], $2::text[])"#);
        sqlx::query(AssertSqlSafe(insert)).bind(ids).bind(tokens).execute(&self.pool).await?;
        for session in (0..script.sessions).filter(|session| script.present(*session)) {
            let channel = format!("beheard:session:{}:presence", script.session_id(session));
            self.sandbox.control().enter(&channel, &script.user(session));
        }
        Ok(())
    }

    pub fn ledger(&self) -> String {
        format!("{}_ledger", self.script.prefix)
    }

    pub fn app(&self) -> String {
        format!("{}_app", self.script.prefix)
    }

    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Returns the numbers of the relays.
    pub fn relays_of_rows(&self) -> std::ops::Range<usize> {
        self.replicas..self.workers.len()
    }

    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.workers[..self.replicas].iter().map(|worker| worker.port)
    }

    /// Returns how many effects have happened so far, repeats not counted.
    pub fn effects(&self) -> usize {
        self.sandbox.control().effect_totals().0
    }

    /// Starts a worker; it may not be ready yet.
    pub fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let relay = &self.relays[self.workers[number].node];
        let path = if self.nodes.is_empty() { format!("/{}", self.vhost) } else { "/%2f".to_owned() };
        let amqp = at(&self.services.amqp, relay.port(), Some(&path));
        // The nodes of a cluster have passwords of their own and share what the first one says.
        let amqp = match self.urls.first().filter(|_| !self.nodes.is_empty()) {
            Some(first) => at(&first.parse()?, relay.port(), Some(&path)),
            None => amqp,
        };
        let database = |schema: String| {
            let url = at(&self.services.database, self.database_relay.port(), None);
            format!("{url}?schema={schema}")
        };
        let (ledger, app) = (database(self.ledger()), database(self.app()));
        let schedule = SCHEDULE.map(|seconds| format!("\"{seconds}s\"")).join(",");
        let worker = &mut self.workers[number];
        ensure!(worker.child.is_none(), "worker {number} runs already");
        let mut command = Command::new(&self.binary);
        command
            .args([worker.verb, "--set", &format!("instance=w{number}")])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AMQP_URL", amqp)
            .env("DATABASE_URL", app)
            .env("ABLY_API_KEY", DEFAULT_KEY)
            .env("HERALD_STORE__URL", ledger)
            .env("HERALD_ABLY__URL", self.sandbox.url())
            .env("HERALD_ABLY__TIMEOUT", "3s")
            .env("HERALD_EXPO__URL", self.sandbox.url())
            .env("HERALD_EXPO__TIMEOUT", "3s")
            .env("HERALD_EXPO__RATE", "100000")
            .env("HERALD_BROKER__PREFIX", &self.topology.prefix)
            .env("HERALD_RETRY__SCHEDULE", format!("[{schedule}]"))
            .env("HERALD_BROKER__PREFETCH", self.prefetch.to_string())
            .env("HERALD_CATALOGUE__PATH", "messages.toml")
            .env("HERALD_LOG__LEVEL", std::env::var("TORTURE_LOG").unwrap_or_else(|_| "info".into()))
            .env("HERALD_HTTP__LISTEN", format!("127.0.0.1:{}", worker.port))
            .current_dir(self.folder.path());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&worker.log)?;
        worker.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn()?);
        Ok(())
    }

    /// Returns once a worker takes events in.
    pub async fn ready(&mut self, number: usize) -> anyhow::Result<()> {
        let (client, started) = (reqwest::Client::new(), Instant::now());
        let worker = &mut self.workers[number];
        let url = format!("http://127.0.0.1:{}/readyz", worker.port);
        loop {
            if let Some(status) = worker.child.as_mut().context("no worker")?.try_wait()? {
                bail!("worker {number} ended with {status}");
            }
            let answer = client.get(&url).timeout(Duration::from_secs(1)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(started.elapsed() < Duration::from_secs(120), "worker {number} is not ready after two minutes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn start(&mut self, number: usize) -> anyhow::Result<()> {
        self.spawn(number)?;
        self.ready(number).await
    }

    /// Sends `signal` to a worker and waits until it is gone.
    pub async fn signal(&mut self, number: usize, signal: &str) -> anyhow::Result<ExitStatus> {
        let mut child = self.workers[number].child.take().with_context(|| format!("no worker {number}"))?;
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill {signal}");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > Duration::from_secs(45) {
                let _ = (child.kill(), child.wait());
                bail!("worker {number} was not gone 45 s after {signal}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells whether every worker still runs.
    pub fn all_run(&mut self) -> anyhow::Result<()> {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            if let Some(status) = worker.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                worker.child = None;
                bail!("worker {number} ended by itself with {status}");
            }
        }
        Ok(())
    }

    /// Stops the workers in order.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for number in 0..self.workers.len() {
            if self.workers[number].child.is_some() {
                let status = self.signal(number, "-TERM").await?;
                ensure!(status.success(), "worker {number} ended with {status} on SIGTERM");
            }
        }
        Ok(())
    }

    /// Clears everything away; with `keep`, the logs stay and their folder is printed.
    pub async fn end(mut self, keep: bool) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(mut child) = worker.child.take() {
                let _ = (child.kill(), child.wait());
            }
        }
        let drop = format!(
            r#"DROP SCHEMA IF EXISTS "{}" CASCADE; DROP SCHEMA IF EXISTS "{}" CASCADE"#,
            self.ledger(),
            self.app()
        );
        let _ = self.pool.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await;
        self.pool.close().await;
        if self.nodes.is_empty() {
            let _ = self.services.delete_vhost(&self.vhost).await;
        }
        for node in &self.nodes {
            let _ = self.services.node("remove", node).await;
        }
        self.sandbox.stop().await;
        if keep {
            println!("  the workers' logs: {}", self.folder.keep().display());
        }
        Ok(())
    }
}

/// Returns a port that was free a moment ago, below the range that outgoing connections use.
fn free_port() -> anyhow::Result<u16> {
    use rand::Rng;
    (0..100)
        .map(|_| rand::rng().random_range(15_000..32_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}
