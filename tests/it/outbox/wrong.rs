//! What somebody must change first: exit code 78 and one line that says what to do.

use std::process::Output;

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::{relay, table};
use crate::{
    rig::Rig,
    support::{user_of, with_password},
};

/// Runs `herald outbox` until it ends by itself.
fn outbox(rig: &Rig, variables: &[(&str, &str)]) -> Output {
    tokio::task::block_in_place(|| rig.command(&["outbox"]).envs(variables.iter().copied()).output().expect("herald"))
}

#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}");
    let line = told.lines().rfind(|line| line.starts_with("herald: ")).unwrap_or_else(|| panic!("no line in {told}"));
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_the_way_to_mend_it() {
    let Some(mut rig) = Rig::new("obwrong").await else { return };
    let make = "there is no table \"";
    refused(&outbox(&rig, &[]), 78, &["outbox.table: ", make, "herald_outbox.sql", "herald outbox --print sql"]);
    let mut backend = table(&rig).await;
    refused(&outbox(&rig, &[("HERALD_OUTBOX__TABLE", "elsewhere.events")]), 78, &["no table \"elsewhere\".\"events\""]);
    refused(&outbox(&rig, &[("HERALD_OUTBOX__TABLE", "a.b.c")]), 78, &["outbox.table (HERALD_OUTBOX__TABLE): must be"]);
    refused(&outbox(&rig, &[("HERALD_OUTBOX__BATCH", "0")]), 78, &["outbox.batch", "from 1 to 1000"]);
    refused(&outbox(&rig, &[("HERALD_OUTBOX__URL", "sqlite://app.db")]), 78, &["outbox.url", "postgres://"]);
    refused(&outbox(&rig, &[("DATABASE_URL", "none")]), 78, &["outbox.url (HERALD_OUTBOX__URL): not set"]);
    refused(
        &outbox(&rig, &[("DATABASE_URL", "sqlite://app.db")]),
        78,
        &["users.url", "needs PostgreSQL", "outbox.url"],
    );
    let wrong = with_password(&rig.users_url, "hunter2");
    let output = outbox(&rig, &[("HERALD_OUTBOX__URL", &wrong)]);
    refused(&output, 78, &["outbox.url: ", "refuses the credentials"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    refused(&outbox(&rig, &[("DATABASE_URL", &wrong)]), 78, &["users.url: ", "refuses the credentials"]);
    let wrong = with_password(&rig.amqp_url, "hunter2");
    refused(&outbox(&rig, &[("AMQP_URL", &wrong)]), 78, &["broker.url (AMQP_URL)"]);
    backend.execute("ALTER TABLE herald_outbox RENAME COLUMN partner_id TO partner").await.unwrap();
    refused(&outbox(&rig, &[]), 78, &["partner_id", "herald_outbox.sql"]);
    backend.execute("ALTER TABLE herald_outbox RENAME COLUMN partner TO partner_id").await.unwrap();

    // A role that may only read.
    let role = rig.prefix.clone();
    let schema = rig.named("APP");
    let make = format!(
        "CREATE ROLE \"{role}\" LOGIN PASSWORD 'reader'; GRANT USAGE ON SCHEMA {schema} TO \"{role}\"; \
         GRANT SELECT ON herald_outbox TO \"{role}\""
    );
    backend.execute(sqlx::raw_sql(AssertSqlSafe(make))).await.unwrap();
    let reader = rig.users_url.replace(&format!("//{}:", user_of(&rig.users_url)), &format!("//{role}:"));
    let reader = with_password(&reader, "reader");
    refused(
        &outbox(&rig, &[("HERALD_OUTBOX__URL", &reader)]),
        78,
        &["may not SELECT, UPDATE and DELETE", "outbox.url"],
    );
    let drop = format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"");
    backend.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await.unwrap();

    // And while it runs.
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__POLL", "100ms")]).await;
    backend.execute("DROP TABLE herald_outbox").await.unwrap();
    assert_eq!(rig.until_ended(number).await, Some(78), "{}", rig.log(number));
    assert!(rig.log(number).contains("herald: outbox.table: relation"), "{}", rig.log(number));
    backend.close().await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_needs_is_printed_and_may_be_run_twice() {
    let Some(rig) = Rig::new("obprint").await else { return };
    let print = |what: &str| {
        let output =
            tokio::task::block_in_place(|| rig.command(&["outbox", "--print", what]).output().expect("herald"));
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let sql = print("sql");
    assert_eq!(sql.trim(), super::TABLE.trim());
    let mut backend = super::app(&rig).await;
    for _ in 0..2 {
        backend.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await.expect("the SQL");
    }
    assert!(print("prisma").contains("@@map(\"herald_outbox\")"));
    rig.end().await;
}
