//! How fast `herald outbox` relays, and how long a row waits: measured from outside, on servers of its own.
//!
//! `make bench-outbox` runs it. Throughput: a backlog lies in the table, relays are started, and the clock runs from the first
//! row relayed to the last. Lag: rows are written at a steady rate, one in a transaction; for each, the time from the answer to
//! its COMMIT until the relay has marked it as confirmed, both by the clock of this machine.

use std::{
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};

const TABLE: &str = include_str!("../config/outbox/herald_outbox.sql");
const SCHEMA: &str = "bench_outbox";
/// What stands around the table in the report.
const MARKS: [&str; 2] = ["<!-- bench-outbox: begin -->", "<!-- bench-outbox: end -->"];

#[derive(Debug, Parser)]
struct Args {
    /// Rows of a backlog
    #[arg(long, default_value_t = 50_000)]
    rows: u64,
    /// Seconds of a steady load
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Rows a second of the steady loads
    #[arg(long, value_delimiter = ',', default_value = "20,1000")]
    rates: Vec<u64>,
    #[arg(long, default_value = "target/release/herald")]
    herald: PathBuf,
    /// What the report calls the program
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// File that gets the results
    #[arg(long)]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only when it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-outbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The servers, and where the table is.
struct Bench {
    herald: PathBuf,
    amqp: String,
    database: String,
    pool: PgPool,
}

/// A relay, stopped when dropped.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let (amqp, database) = (variable("HERALD_TEST_AMQP_URL")?, variable("HERALD_TEST_DATABASE_URL")?);
    let herald = args.herald.canonicalize().with_context(|| format!("{}: build it first", args.herald.display()))?;
    let path = format!("SET search_path TO {SCHEMA}");
    let pool = PgPoolOptions::new().max_connections(34).after_connect(move |connection, _| {
        let path = path.clone();
        Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.map(drop) })
    });
    let bench = Bench { herald, amqp, database: database.clone(), pool: pool.connect(&database).await? };
    let mut lines = vec![
        "| load | relays | rows | rows/s | lag p50 | lag p99 | lag max |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for relays in [1, 2] {
        lines.push(tell(bench.backlog(args.rows, relays).await?));
    }
    for rate in args.rates {
        lines.push(tell(bench.steady(rate, args.seconds).await?));
    }
    bench.pool.execute(AssertSqlSafe(format!("DROP SCHEMA {SCHEMA} CASCADE"))).await?;
    if let Some(file) = args.report {
        let place = place(&bench, &args.commit).await?;
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let between = |mark: &str| text.find(mark).with_context(|| format!("{}: no line {mark}", file.display()));
        let (from, to) = (between(MARKS[0])? + MARKS[0].len(), between(MARKS[1])?);
        std::fs::write(&file, format!("{}\n{place}\n\n{}\n{}", &text[..from], lines.join("\n"), &text[to..]))?;
    }
    Ok(())
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: use `make bench-outbox`"))
}

fn tell(line: String) -> String {
    println!("{line}");
    line
}

/// Says what was measured, and on what.
async fn place(bench: &Bench, commit: &str) -> anyhow::Result<String> {
    let postgres: String = sqlx::query_scalar("SHOW server_version").fetch_one(&bench.pool).await?;
    let mut overview: url::Url = variable("HERALD_TEST_MANAGEMENT_URL")?.parse()?;
    overview.set_path("/api/overview");
    let overview = reqwest::get(overview).await?.text().await?;
    let overview: serde_json::Value = serde_json::from_str(&overview)?;
    let rabbitmq = overview["rabbitmq_version"].as_str().unwrap_or("of unknown version");
    let cores = std::thread::available_parallelism()?;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or("unknown processor", |(_, name)| name);
    let day = Timestamp::now().strftime("%Y-%m-%d");
    Ok(format!(
        "{day}, herald {commit}, {cores} cores of {processor} for everything, RabbitMQ {rabbitmq}, PostgreSQL {postgres} with \
         fsync off (`scripts/postgres-node`).",
    ))
}

