//! Databases that are away, wrong or refused: which error it is, that it is one clear line, and that nothing is answered wrongly.

use std::sync::Arc;

use herald::store::{Find, Store, StoreError, users::Users};
use secrecy::SecretString;
use sqlx::{Connection, Executor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Place, claim, entry, granted, record};
use crate::{servers::Postgres, support};

/// Passes connections on to PostgreSQL, until it is cut; while cut, newcomers are hung up on.
struct Relay {
    url: String,
    cut: Arc<watch::Sender<bool>>,
}

impl Relay {
    async fn to(url: &str) -> Relay {
        let mut url = url::Url::parse(url).unwrap();
        let behind = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let cut = Arc::new(watch::Sender::new(false));
        let told = cut.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut told, behind) = (told.subscribe(), behind.clone());
                tokio::spawn(async move {
                    if *told.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(behind).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = told.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Relay { url: url.to_string(), cut }
    }
}

fn config(refused: Result<impl Sized, StoreError>) -> String {
    match refused {
        Err(StoreError::Config(message)) => {
            assert!(!message.contains('\n') && message.len() < 500, "{message}");
            message
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[tokio::test]
async fn a_database_away_is_unavailable_and_back_it_goes_on() {
    let Some(place) = Place::postgres().await else { return };
    place
        .execute(
            r#"CREATE TABLE "User" ("id" TEXT PRIMARY KEY, "pushToken" TEXT); INSERT INTO "User" VALUES ('u1', 't1')"#,
        )
        .await;
    let relay = Relay::to(&place.url).await;
    let store = Store::open(&relay.url, "a").await.unwrap();
    let users = Users::open(&SecretString::from(relay.url.as_str()), "", "").await.unwrap();
    granted(store.claim(claim("i1")).await.unwrap());

    relay.cut.send_replace(true);
    let (claimed, recorded, beat, found) = tokio::join!(
        store.claim(claim("i2")),
        store.record(record(entry("i1"))),
        store.heartbeat(),
        users.look_up("u1"),
    );
    for error in [claimed.err(), recorded.err(), beat.err(), found.err()] {
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
    }
    let opened = Store::open(&relay.url, "a").await;
    assert!(matches!(opened.err(), Some(StoreError::Unavailable(_))));

    relay.cut.send_replace(false);
    let back = support::eventually("the store is back", async || store.heartbeat().await.ok()).await;
    assert_eq!(back, 1);
    store.record(record(entry("i1"))).await.unwrap();
    assert!(granted(store.claim(claim("i2")).await.unwrap()).1);
    assert_eq!(users.look_up("u1").await.unwrap().tokens, ["t1"]);
    place.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_outlives_the_crash_of_a_database_that_does_not_wait_for_its_log() {
    let Some(server) = Postgres::start() else { return };
    let mut connection = sqlx::PgConnection::connect(&server.url).await.unwrap();
    for setting in ["synchronous_commit = off", "wal_writer_delay = '10s'"] {
        let alter = format!("ALTER SYSTEM SET {setting}");
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(alter))).await.unwrap();
    }
    drop(connection);
    server.run("restart");
    let store = Store::open(&server.url, "a").await.unwrap();
    granted(store.claim(claim("i1")).await.unwrap());
    store.record(record(entry("i1"))).await.unwrap();
    server.run("kill");
    server.run("start");
    let back = Store::open(&server.url, "a").await.unwrap();
    let rows = back.find(&Find::Id("event of i1".into()), 10).await.unwrap();
    assert_eq!(rows, [entry("i1")]);
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let url = "postgres://u:secret@127.0.0.1:1/app";
    let store = Store::open(url, "a").await.err();
    assert!(matches!(&store, Some(StoreError::Unavailable(message)) if !message.contains("secret")), "{store:?}");
    let users = Users::open(&SecretString::from(url), "", "").await.err();
    assert!(matches!(users, Some(StoreError::Unavailable(_))), "{users:?}");
}

#[tokio::test]
async fn a_missing_database_or_role_says_which_key_to_change() {
    let Some(base) = support::database_url() else { return };
    let mut url = url::Url::parse(&base).unwrap();
    url.set_password(Some("secret")).unwrap();
    url.set_path("no_such_database");
    let message = config(Store::open(url.as_str(), "a").await);
    assert!(message.starts_with("store.url: ") && message.contains("no_such_database"), "{message}");
    let message = config(Users::open(&SecretString::from(url.as_str()), "", "").await);
    assert!(message.starts_with("users.url: ") && message.contains("no_such_database"), "{message}");

    let mut url = url::Url::parse(&base).unwrap();
    url.set_username("no_such_role").unwrap();
    url.set_password(Some("secret")).unwrap();
    let message = config(Store::open(url.as_str(), "a").await);
    assert!(message.contains("no_such_role") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_sqlite_file_that_cannot_be_used_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let message = config(Store::open(&format!("sqlite://{path}/no/such/directory/herald.db"), "a").await);
    assert!(message.starts_with("store.url: ") && message.contains("no/such/directory"), "{message}");

    let absent = format!("sqlite://{path}/absent.db");
    let message = config(Users::open(&SecretString::from(absent.as_str()), "", "").await);
    assert!(message.starts_with("users.url: ") && message.contains("absent.db"), "{message}");
    assert!(!directory.path().join("absent.db").exists(), "the app's file is not ours to make");

    std::fs::write(directory.path().join("text.db"), "this is no database, whatever its name says. ".repeat(50))
        .unwrap();
    let message = config(Store::open(&format!("sqlite://{path}/text.db"), "a").await);
    assert!(message.contains("not a usable SQLite database"), "{message}");
}

#[tokio::test]
async fn a_locked_sqlite_file_is_unavailable_not_refused() {
    let place = Place::sqlite().await;
    let store = place.open("a").await;
    let other = sqlx::SqlitePool::connect(&place.url).await.unwrap();
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let beat = store.heartbeat().await;
    assert!(matches!(beat, Err(StoreError::Unavailable(_))), "{beat:?}");
    drop(lock);
    support::eventually("the lock is gone", async || store.heartbeat().await.ok()).await;
}

#[tokio::test]
async fn workers_that_start_together_migrate_once() {
    super::on_both(async |place| {
        let names: Vec<String> = (0..16).map(|n| format!("w{n}")).collect();
        let starts = names.iter().map(|name| Store::open(&place.url, name));
        for store in futures::future::join_all(starts).await {
            store.unwrap();
        }
        let applied = "SELECT count(*) - max(version) FROM _sqlx_migrations";
        assert_eq!(place.number(applied).await, 0, "each once, inside the schema");
    })
    .await;
}

#[tokio::test]
async fn a_ledger_of_a_newer_herald_is_left_alone() {
    super::on_both(async |place| {
        place.open("a").await;
        place.execute("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1").await;
        let message = config(Store::open(&place.url, "a").await);
        assert!(message.contains("newer herald"), "{message}");
    })
    .await;
}
