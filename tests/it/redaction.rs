//! Secrets and payload stand only where they are documented to stand: canaries are planted in everything secret, a worker runs at
//! trace level through success and every kind of failure, and then everything it can leave behind is swept.
//!
//! Documented: a token's last four characters (`explain`, `dead show`, the ledger); the whole token in `tickets` until its
//! receipt is read, because that is what the receipt is about; a dead letter's own body and headers.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use herald::{
    broker::{Broker, Destination, Message, headers_json},
    domain::ledger::State,
    sandbox::{ACCESS_TOKEN, Action, Credential, Endpoint, Fault, Match, Standing},
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, raw_sql};

use crate::{
    broker::setup::{manage, management_url},
    collector::Collector,
    rig::{Rig, event},
    support::{database_url, eventually, unique, within},
};

/// Everything that was left behind, by place.
type Places = BTreeMap<String, String>;

/// What may be found and where; anywhere else it is a leak.
struct Canary {
    what: &'static str,
    text: String,
    allowed: &'static [&'static str],
}

const NOWHERE: &[&str] = &[];
/// A letter keeps its own body and headers, in the queue and in the index.
const LETTERS: &[&str] = &["table dead_letters", "dead show", "dead export", "letters in the queue"];

struct Canaries {
    ably_key: String,
    wrong_ably_key: String,
    amqp_password: String,
    database_password: String,
    wrong_password: String,
    http_token: String,
    url: String,
    otlp_header: String,
    token: String,
    payload: String,
    header: String,
}

impl Canaries {
    fn new() -> Canaries {
        let canary = |what: &str| format!("canary{what}{}", uuid::Uuid::new_v4().simple());
        Canaries {
            ably_key: format!("canapp.key1:{}", canary("Ably")),
            wrong_ably_key: format!("canapp.key2:{}", canary("WrongAbly")),
            amqp_password: canary("Amqp"),
            database_password: canary("Database"),
            wrong_password: canary("Wrong"),
            http_token: canary("Http"),
            url: canary("Url"),
            otlp_header: canary("OtlpHeader"),
            token: canary("Token"),
            payload: canary("Payload"),
            header: canary("Header"),
        }
    }

    fn all(&self) -> Vec<Canary> {
        let secret = |what, text: &str| Canary { what, text: text.to_owned(), allowed: NOWHERE };
        let after_colon = |key: &str| key.rsplit(':').next().unwrap().to_owned();
        vec![
            secret("Ably key", &after_colon(&self.ably_key)),
            secret("Ably key as Basic", &BASE64_STANDARD.encode(&self.ably_key)),
            secret("wrong Ably key", &after_colon(&self.wrong_ably_key)),
            secret("wrong Ably key as Basic", &BASE64_STANDARD.encode(&self.wrong_ably_key)),
            secret("Expo access token", ACCESS_TOKEN),
            secret("AMQP password", &self.amqp_password),
            secret("database password", &self.database_password),
            secret("wrong password", &self.wrong_password),
            secret("http.token", &self.http_token),
            secret("credentials in a URL", &self.url),
            secret("header for the receiver of traces", &self.otlp_header),
            Canary { what: "push token", text: self.token.clone(), allowed: &["table tickets"] },
            Canary { what: "payload", text: self.payload.clone(), allowed: LETTERS },
            Canary { what: "header", text: self.header.clone(), allowed: LETTERS },
        ]
    }
}