impl Bench {
    /// Makes the table anew, so that no phase starts with the dead rows of another.
    async fn table(&self) -> anyhow::Result<()> {
        let schema = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}");
        self.pool.execute(sqlx::raw_sql(AssertSqlSafe(schema))).await?;
        self.pool.execute(sqlx::raw_sql(TABLE)).await?;
        Ok(())
    }

    fn relay(&self, retention: &str) -> anyhow::Result<Relay> {
        let mut command = Command::new(&self.herald);
        command
            .args([
                "outbox",
                "--set",
                "http.listen=127.0.0.1:0",
                "--set",
                "broker.prefix=bench",
                "--set",
                "log.level=warn",
            ])
            .args([
                "--set",
                &format!("outbox.retention={retention}"),
                "--set",
                &format!("outbox.table={SCHEMA}.herald_outbox"),
            ])
            .env_clear()
            .env("AMQP_URL", &self.amqp)
            .env("DATABASE_URL", &self.database)
            .current_dir(std::env::temp_dir());
        Ok(Relay(command.stdin(Stdio::null()).spawn()?))
    }

    /// Throws away what was published.
    async fn purge(&self) -> anyhow::Result<()> {
        let connection = lapin::Connection::connect(&self.amqp, lapin::ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.queue_purge("bench.events".into(), Default::default()).await?;
        connection.close(200, "done".into()).await?;
        Ok(())
    }

    /// Returns how many rows wait.
    async fn waiting(&self) -> anyhow::Result<i64> {
        let count = "SELECT count(*) FROM herald_outbox WHERE published_at IS NULL";
        Ok(sqlx::query_scalar(count).fetch_one(&self.pool).await?)
    }

    /// Relays a backlog of `rows` rows in a hundred to a session; the clock runs while between nine tenths and none are left.
    async fn backlog(&self, rows: u64, relays: usize) -> anyhow::Result<String> {
        self.table().await?;
        let fill = "INSERT INTO herald_outbox (session_id, event, partner_id, data)
            SELECT 's' || n % ($1 / 100 + 1), 'partner.advanced', 'u' || n % 1000, jsonb_build_object('toStage', n % 9, 'note', 'as a backend would')
            FROM generate_series(1, $1) AS n";
        sqlx::query(fill).bind(rows as i64).execute(&self.pool).await?;
        let running = (0..relays).map(|_| self.relay("0s")).collect::<anyhow::Result<Vec<_>>>()?;
        let mut first: Option<(Instant, i64)> = None;
        let begun = Instant::now();
        loop {
            let waiting = self.waiting().await?;
            if waiting as u64 <= rows * 9 / 10 && first.is_none() {
                first = Some((Instant::now(), waiting));
            }
            if waiting == 0 {
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(600), "{waiting} rows are left after ten minutes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (since, waiting) = first.context("rows")?;
        let rate = waiting as f64 / since.elapsed().as_secs_f64();
        drop(running);
        self.purge().await?;
        Ok(format!("| backlog | {relays} | {rows} | {rate:.0} | - | - | - |"))
    }

    /// Writes `rate` rows a second, each in a transaction of its own, and looks when each was confirmed.
    async fn steady(&self, rate: u64, seconds: u64) -> anyhow::Result<String> {
        self.table().await?;
        let running = self.relay("1h")?;
        // It is up once it has relayed a first row.
        let mut connection = PgConnection::connect(&self.database).await?;
        let insert =
            AssertSqlSafe(format!("INSERT INTO {SCHEMA}.herald_outbox (session_id, event) VALUES ('warm', 'e')"));
        connection.execute(insert).await?;
        while self.waiting().await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let writers = rate.div_ceil(50).min(32);
        let begun = tokio::time::Instant::now();
        let writing = (0..writers).map(|writer| self.writer(writer, writers, rate, seconds, begun));
        let committed: Vec<(i64, i64)> = futures::future::try_join_all(writing).await?.into_iter().flatten().collect();
        let took = begun.elapsed();
        while self.waiting().await? > 0 {
            ensure!(begun.elapsed() < took + Duration::from_secs(120), "rows are left two minutes after the last");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let published: Vec<(i64, i64)> =
            sqlx::query_as("SELECT seq, (extract(epoch FROM published_at) * 1000000)::bigint FROM herald_outbox")
                .fetch_all(&self.pool)
                .await?;
        let published: std::collections::HashMap<i64, i64> = published.into_iter().collect();
        let mut lags: Vec<i64> = committed.iter().map(|(seq, at)| published[seq] - at).collect();
        lags.sort_unstable();
        let at = |share: f64| {
            let micros = lags[((lags.len() - 1) as f64 * share) as usize].max(0);
            format!("{:.1} ms", micros as f64 / 1000.0)
        };
        drop(running);
        self.purge().await?;
        let (count, real) = (lags.len(), lags.len() as f64 / took.as_secs_f64());
        let row = format!("| {rate} a second | 1 | {count} | {real:.0} |");
        Ok(format!("{row} {} | {} | {} |", at(0.5), at(0.99), at(1.0)))
    }

    /// Writes one writer's share; returns number and commit of each row, in microseconds since the epoch.
    async fn writer(
        &self,
        writer: u64,
        writers: u64,
        rate: u64,
        seconds: u64,
        begun: tokio::time::Instant,
    ) -> anyhow::Result<Vec<(i64, i64)>> {
        let mut connection = self.pool.acquire().await?;
        let mut committed = Vec::new();
        for n in (writer..rate * seconds).step_by(writers as usize) {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(n as f64 / rate as f64)).await;
            let insert = "INSERT INTO herald_outbox (session_id, event, partner_id, data)
                VALUES ('s' || $1::bigint % 500, 'partner.advanced', 'u1', '{\"toStage\": 3}') RETURNING seq";
            // A statement alone is a transaction: its answer comes after its COMMIT.
            let seq: i64 = sqlx::query_scalar(insert).bind(n as i64).fetch_one(&mut *connection).await?;
            committed.push((seq, Timestamp::now().as_microsecond()));
        }
        Ok(committed)
    }
}
