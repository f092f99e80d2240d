//! The outbox: rows of a real PostgreSQL through `herald outbox` to a real RabbitMQ, and through a whole herald to the sandbox.

mod order;
mod outages;
mod prisma;
mod wrong;

use herald::{broker::headers_json, domain::ledger::State};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{commands::drain, rig::Rig, support::eventually};

/// What a backend runs as a migration.
const TABLE: &str = include_str!("../../config/outbox/herald_outbox.sql");

/// Makes the table in the app's schema and returns a connection that finds it.
async fn table(rig: &Rig) -> PgConnection {
    let mut connection = app(rig).await;
    connection.execute(sqlx::raw_sql(TABLE)).await.expect("the table");
    connection
}

/// Returns a connection of the backend's.
async fn app(rig: &Rig) -> PgConnection {
    let mut connection = rig.database().await;
    let path = rig.named("SET search_path TO APP");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.expect("search path");
    connection
}

/// Lets no relay delete what it has published, until the connection returned is closed.
async fn hold_settling(rig: &Rig) -> PgConnection {
    let mut connection = app(rig).await;
    let hold = "CREATE FUNCTION hold_settling() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(hashtextextended(TG_TABLE_SCHEMA, 7)); RETURN NULL; END $$;
        CREATE TRIGGER hold_settling BEFORE DELETE ON herald_outbox FOR EACH STATEMENT EXECUTE FUNCTION hold_settling();
        SELECT pg_advisory_lock(hashtextextended(current_schema(), 7))";
    connection.execute(sqlx::raw_sql(hold)).await.expect("the lock");
    connection
}

/// Writes rows in one transaction: id, session.
async fn write(connection: &mut PgConnection, rows: &[(String, String)]) {
    let (ids, sessions): (Vec<&str>, Vec<&str>) = rows.iter().map(|(id, s)| (id.as_str(), s.as_str())).unzip();
    let insert = "INSERT INTO herald_outbox (id, session_id, event)
        SELECT id, session, 'partner.advanced' FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r (id, session, n)
        ORDER BY n";
    sqlx::query(insert).bind(ids).bind(sessions).execute(connection).await.expect("rows");
}

/// Returns how many rows are in the table, waiting, and marked as bad.
async fn rows(connection: &mut PgConnection) -> (i64, i64, i64) {
    let count = "SELECT count(*), count(*) FILTER (WHERE published_at IS NULL AND failed_at IS NULL),
        count(*) FILTER (WHERE failed_at IS NOT NULL) FROM herald_outbox";
    sqlx::query_as(count).fetch_one(connection).await.expect("count")
}

/// Waits until no row waits.
async fn all_relayed(connection: &mut PgConnection) {
    eventually("no row waits", async || (rows(connection).await.1 == 0).then_some(())).await;
}

/// Starts a relay with a name of its own and waits until it is ready.
async fn relay(rig: &mut Rig, instance: &str, variables: &[(&str, &str)]) -> usize {
    let number = rig.spawn("outbox", instance, variables);
    rig.until_ready(number).await;
    number
}

fn id_of(delivery: &herald::broker::Delivery) -> String {
    let body: Value = serde_json::from_slice(&delivery.message.body).expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

/// Polls so rarely that only a notification can be what woke the relay.
const NO_POLL: (&str, &str) = ("HERALD_OUTBOX__POLL", "1h");

#[tokio::test(flavor = "multi_thread")]
async fn a_row_becomes_the_message_of_the_contract_once_its_transaction_has_committed() {
    let Some(mut rig) = Rig::new("obrow").await else { return };
    let mut backend = table(&rig).await;
    let number = relay(&mut rig, "relay", &[]).await;
    let full = "INSERT INTO herald_outbox
        (id, session_id, event, partner_id, exclude_user_id, data, occurred_at, expires_at, traceparent) VALUES
        ('full', 's1', 'partner.advanced', 'u2', 'u1', '{\"toStage\": 3}', '2026-01-31 12:00:00.5+00', '2036-01-31 14:00:00+02',
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')";
    backend
        .execute("BEGIN; INSERT INTO herald_outbox (id, session_id, event) VALUES ('rolled back', 's1', 'x')")
        .await
        .unwrap();
    backend.execute("ROLLBACK").await.unwrap();
    backend.execute("BEGIN").await.unwrap();
    backend.execute(full).await.unwrap();
    backend.execute("INSERT INTO herald_outbox (session_id, event) VALUES ('s1', 'session.paused')").await.unwrap();
    backend.execute("COMMIT").await.unwrap();
    all_relayed(&mut backend).await;
    assert_eq!(rows(&mut backend).await.0, 0, "relayed rows are gone");
    let events = drain(&rig, &rig.topology.events()).await;
    let [first, second] = events.as_slice() else { panic!("{events:?}") };
    let expected = json!({"id": "full", "sessionId": "s1", "event": "partner.advanced", "partnerId": "u2",
        "excludeUserId": "u1", "data": {"toStage": 3}, "occurredAt": "2026-01-31T12:00:00.5Z",
        "expiresAt": "2036-01-31T12:00:00Z"});
    assert_eq!(serde_json::from_slice::<Value>(&first.message.body).unwrap(), expected);
    assert_eq!(
        (first.exchange.as_str(), first.routing_key.as_str()),
        (rig.topology.events().as_str(), "partner.advanced")
    );
    let properties = &first.message.properties;
    assert_eq!((*properties.delivery_mode(), properties.timestamp().is_some()), (Some(2), true));
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("full"));
    assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
    assert_eq!(headers_json(&first.message)["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let second: Value = serde_json::from_slice(&second.message.body).unwrap();
    assert!(uuid::Uuid::parse_str(second["id"].as_str().unwrap()).is_ok(), "the database made the id: {second}");
    assert!(second["occurredAt"].is_string() && second["data"] == json!({}), "{second}");
    assert_eq!(rig.counter("herald_outbox_relayed_total").await, 2);
    assert_eq!(rig.terminate(number).await, Some(0), "{}", rig.log(number));
    rig.end().await;
}

#[tokio::test]
async fn an_event_goes_from_the_backends_transaction_to_the_phone_and_the_channel() {
    let Some(mut rig) = Rig::new("obwhole").await else { return };
    let mut backend = table(&rig).await;
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into())), ("bob".into(), None)]).await;
    rig.enter("s2", "bob");
    rig.start().await;
    relay(&mut rig, "relay", &[NO_POLL]).await;
    // The app's own change and the event, together or not at all.
    let both = "BEGIN; UPDATE \"User\" SET \"updatedAt\" = now() WHERE id = 'ada';
        INSERT INTO herald_outbox (id, session_id, event, partner_id) VALUES ('push', 's1', 'partner.advanced', 'ada'),
            ('both', 's1', 'partner.advanced', 'ada'), ('both', 's2', 'partner.advanced', 'bob'); COMMIT";
    backend.execute(both).await.unwrap();
    rig.until("push", State::Done).await;
    eventually("one id reached both partners", async || (rig.effects().get("both") == Some(&(1, 1))).then_some(()))
        .await;
    assert_eq!(rig.effects()["push"], (0, 1));
    rig.end().await;
}

