//! A whole herald on real services: a prefix of its own on RabbitMQ, a schema of its own on PostgreSQL for ledger and users,
//! the sandbox in this process, and the worker as a process of its own, from outside.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use herald::{
    broker::{
        Broker, Destination, Message,
        amqp::{Amqp, AmqpOptions, Role},
        topology::Topology,
    },
    domain::ledger::{Books, Entry, Letter, State},
    sandbox::{Effect, Provider, Sandbox, Settings},
    store::{Find, LetterFilter, Store},
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};

use crate::{
    observe::page::value_of,
    support::{amqp_url, database_url, eventually, unique},
};

pub struct Rig {
    pub prefix: String,
    pub amqp_url: String,
    pub store_url: String,
    pub users_url: String,
    pub sandbox: Sandbox,
    pub broker: Amqp,
    pub store: Store,
    pub topology: Topology,
    database_url: String,
    folder: tempfile::TempDir,
    workers: Vec<Worker>,
}

/// A `herald run` process.
pub struct Worker {
    child: Child,
    log: PathBuf,
    pub http: String,
}

/// Retry delays short enough for a test, long enough to be seen.
pub const SCHEDULE: &str = r#"["1s","2s"]"#;

impl Rig {
    /// Sets everything up but the worker; `None` when a service is missing.
    pub async fn new(name: &str) -> Option<Rig> {
        Self::on(name, amqp_url()?).await
    }

