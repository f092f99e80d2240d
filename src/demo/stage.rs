//! The demo's stage: a temporary folder with both databases, a sandbox, and a worker between them and the broker.
//!
//! Called by the demo. Everything it makes is gone when it is struck, except what lies in a RabbitMQ's queues.

use std::{path::Path, time::Duration};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};

use super::script::{self, Line};
use crate::{
    broker::{
        Broker, Destination, Message,
        marks::{self, Marks},
        sweep::{self, Verdict},
        topology::Topology,
    },
    config::{self, Config, Inputs},
    domain::{
        catalogue::Catalogue,
        judge::Policy,
        ledger::{Entry, State},
    },
    http::Readiness,
    provider::{ably::Ably, expo::Expo},
    sandbox::{DEFAULT_KEY, Effect, Sandbox},
    store::{Find, LetterFilter, Store, users::Users},
    worker::{Parts, Settings, Worker},
};

/// Phones in the demo's database: a user may have several, so they have a table of their own.
const USERS_QUERY: &str = r#"SELECT u.id AS user_id, p.token AS token FROM "User" u LEFT JOIN "Phone" p ON p."userId" = u.id
    WHERE u.id IN (SELECT value FROM json_each($1))"#;
const USERS_CLEAR: &str = r#"DELETE FROM "Phone" WHERE "userId" = $1 AND token = $2"#;

pub struct Stage<B> {
    broker: B,
    topology: Topology,
    config: Config,
    store: Store,
    users: Users,
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    /// Part of every id, so that no run meets another's.
    pub run: String,
}

/// Returns the demo's queues.
pub fn topology() -> Topology {
    let schedule = [5, 30, 120].map(Duration::from_secs).to_vec();
    Topology { prefix: "herald-demo".into(), schedule, dead_retention: Duration::from_secs(14 * 24 * 3600) }
}