#[tokio::test]
async fn a_notification_wakes_the_relay_and_without_one_the_poll_does() {
    let Some(mut rig) = Rig::new("obwake").await else { return };
    let mut backend = table(&rig).await;
    let patient = relay(&mut rig, "patient", &[NO_POLL]).await;
    write(&mut backend, &[("notified".into(), "s1".into())]).await;
    all_relayed(&mut backend).await;
    assert_eq!(rig.counter("herald_outbox_notifications_total").await, 1);
    assert_eq!(rig.terminate(patient).await, Some(0));

    backend.execute("DROP TRIGGER herald_outbox_notify ON herald_outbox").await.unwrap();
    let polling = relay(&mut rig, "polling", &[("HERALD_OUTBOX__POLL", "100ms")]).await;
    write(&mut backend, &[("polled".into(), "s1".into())]).await;
    all_relayed(&mut backend).await;
    assert_eq!(rig.counter("herald_outbox_notifications_total").await, 0, "the relay that was notified has ended");
    assert!(rig.log(polling).contains("has no trigger herald_outbox_notify"), "{}", rig.log(polling));
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    assert_eq!(ids, ["notified", "polled"]);
    rig.end().await;
}

#[tokio::test]
async fn published_rows_stay_for_their_retention_and_go_after_it() {
    let Some(mut rig) = Rig::new("obkeep").await else { return };
    let mut backend = table(&rig).await;
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__RETENTION", "1h")]).await;
    write(&mut backend, &[("kept".into(), "s1".into()), ("old".into(), "s1".into())]).await;
    all_relayed(&mut backend).await;
    assert_eq!(rows(&mut backend).await, (2, 0, 0), "marked, not deleted");
    assert_eq!(rig.terminate(number).await, Some(0));
    backend
        .execute("UPDATE herald_outbox SET published_at = published_at - interval '61 min' WHERE id = 'old'")
        .await
        .unwrap();
    // A bad row is kept until somebody has looked at it.
    backend.execute("INSERT INTO herald_outbox (session_id, event) VALUES ('', 'x')").await.unwrap();
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__RETENTION", "1h")]).await;
    eventually("the old one is deleted", async || (rows(&mut backend).await == (2, 0, 1)).then_some(())).await;
    assert_eq!(rig.terminate(number).await, Some(0));
    let left: Vec<String> = sqlx::query_scalar("SELECT id FROM herald_outbox WHERE failed_at IS NULL")
        .fetch_all(&mut backend)
        .await
        .unwrap();
    assert_eq!(left, ["kept"]);
    relay(&mut rig, "relay", &[]).await;
    eventually("without a retention none stays", async || (rows(&mut backend).await == (1, 0, 1)).then_some(())).await;
    assert_eq!(drain(&rig, &rig.topology.events()).await.len(), 2, "none was published twice");
    rig.end().await;
}

#[tokio::test]
async fn killed_between_confirm_and_delete_a_row_is_published_again_and_the_ledger_suppresses_it() {
    let Some(mut rig) = Rig::new("obkill").await else { return };
    let mut backend = table(&rig).await;
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    let worker = rig.start().await;
    let insert = "INSERT INTO herald_outbox (id, session_id, event, partner_id)
        SELECT 'e' || n, 's1', 'partner.advanced', 'ada' FROM generate_series(1, 3) AS n";
    backend.execute(insert).await.unwrap();
    let held = hold_settling(&rig).await;
    let number = rig.spawn("outbox", "relay", &[]);
    for id in ["e1", "e2", "e3"] {
        rig.until(id, State::Done).await;
    }
    rig.kill(number);
    held.close().await.unwrap();
    assert_eq!(rows(&mut backend).await, (3, 3, 0), "published, and still there");
    relay(&mut rig, "relay", &[]).await;
    all_relayed(&mut backend).await;
    eventually("the repeats have come", async || (rig.counter("herald_repeats_total").await == 3).then_some(())).await;
    eventually("the queue is empty", async || (rig.ready_messages(&rig.topology.events()).await == 0).then_some(()))
        .await;
    let effects = rig.effects();
    assert!(effects.len() == 3 && effects.values().all(|seen| *seen == (0, 1)), "each was pushed once: {effects:?}");
    assert!(rig.books().await.closed(), "{}", rig.log(worker));
    backend.close().await.unwrap();
    rig.end().await;
}