    /// Sets everything up on the RabbitMQ at `amqp_url`.
    pub async fn on(name: &str, amqp_url: String) -> Option<Rig> {
        let database_url = database_url()?;
        // Another test may have installed it.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let prefix = unique(name);
        let (ledger, app) = (format!("{prefix}_ledger"), format!("{prefix}_app"));
        let with_schema = |schema: &str| {
            let separator = if database_url.contains('?') { '&' } else { '?' };
            format!("{database_url}{separator}schema={schema}")
        };
        let mut connection = sqlx::PgConnection::connect(&database_url).await.expect("PostgreSQL");
        let tables = format!(
            r#"CREATE SCHEMA "{app}"; CREATE TABLE "{app}"."User" (id TEXT PRIMARY KEY, "pushToken" TEXT, "updatedAt" TIMESTAMPTZ)"#
        );
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(tables))).await.expect("the app's tables");
        connection.close().await.expect("close");
        let settings = Settings { channel_rate: 0, project_rate: 0, ..Settings::default() };
        let sandbox = Sandbox::start_with(([127, 0, 0, 1], 0).into(), settings).await.expect("sandbox");
        let topology = Topology {
            prefix: prefix.clone(),
            schedule: [1, 2].map(Duration::from_secs).to_vec(),
            dead_retention: Duration::from_secs(14 * 24 * 3600),
        };
        let options = AmqpOptions {
            url: amqp_url.clone().into(),
            ca_file: None,
            instance: "test".into(),
            topology: topology.clone(),
            role: Role::Command,
        };
        let broker = Amqp::start(options);
        broker.ready(Duration::from_secs(20)).await.expect("RabbitMQ");
        let store_url = with_schema(&ledger);
        let store = Store::connect(&store_url).await.expect("ledger");
        let users_url = with_schema(&app);
        let folder = tempfile::tempdir().expect("folder");
        let workers = Vec::new();
        Some(Rig {
            prefix,
            amqp_url,
            store_url,
            users_url,
            sandbox,
            broker,
            store,
            topology,
            database_url,
            folder,
            workers,
        })
    }

    /// Puts a user with a push token into the app's database.
    pub async fn add_users(&self, users: impl IntoIterator<Item = (String, Option<String>)>) {
        let (ids, tokens): (Vec<String>, Vec<Option<String>>) = users.into_iter().unzip();
        let mut connection = sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL");
        let insert = format!(
            r#"INSERT INTO "{}_app"."User" (id, "pushToken") SELECT * FROM unnest($1::text[], $2::text[])"#,
            self.prefix
        );
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(ids).bind(tokens);
        insert.execute(&mut connection).await.expect("users");
        connection.close().await.expect("close");
    }

    pub async fn token_of(&self, user: &str) -> Option<String> {
        let mut connection = sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL");
        let select = format!(r#"SELECT "pushToken" FROM "{}_app"."User" WHERE id = $1"#, self.prefix);
        sqlx::query_scalar(sqlx::AssertSqlSafe(select)).bind(user).fetch_one(&mut connection).await.expect("token")
    }

    /// Opens a connection to the database of both schemas, `<prefix>_ledger` and `<prefix>_app`.
    pub async fn database(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL")
    }

    /// Runs statements as the operator of the database would; `LEDGER` and `APP` stand for the schemas.
    pub async fn sql(&self, statements: &str) {
        let mut connection = self.database().await;
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(self.named(statements)))).await.expect("statements");
        connection.close().await.expect("close");
    }

    /// Puts the schemas' names in for `LEDGER` and `APP`.
    pub fn named(&self, statements: &str) -> String {
        let (ledger, app) = (format!("\"{}_ledger\"", self.prefix), format!("\"{}_app\"", self.prefix));
        statements.replace("LEDGER", &ledger).replace("APP", &app)
    }

    /// Gives a user another push token, as the app does when it registers again.
    pub async fn set_token(&self, user: &str, token: &str) {
        let mut connection = sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL");
        let update = format!(r#"UPDATE "{}_app"."User" SET "pushToken" = $2 WHERE id = $1"#, self.prefix);
        sqlx::query(sqlx::AssertSqlSafe(update)).bind(user).bind(token).execute(&mut connection).await.expect("token");
        connection.close().await.expect("close");
    }

    /// Returns how many users have a push token.
    pub async fn tokens(&self) -> i64 {
        let mut connection = sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL");
        let select = format!(r#"SELECT count("pushToken") FROM "{}_app"."User""#, self.prefix);
        sqlx::query_scalar(sqlx::AssertSqlSafe(select)).fetch_one(&mut connection).await.expect("count")
    }

    /// Returns the sum of a counter over all workers that answer; of its labels only some need be named.
    pub async fn counter(&self, series: &str) -> u64 {
        let mut sum = 0;
        for worker in &self.workers {
            let Ok(page) = reqwest::get(format!("{}/metrics", worker.http)).await else { continue };
            let page = page.text().await.unwrap_or_default();
            sum += value_of(&page, series).unwrap_or_default() as u64;
        }
        sum
    }

    /// The command `herald …` with this rig's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AMQP_URL", &self.amqp_url)
            .env("DATABASE_URL", &self.users_url)
            .env("ABLY_API_KEY", herald::sandbox::DEFAULT_KEY)
            .env("HERALD_ABLY__URL", self.sandbox.url())
            .env("HERALD_EXPO__URL", self.sandbox.url())
            .env("HERALD_EXPO__RATE", "100000")
            .env("HERALD_BROKER__PREFIX", &self.prefix)
            .env("HERALD_STORE__URL", &self.store_url)
            .env("HERALD_RETRY__SCHEDULE", SCHEDULE)
            .env("HERALD_LOG__LEVEL", "info,herald=debug")
            .env("HERALD_HTTP__LISTEN", "127.0.0.1:0")
            .current_dir(self.folder.path());
        command
    }

    /// Starts a worker and waits until it takes events in. Returns its number.
    pub async fn start(&mut self) -> usize {
        self.start_with(&[]).await
    }

    /// Starts a worker with more variables.
    pub async fn start_with(&mut self, variables: &[(&str, &str)]) -> usize {
        self.start_as("rig", variables).await
    }

    /// Starts a worker with a name of its own, as one of several, and waits until it takes events in.
    pub async fn start_as(&mut self, instance: &str, variables: &[(&str, &str)]) -> usize {
        let number = self.spawn_as(instance, variables);
        self.until_ready(number).await;
        number
    }

    /// Starts `herald run` or `herald outbox` and returns its number at once.
    pub fn spawn(&mut self, verb: &str, instance: &str, variables: &[(&str, &str)]) -> usize {
        let number = self.workers.len();
        let log = self.folder.path().join(format!("worker-{number}.log"));
        let port = free_port();
        let http = format!("http://127.0.0.1:{port}");
        let mut command = self.command(&[verb, "--set", &format!("instance={instance}")]);
        command.env("HERALD_HTTP__LISTEN", format!("127.0.0.1:{port}")).envs(variables.iter().copied());
        let file = std::fs::File::create(&log).expect("log");
        command.stderr(Stdio::from(file)).stdout(Stdio::null());
        let child = command.spawn().expect("herald");
        self.workers.push(Worker { child, log, http });
        number
    }

    /// Waits until a process says that it is ready.
    pub async fn until_ready(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let (url, log) = (format!("{}/readyz", worker.http), worker.log.clone());
        eventually("the worker is ready", async || {
            if let Some(status) = worker.child.try_wait().expect("status") {
                panic!("the worker ended with {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let answer = reqwest::Client::new().get(&url).timeout(Duration::from_secs(1)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Starts a worker that may have a reason to take nothing in.
    pub fn spawn_as(&mut self, instance: &str, variables: &[(&str, &str)]) -> usize {
        self.spawn("run", instance, variables)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self, number: usize) {
        self.workers[number].child.kill().expect("kill");
        self.workers[number].child.wait().expect("wait");
    }

    /// Sends SIGTERM.
    pub fn signal(&self, number: usize) {
        let pid = self.workers[number].child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    }

    /// Sends SIGTERM and returns the exit code.
    pub async fn terminate(&mut self, number: usize) -> Option<i32> {
        self.signal(number);
        self.until_ended(number).await
    }

    /// Waits for the end and returns the exit code.
    pub async fn until_ended(&mut self, number: usize) -> Option<i32> {
        let worker = &mut self.workers[number];
        eventually("the worker has ended", async || worker.child.try_wait().expect("status")).await.code()
    }

    /// Writes a file into the workers' folder and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Returns what `/readyz` answers.
    pub async fn ready(&self, number: usize) -> u16 {
        let url = format!("{}/readyz", self.workers[number].http);
        let answer = reqwest::Client::new().get(url).timeout(Duration::from_secs(2)).send().await;
        answer.expect("the worker answers").status().as_u16()
    }

    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(&self.workers[number].log).unwrap_or_default()
    }

    pub fn pid(&self, number: usize) -> u32 {
        self.workers[number].child.id()
    }

    pub fn http(&self, number: usize) -> &str {
        &self.workers[number].http
    }

    /// Publishes a body as a producer does.
    pub async fn publish(&self, body: impl Into<Vec<u8>>, message_id: Option<&str>) {
        let to = Destination::Exchange { exchange: self.topology.events(), routing_key: "test.event".into() };
        let mut properties = lapin::BasicProperties::default().with_content_type("application/json".into());
        if let Some(id) = message_id {
            properties = properties.with_message_id(id.into());
        }
        self.broker.publish(&to, Message { body: Vec::into(body.into()), properties }).await.expect("published");
    }

    /// Publishes an event.
    pub async fn send(&self, event: Value) {
        self.publish(event.to_string(), None).await;
    }

    pub async fn entry(&self, id: &str) -> Option<Entry> {
        self.store.find(&Find::Id(id.into()), 1).await.expect("find").into_iter().next()
    }

    /// Waits until the event with `id` stands in `state`.
    pub async fn until(&self, id: &str, state: State) -> Entry {
        eventually(&format!("{id} is {}", state.as_str()), async || {
            self.entry(id).await.filter(|entry| entry.state == state)
        })
        .await
    }

    pub async fn letters(&self) -> Vec<Letter> {
        self.store.letters(&LetterFilter::default()).await.expect("letters")
    }

    pub async fn books(&self) -> Books {
        self.store.books().await.expect("books")
    }

    /// Returns how often each event reached a channel and a phone.
    pub fn effects(&self) -> BTreeMap<String, (u64, u64)> {
        let mut by_event = BTreeMap::new();
        for Effect { provider, event, count, .. } in self.sandbox.control().effects(0, usize::MAX) {
            let seen: &mut (u64, u64) = by_event.entry(event.to_string()).or_default();
            match provider {
                Provider::Ably => seen.0 += count,
                Provider::Expo => seen.1 += count,
            }
        }
        by_event
    }

    pub fn enter(&self, session: &str, user: &str) {
        self.sandbox.control().enter(&format!("beheard:session:{session}:presence"), user);
    }

    pub async fn ready_messages(&self, queue: &str) -> u64 {
        self.broker.depth(queue).await.expect("depth").ready
    }

    /// Stops the workers and removes queues and schemas.
    pub async fn end(mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
        remove_queues(&self.amqp_url, &self.topology).await;
        self.broker.close().await;
        let mut connection = sqlx::PgConnection::connect(&self.database_url).await.expect("PostgreSQL");
        let drop = format!(
            r#"DROP SCHEMA IF EXISTS "{0}_ledger" CASCADE; DROP SCHEMA IF EXISTS "{0}_app" CASCADE"#,
            self.prefix
        );
        let _ = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(drop))).await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
        if std::thread::panicking() {
            for (number, worker) in self.workers.iter().enumerate() {
                let log = std::fs::read_to_string(&worker.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                eprintln!("--- the last lines of worker {number}");
                tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Removes herald's queues and exchange.
pub async fn remove_queues(url: &str, topology: &Topology) {
    let Ok(connection) = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await else { return };
    let Ok(channel) = connection.create_channel().await else { return };
    for queue in topology.queues() {
        let _ = channel.queue_delete(queue.name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await;
    }
    let _ = channel.exchange_delete(topology.events().as_str().into(), Default::default()).await;
    let _ = connection.close(200, "done".into()).await;
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port()
}

/// An event for `partner` in `session`.
pub fn event(id: &str, name: &str, session: &str, partner: &str) -> Value {
    json!({"id": id, "sessionId": session, "event": name, "partnerId": partner, "data": {"stage": 2}})
}