impl<B: Broker> Stage<B> {
    /// Starts the sandbox and fills both databases.
    pub async fn set(broker: B, topology: Topology) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("herald-demo-").tempdir().context("a temporary folder")?;
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into()).await?;
        let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        for (session, user) in script::PRESENT {
            sandbox.control().enter(&format!("beheard:session:{session}-{run}:presence"), user);
        }
        for fault in script::faults(&run) {
            sandbox.control().add_fault(fault);
        }
        let users_url = sqlite(folder.path(), "users.db");
        fill_users(folder.path()).await?;
        let config = config(&sandbox, &sqlite(folder.path(), "ledger.db"), &users_url)?;
        let store = Store::open(config.store.url.expose_secret(), "demo").await?;
        let users = Users::open(&SecretString::from(users_url), USERS_QUERY, USERS_CLEAR).await?;
        Ok(Stage { broker, topology, config, store, users, sandbox, folder, run })
    }

    /// Makes the worker that plays.
    pub fn worker(&self) -> anyhow::Result<std::sync::Arc<Worker<B>>> {
        let config = &self.config;
        let key = SecretString::from(DEFAULT_KEY);
        let texts = format!("{}\n{}", config::MESSAGES, script::CATALOGUE);
        let catalogue =
            Catalogue::parse(&texts).map_err(|mistakes| anyhow::anyhow!("the demo's catalogue: {mistakes:?}"))?;
        Ok(Worker::new(Parts {
            broker: self.broker.clone(),
            topology: self.topology.clone(),
            store: self.store.clone(),
            users: Some(self.users.clone()),
            ably: Ably::new(&config.ably, &key)?,
            expo: Expo::new(&config.expo)?,
            catalogue,
            policy: Policy { schedule: self.topology.schedule.clone(), unknown_repeats: config.expo.unknown_repeats },
            settings: Settings::of(config),
            readiness: Readiness::default(),
            management: None,
        }))
    }

    /// Enqueues the script as a backend would.
    pub async fn send(&self, lines: &[Line]) -> anyhow::Result<()> {
        for line in lines {
            let exchange = self.topology.events();
            let to = Destination::Exchange { exchange, routing_key: line.routing_key.clone() };
            let properties = lapin::BasicProperties::default().with_content_type("application/json".into());
            let properties =
                if line.malformed { properties.with_message_id(line.id.as_str().into()) } else { properties };
            self.broker.publish(&to, Message { body: line.body.clone().into(), properties }).await?;
            if line.alone {
                // Its provider call shall not share a request with its neighbours.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        Ok(())
    }

    /// Returns the ledger row of a line, if there is one yet.
    pub async fn entry(&self, line: &Line) -> anyhow::Result<Option<Entry>> {
        Ok(self.store.find(&Find::Id(line.id.clone()), 1).await?.into_iter().next())
    }

    /// Waits until every line has ended.
    pub async fn wait_for(&self, lines: &[Line], patience: Duration) -> anyhow::Result<()> {
        self.wait(lines, patience, |entry| entry.state != State::Waiting).await
    }

    /// Waits until the replayed lines have ended again.
    pub async fn wait_for_replay(&self, lines: &[Line], patience: Duration) -> anyhow::Result<()> {
        let replayed = lines.iter().filter(|line| line.after_replay.is_some());
        self.wait(replayed, patience, |entry| entry.replay > 0 && entry.state != State::Waiting).await
    }

    async fn wait<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a Line>,
        patience: Duration,
        ended: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        for line in lines {
            while !self.entry(line).await?.is_some_and(|entry| ended(&entry)) {
                anyhow::ensure!(tokio::time::Instant::now() < deadline, "`{}` ({}) has not ended", line.id, line.shows);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until the sandbox's faults have shown: one line waits for its retry, one is dead.
    pub async fn wait_for_trouble(&self, lines: &[Line], patience: Duration) -> anyhow::Result<()> {
        let troubled = lines.iter().filter(|line| line.alone || line.after_replay.is_some());
        self.wait(troubled, patience, |entry| entry.reason.is_some()).await
    }

    /// Takes the sandbox's faults away.
    pub fn mend(&self) {
        self.sandbox.control().clear_faults();
    }

    /// Replays the dead letter that the script says, and returns its event id.
    pub async fn replay(&self, lines: &[Line]) -> anyhow::Result<String> {
        let line = lines.iter().find(|line| line.after_replay.is_some()).context("the script replays nothing")?;
        let filter = LetterFilter { id: Some(line.id.clone()), ..LetterFilter::default() };
        let letters = self.store.letters(&filter).await?;
        anyhow::ensure!(letters.len() == 1, "{} letters of `{}` in the index", letters.len(), line.id);
        let events = self.topology.events();
        sweep::sweep(&self.broker, &self.topology.dead(), |delivery| {
            let marks = Marks::read(&delivery.message);
            if marks.id.as_ref() == Some(&line.id) {
                let (to, message) = marks::replayed(&delivery.message, &marks, &events);
                Verdict::Replace(to, message)
            } else {
                Verdict::Keep
            }
        })
        .await?;
        let numbers: Vec<i64> = letters.iter().map(|letter| letter.number).collect();
        self.store.end_letters(&numbers, "replayed").await?;
        Ok(line.id.clone())
    }

    /// Returns what reached clients and phones, by event id.
    pub fn effects(&self) -> Vec<Effect> {
        self.sandbox.control().effects(0, usize::MAX)
    }

    pub fn sandbox_url(&self) -> String {
        self.sandbox.url()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the sandbox and removes the folder.
    pub async fn strike(self) {
        self.sandbox.stop().await;
    }
}

fn sqlite(folder: &Path, name: &str) -> String {
    format!("sqlite://{}", folder.join(name).display())
}

fn config(sandbox: &Sandbox, store_url: &str, users_url: &str) -> anyhow::Result<Config> {
    let set = [
        ("ably.url", sandbox.url()),
        ("expo.url", sandbox.url()),
        ("store.url", store_url.to_owned()),
        ("users.url", users_url.to_owned()),
        ("ably.key", DEFAULT_KEY.to_owned()),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value)).to_vec();
    Ok(config::load(&Inputs { set, ..Inputs::default() })?.config)
}

/// Makes the demo's users and their phones.
async fn fill_users(folder: &Path) -> anyhow::Result<()> {
    use sqlx::{Connection, sqlite::SqliteConnectOptions};
    let options = SqliteConnectOptions::new().filename(folder.join("users.db")).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(r#"CREATE TABLE "User" (id TEXT PRIMARY KEY); CREATE TABLE "Phone" ("userId" TEXT, token TEXT)"#)
        .execute(&mut connection)
        .await?;
    for (user, tokens) in script::USERS {
        sqlx::query(r#"INSERT INTO "User" VALUES ($1)"#).bind(user).execute(&mut connection).await?;
        for token in *tokens {
            let insert = sqlx::query(r#"INSERT INTO "Phone" VALUES ($1, $2)"#);
            insert.bind(user).bind(token).execute(&mut connection).await?;
        }
    }
    connection.close().await?;
    Ok(())
}