/// Returns what and where, for every canary that stands where it may not.
fn leaks(places: &Places, canaries: &[Canary]) -> Vec<String> {
    let mut leaks = Vec::new();
    for (place, text) in places {
        for canary in canaries.iter().filter(|canary| !canary.allowed.contains(&place.as_str())) {
            if let Some(at) = text.find(&canary.text) {
                let start = (0..=at.saturating_sub(160)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                leaks.push(format!("{} in {place}: {}", canary.what, &text[start..at]));
            }
        }
    }
    leaks
}

/// A user of RabbitMQ and a role of PostgreSQL with canaries for passwords, removed at the end.
struct Accounts {
    name: String,
    amqp_url: String,
    rig_database: String,
}

impl Accounts {
    async fn make(rig: &Rig, canaries: &Canaries) -> Accounts {
        let name = rig.prefix.clone();
        let user = json!({"password": canaries.amqp_password, "tags": "management"});
        manage("PUT", &format!("users/{name}"), user).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        manage("PUT", &format!("permissions/%2f/{name}"), all).await;
        let rig_database = database_url().unwrap();
        let mut connection = PgConnection::connect(&rig_database).await.unwrap();
        let role = format!(r#"CREATE ROLE "{name}" SUPERUSER LOGIN PASSWORD '{}'"#, canaries.database_password);
        connection.execute(raw_sql(AssertSqlSafe(role))).await.unwrap();
        let amqp_url = with_credentials(&rig.amqp_url, &name, &canaries.amqp_password);
        Accounts { name, amqp_url, rig_database }
    }

    async fn remove(self) {
        manage("DELETE", &format!("users/{}", self.name), Value::Null).await;
        let mut connection = PgConnection::connect(&self.rig_database).await.unwrap();
        let drop = format!(r#"DROP ROLE "{}""#, self.name);
        connection.execute(raw_sql(AssertSqlSafe(drop))).await.unwrap();
    }
}

fn with_credentials(url: &str, user: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some(password)).unwrap();
    url.to_string()
}

/// Publishes `event` with a header that holds a canary.
async fn send(rig: &Rig, event: &Value, canaries: &Canaries) {
    let mut table = FieldTable::default();
    for name in ["authorization", "x-forwarded-authorization", "tracestate"] {
        table.insert(name.into(), AMQPValue::LongString(format!("Bearer {}", canaries.header).into()));
    }
    let to = Destination::Exchange { exchange: rig.topology.events(), routing_key: "e".into() };
    let properties = BasicProperties::default().with_headers(table);
    let body = match event.as_str() {
        Some(text) => text.to_owned(),
        None => event.to_string(),
    };
    rig.broker.publish(&to, Message { body: body.into(), properties }).await.unwrap();
}

/// Answers that quote everything the request held, as a proxy's error page or a careless provider would; requests to Ably
/// hold `key`.
fn quoting(rig: &Rig, key: &str, canaries: &Canaries) {
    rig.sandbox.control().clear_faults();
    let token = format!("ExponentPushToken[{}]", canaries.token);
    let basic = BASE64_STANDARD.encode(key);
    let to_ably = format!("Authorization: Basic {basic}, that is {key}, or [{basic}], and {token}");
    let to_expo = format!("Authorization: Bearer {ACCESS_TOKEN}, that is '{ACCESS_TOKEN}', for {token}");
    let ably = json!({"error": {"code": 40000, "statusCode": 400, "message": to_ably}}).to_string();
    let expo = json!({"errors": [{"code": token, "message": to_expo, "details": {"to": token}}]}).to_string();
    for (endpoint, session, status, body) in [
        (Endpoint::Publish, "quoted-json", 400, &ably),
        (Endpoint::Publish, "quoted-page", 503, &to_ably),
        (Endpoint::Presence, "quoted-presence", 400, &ably),
        (Endpoint::Send, "quoted-push", 400, &expo),
        (Endpoint::Send, "quoted-gateway", 502, &to_expo),
        (Endpoint::Send, "quoted-oauth", 400, &format!(r#"{{"error":"{token}","error_description":"{to_expo}"}}"#)),
    ] {
        let matching = Match { endpoint: Some(endpoint), contains: Some(session.to_owned()), ..Match::default() };
        let fault = Fault { status: Some(status), body: Some(body.clone()), ..Fault::new(Action::Status) };
        rig.sandbox.control().add_fault(Fault { matching, ..fault });
    }
}

/// Runs a command to its end and returns everything it printed.
async fn run(rig: &Rig, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::from(rig.command(arguments));
    let output = command.envs(variables.iter().copied()).kill_on_drop(true).output();
    let output = within(60, "the command ends", output).await.expect("it starts");
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Returns every row of every table of the ledger, with base64 decoded where it stands for text.
async fn tables(rig: &Rig, places: &mut Places) {
    let mut connection = PgConnection::connect(&database_url().unwrap()).await.unwrap();
    let schema = format!("{}_ledger", rig.prefix);
    let names = sqlx::query_scalar("SELECT table_name::text FROM information_schema.tables WHERE table_schema = $1");
    let names: Vec<String> = names.bind(&schema).fetch_all(&mut connection).await.unwrap();
    for table in names {
        let rows = format!(r#"SELECT to_json(t)::text FROM "{schema}"."{table}" AS t"#);
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut connection).await.unwrap();
        let bodies = rows.iter().filter_map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            String::from_utf8(BASE64_STANDARD.decode(row["body"].as_str()?).ok()?).ok()
        });
        let text: String = rows.iter().cloned().chain(bodies).map(|row| row + "\n").collect();
        places.insert(format!("table {table}"), text);
    }
}

async fn page(rig: &Rig, worker: usize, path: &str, token: &str) -> String {
    let request = reqwest::Client::new().get(format!("{}{path}", rig.http(worker)));
    request.header("authorization", format!("Bearer {token}")).send().await.unwrap().text().await.unwrap()
}

/// Tells whether each event was decided about, and the unreadable ones are dead letters.
async fn every_one(rig: &Rig, ids: &[String]) -> bool {
    for id in ids {
        let entry = rig.entry(id).await;
        if entry.is_none_or(|entry| entry.state == State::Waiting && entry.reason.is_none()) {
            return false;
        }
    }
    rig.letters().await.len() >= 8
}

/// Everything that the page shows, or its API says, of what is there.
async fn told_by_the_page(rig: &Rig, worker: usize, ids: &[String], canaries: &Canaries, places: &mut Places) {
    let token = &canaries.http_token;
    for path in ["/", "/api/status", "/api/history", "/api/dead", "/api/actions", "/api/dead/letters?limit=100"] {
        places.insert(format!("page {path}"), page(rig, worker, path, token).await);
    }
    let mut told = String::new();
    for id in ids {
        told.push_str(&page(rig, worker, &format!("/api/events/{id}"), token).await);
    }
    for question in ["user=user-", "session=absent", "session=quoted-json"] {
        told.push_str(&page(rig, worker, &format!("/api/events?{question}"), token).await);
    }
    places.insert("page /api/events".into(), told);
    let mut shown = String::new();
    for letter in rig.letters().await {
        shown.push_str(&page(rig, worker, &format!("/api/dead/letters/{}", letter.number), token).await);
    }
    places.insert("page, one letter".into(), shown);
    // What is refused must not be quoted either.
    let order = json!({ "what": canaries.payload, "why": format!("Bearer {}", canaries.header) });
    let request = reqwest::Client::new().post(format!("{}/api/steer", rig.http(worker)));
    let request = request.header("authorization", format!("Bearer {token}")).header("x-herald-request", "test");
    let answer = request.header("content-type", "application/json").body(order.to_string()).send().await.unwrap();
    places.insert("page, refused".into(), answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_are_found_only_where_they_may_be() {
    let Some(mut rig) = Rig::new("canary").await else { return };
    let canaries = Canaries::new();
    let accounts = Accounts::make(&rig, &canaries).await;
    let credential = |secret: &str, standing| Credential {
        secret: secret.to_owned(),
        capability: BTreeMap::from([("*".to_owned(), vec!["*".to_owned()])]),
        standing,
    };
    rig.sandbox.control().add_credential(credential(&canaries.ably_key, Standing::Good));
    rig.sandbox.control().add_credential(credential(&canaries.wrong_ably_key, Standing::Revoked));
    quoting(&rig, &canaries.ably_key, &canaries);

    // One user per fate of a push; the canary stands in every token.
    let fates = ["", "unregistered-", "invalid-credentials-", "unknown-error-", "no-details-", "project-b-"];
    let token = |fate: &str| format!("ExponentPushToken[{fate}{}]", canaries.token);
    rig.add_users(fates.map(|fate| (format!("user-{fate}"), Some(token(fate))))).await;
    rig.add_users([("user-foreign".to_owned(), Some(format!("fcm:{}", canaries.token)))]).await;

    let database = |url: &str| with_credentials(url, &accounts.name, &canaries.database_password);
    let (store, users) = (database(&rig.store_url), database(&rig.users_url));
    let management = with_credentials(&management_url(), &accounts.name, &canaries.amqp_password);
    let collector = Collector::start().await;
    let otlp = with_credentials(&collector.url, "user", &canaries.url);
    let otlp_headers = format!("x-key={}", canaries.otlp_header);
    let variables = [
        ("AMQP_URL", accounts.amqp_url.as_str()),
        ("HERALD_STORE__URL", &store),
        ("DATABASE_URL", &users),
        ("HERALD_BROKER__MANAGEMENT_URL", &management),
        ("ABLY_API_KEY", &canaries.ably_key),
        ("EXPO_ACCESS_TOKEN", ACCESS_TOKEN),
        ("HERALD_HTTP__TOKEN", &canaries.http_token),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp),
        ("OTEL_EXPORTER_OTLP_HEADERS", &otlp_headers),
        ("HERALD_ABLY__TIMEOUT", "1s"),
        ("HERALD_EXPO__TIMEOUT", "1s"),
        ("HERALD_RETRY__SCHEDULE", r#"["200ms"]"#),
        ("HERALD_LOG__LEVEL", "trace"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&variables[..], more].concat();
    let text = rig.start_with(&with(&[])).await;
    let mut places = Places::new();

    // Success both ways, every failure kind, dead letters. The event's id is planted on purpose.
    let planted = unique("planted");
    rig.enter("present", "user-");
    let secretive = |id: &str, session: &str, user: &str| {
        let mut event = event(id, "partner.advanced", session, user);
        event["data"] = json!({"note": canaries.payload});
        event
    };
    let nobody = |id: &str, session: &str| {
        let mut event = secretive(id, session, "");
        event.as_object_mut().unwrap().remove("partnerId");
        event
    };
    let mut ids = Vec::new();
    let sessions = [
        "present",
        "absent",
        "fault-publish-500",
        "fault-presence-429",
        "fault-denied",
        "fault-throttled",
        "fault-rejected",
        "fault-lost",
        "fault-reset-after",
        "fault-garbage",
        "fault-short",
        "fault-push-502",
        "fault-push-garbage",
        "fault-push-429",
        "quoted-json",
        "quoted-page",
        "quoted-presence",
        "quoted-push",
        "quoted-gateway",
        "quoted-oauth",
    ];
    for (number, session) in sessions.into_iter().enumerate() {
        let id = format!("{planted}-session-{number}");
        let event = match session {
            "present" | "absent" | "fault-presence-429" | "quoted-presence" | "quoted-gateway" | "quoted-oauth" => {
                secretive(&id, session, "user-")
            }
            _ if session.contains("push") => secretive(&id, session, "user-"),
            _ => nobody(&id, session),
        };
        send(&rig, &event, &canaries).await;
        ids.push(id);
    }
    for user in fates.map(|fate| format!("user-{fate}")).into_iter().chain(["user-foreign".to_owned()]) {
        let id = format!("{planted}-{user}");
        send(&rig, &secretive(&id, "absent", &user), &canaries).await;
        ids.push(id);
    }
    for unreadable in [
        json!({"id": format!("{planted}-time"), "sessionId": "s", "event": "e", "expiresAt": format!("Bearer {}", canaries.payload)}),
        json!({"id": format!("{planted}-data"), "sessionId": "s", "event": "e", "data": canaries.payload}),
        json!({"id": format!("{planted}-type"), "sessionId": {"k": canaries.payload}, "event": "e"}),
        Value::from(format!(r#"{{"id":"x","data":{{"note":"{}"#, canaries.payload)),
        Value::from(canaries.payload.clone()),
    ] {
        send(&rig, &unreadable, &canaries).await;
    }
    // Breakers, holds and throttles may keep some waiting: what counts is that each was handled.
    let handled = async {
        while !every_one(&rig, &ids).await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    within(120, "every event was handled", handled).await;
    places.insert("readyz".into(), page(&rig, text, "/readyz", &canaries.http_token).await);
    places.insert("metrics".into(), page(&rig, text, "/metrics", &canaries.http_token).await);
    told_by_the_page(&rig, text, &ids, &canaries, &mut places).await;
    assert_eq!(rig.terminate(text).await, Some(0));
    places.insert("log".into(), rig.log(text));
    // The same once more as JSON, with refused credentials and nobody who takes traces.
    let json_log = with(&[("HERALD_LOG__FORMAT", "json")]);
    let otlp_away = with_credentials("http://127.0.0.1:9", "user", &canaries.url);
    let other = |key, value| match key {
        "ABLY_API_KEY" => canaries.wrong_ably_key.as_str(),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => otlp_away.as_str(),
        _ => value,
    };
    let json_log: Vec<_> = json_log.into_iter().map(|(key, value)| (key, other(key, value))).collect();
    quoting(&rig, &canaries.wrong_ably_key, &canaries);
    let worker = rig.start_with(&json_log).await;
    // Before the refusal: nothing is asked of Ably after it. What the first worker left may be quoted as well.
    let quoted = format!("{planted}-quoted");
    send(&rig, &nobody(&quoted, "quoted-page"), &canaries).await;
    eventually("an answer quotes the other key", async || rig.entry(&quoted).await?.reason).await;
    ids.push(quoted);
    send(&rig, &secretive(&format!("{planted}-revoked"), "absent", "user-"), &canaries).await;
    send(&rig, &nobody(&format!("{planted}-held"), "revoked"), &canaries).await;
    eventually("refused credentials hold", async || {
        let entry = rig.entry(&format!("{planted}-held")).await?;
        entry.reason.as_deref().is_some_and(|reason| reason.starts_with("held")).then_some(())
    })
    .await;
    places.insert("metrics, refused".into(), page(&rig, worker, "/metrics", "x").await);
    assert_eq!(rig.terminate(worker).await, Some(0));
    places.insert("log as JSON".into(), rig.log(worker));
    places.insert("traces".into(), format!("{:?}", collector.spans()));
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("user:{}", canaries.url)));
    let told =
        |headers: &http::HeaderMap| headers["x-key"] == canaries.otlp_header && headers["authorization"] == basic;
    assert!(collector.headers().iter().all(told), "the receiver gets what is meant for it");

    // Credentials that are wrong from the start: one line each, and every command's own words.
    let wrong_amqp = with_credentials(&rig.amqp_url, &accounts.name, &canaries.wrong_password);
    let odd_amqp = format!("amqp://user:{}@host:port/", canaries.wrong_password);
    let odd_store = format!("postgres://user:{}@127.0.0.1:1/x?sslmode=no-such", canaries.wrong_password);
    let away_store = format!("postgres://user:{}@127.0.0.1:1/x", canaries.wrong_password);
    let in_ably = format!("http://user:{}@127.0.0.1:1", canaries.url);
    let odd_key = format!("{} x", canaries.wrong_password);
    for (number, (key, value)) in [
        ("AMQP_URL", wrong_amqp.as_str()),
        ("AMQP_URL", &odd_amqp),
        ("HERALD_STORE__URL", &odd_store),
        ("DATABASE_URL", &odd_store),
        ("HERALD_ABLY__URL", &in_ably),
        ("HERALD_EXPO__URL", &in_ably),
        ("ABLY_API_KEY", &odd_key),
        ("EXPO_ACCESS_TOKEN", &odd_key),
        ("HERALD_HTTP__TOKEN", &odd_key),
        ("HERALD_BROKER__MANAGEMENT_URL", &wrong_amqp),
    ]
    .into_iter()
    .enumerate()
    {
        let variables: Vec<_> = variables.iter().map(|(k, v)| if *k == key { (*k, value) } else { (*k, *v) }).collect();
        let variables = [variables, vec![(key, value)]].concat();
        places.insert(format!("run with a wrong {key} {number}"), run(&rig, &["run"], &variables).await);
        places.insert(format!("check with a wrong {key} {number}"), run(&rig, &["check"], &variables).await);
    }
    let away: Vec<_> = variables
        .iter()
        .map(|(k, v)| if k.ends_with("STORE__URL") { (*k, away_store.as_str()) } else { (*k, *v) })
        .collect();
    for command in [&["check"][..], &["status"], &["explain", "x"]] {
        places.insert(format!("{command:?} with the store away"), run(&rig, command, &away).await);
    }
    places.insert(
        "usage".into(),
        run(&rig, &["run", "--set", &format!("http.tokken={}", canaries.http_token)], &variables).await,
    );

    // An operator may paste anything.
    let why = format!("ExponentPushToken[{}] at {wrong_amqp}", canaries.token);
    for (place, command) in [
        ("status", &["status"][..]),
        ("status as JSON", &["status", "--json"]),
        ("check", &["check"]),
        ("check as JSON", &["check", "--json"]),
        ("dead list", &["dead", "list"]),
        ("dead list as JSON", &["dead", "list", "--json"]),
        ("explain", &["explain", "--session", "absent"]),
        ("explain as JSON", &["explain", "--session", "absent", "--json"]),
        ("explain a user", &["explain", "--user", "user-"]),
        ("test push", &["users", "test-push", "user-", "--wait", "0s"]),
        ("pause", &["pause", "--reason", why.as_str()]),
        ("actions", &["actions"]),
        ("actions as JSON", &["actions", "--json"]),
    ] {
        places.insert(place.into(), run(&rig, command, &variables).await);
    }
    for id in &ids {
        let told = run(&rig, &["explain", id], &variables).await;
        places.entry("explain each".into()).or_default().push_str(&told);
    }
    let mut shown = String::new();
    for letter in rig.letters().await {
        shown.push_str(&run(&rig, &["dead", "show", &letter.number.to_string()], &variables).await);
    }
    places.insert("dead show".into(), shown);
    tables(&rig, &mut places).await;
    let mut walk = rig.broker.walk(&rig.topology.dead()).await.unwrap();
    let (mut queue, mut marks) = (String::new(), String::new());
    while let Some(delivery) = walk.next().await.unwrap() {
        let headers = headers_json(&delivery.message);
        queue.push_str(&format!("{headers} {}\n", String::from_utf8_lossy(&delivery.message.body)));
        let own = headers.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("herald-"));
        own.for_each(|(name, value)| marks.push_str(&format!("{name}: {value}\n")));
    }
    walk.close().await;
    places.insert("letters in the queue".into(), queue);
    places.insert("herald's headers on letters".into(), marks);

    // The sweep sees what is there: the planted id in every place that names events, and words every other place has.
    for (place, word) in [
        ("log", planted.as_str()),
        ("log as JSON", &planted),
        ("log as JSON", "otlp.endpoint does not take the traces"),
        ("explain", &planted),
        ("explain as JSON", &planted),
        ("explain a user", &planted),
        ("explain each", &planted),
        ("dead list", &planted),
        ("dead list as JSON", &planted),
        ("pause", "PAUSED by "),
        ("actions", "[push token]"),
        ("actions as JSON", "[push token]"),
        ("table steering", "[push token]"),
        ("dead show", &planted),
        ("traces", &planted),
        ("table events", &planted),
        ("table dead_letters", &planted),
        ("letters in the queue", &planted),
        ("herald's headers on letters", &planted),
        ("table tickets", &canaries.token),
        ("table dead_letters", &canaries.payload),
        ("table dead_letters", &canaries.header),
        ("dead show", &canaries.payload),
        ("letters in the queue", &canaries.header),
        ("page /api/events", &planted),
        ("page /api/events", &canaries.token[canaries.token.len() - 4..]),
        ("page /api/dead/letters?limit=100", &planted),
        ("page, one letter", &planted),
        ("page, one letter", "data.note"),
        ("page, one letter", "authorization"),
        ("page /api/dead", "rejected"),
        ("page /api/status", "connections"),
        ("page, refused", "do"),
        ("readyz", "ready"),
        ("metrics", "messaging_client_consumed_messages_total"),
        ("metrics, refused", "messaging_client_consumed_messages_total"),
        ("status", &rig.prefix),
        ("check", "ably"),
        ("log", "DEBUG"),
        ("explain each", &canaries.token[canaries.token.len() - 4..]),
    ] {
        assert!(places[place].contains(word), "the sweep does not see {word} in {place}: {:.2000}", places[place]);
    }
    let mut with_leak = places.clone();
    with_leak.entry("log".into()).or_default().push_str(&canaries.amqp_password);
    assert!(leaks(&with_leak, &canaries.all()).iter().any(|leak| leak.starts_with("AMQP password in log")));

    accounts.remove().await;
    let leaks = leaks(&places, &canaries.all());
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    rig.end().await;
}
