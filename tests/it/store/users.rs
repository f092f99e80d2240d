//! The app's users, in a table as Prisma makes it, on both databases.

use herald::store::{
    StoreError,
    users::{User, Users},
};
use secrecy::SecretString;

use super::{Place, on_both};

/// Prisma's table, and one of devices for several tokens per user.
const TABLES: &str = r#"
    CREATE TABLE "User" ("id" TEXT NOT NULL PRIMARY KEY, "email" TEXT NOT NULL, "pushToken" TEXT, "optedOut" BOOLEAN NOT NULL DEFAULT false);
    INSERT INTO "User" ("id", "email", "pushToken") VALUES
        ('u1', 'a@example.org', 'ExponentPushToken[one]'), ('u2', 'b@example.org', NULL),
        ('o''dd "ü" 🦀', 'c@example.org', 'ExponentPushToken[odd]');
    INSERT INTO "User" ("id", "email", "pushToken", "optedOut") VALUES ('out', 'd@example.org', 'ExponentPushToken[out]', true);
    CREATE TABLE "Device" ("n" INTEGER PRIMARY KEY, "userId" TEXT NOT NULL, "token" TEXT);
    INSERT INTO "Device" VALUES (1, 'u1', 't1'), (2, 'u1', 't2'), (3, 'u1', 't1'), (4, 'u1', NULL), (5, 'u1', 't3');
"#;

async fn open(place: &Place, query: &str, clear: &str) -> Result<Users, StoreError> {
    Users::open(&SecretString::from(place.url.as_str()), query, clear).await
}

fn user(tokens: &[&str]) -> User {
    User { found: true, tokens: tokens.iter().map(|token| (*token).to_owned()).collect(), skip_reason: None }
}

/// The user ids of `$1`, as each database takes a JSON array apart.
fn ids(place: &Place) -> &'static str {
    if place.is_sqlite() { "SELECT value FROM json_each($1)" } else { "SELECT json_array_elements_text($1::json)" }
}

#[tokio::test]
async fn prismas_table_is_read_with_the_default_query() {
    on_both(async |place| {
        place.execute(TABLES).await;
        let users = open(place, "", "").await.unwrap();
        for (id, expected) in [
            ("u1", user(&["ExponentPushToken[one]"])),
            ("u2", user(&[])),
            ("o'dd \"ü\" 🦀", user(&["ExponentPushToken[odd]"])),
            ("deleted", User::default()),
        ] {
            assert_eq!(users.look_up(id).await.unwrap(), expected, "{id}");
        }
        place.execute(r#"DELETE FROM "User" WHERE "id" = 'u1'"#).await;
        assert!(!users.look_up("u1").await.unwrap().found);
    })
    .await;
}

#[tokio::test]
async fn several_rows_are_several_tokens_each_once_and_an_opt_out_is_a_reason() {
    on_both(async |place| {
        place.execute(TABLES).await;
        let query = format!(
            r#"SELECT u."id" AS user_id, d."token" AS token, CASE WHEN u."optedOut" THEN 'opted_out' END AS skip_reason
            FROM "User" AS u LEFT JOIN "Device" AS d ON d."userId" = u."id" WHERE u."id" IN ({}) ORDER BY d."n""#,
            ids(place)
        );
        let users = open(place, &query, "").await.unwrap();
        assert_eq!(users.look_up("u1").await.unwrap(), user(&["t1", "t2", "t3"]));
        assert_eq!(users.look_up("u2").await.unwrap(), user(&[]));
        let out = User { skip_reason: Some("opted_out".to_owned()), ..user(&[]) };
        assert_eq!(users.look_up("out").await.unwrap(), out);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_hundred_at_once_are_one_statement_and_the_same_user_is_asked_for_once() {
    on_both(async |place| {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _here = metrics::set_default_local_recorder(&recorder);
        place.execute(TABLES).await;
        let users = open(place, "", "").await.unwrap();
        let names: Vec<String> = (0..100).map(|n| format!("u{}", n % 50)).collect();
        let answers = futures::future::join_all(names.iter().map(|name| users.look_up(name))).await;
        for (name, answer) in names.iter().zip(answers) {
            assert_eq!(answer.unwrap().found, ["u1", "u2"].contains(&name.as_str()), "{name}");
        }
        let page = recorder.handle().render();
        assert!(page.contains("herald_store_statements_total{statement=\"users_look_up\"} 1\n"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_cleared_only_while_it_is_the_same() {
    on_both(async |place| {
        place.execute(TABLES).await;
        let users = open(place, "", "").await.unwrap();
        assert!(!users.clear("u1", "ExponentPushToken[before]").await.unwrap());
        assert!(!users.clear("u2", "ExponentPushToken[one]").await.unwrap());
        assert_eq!(users.look_up("u1").await.unwrap(), user(&["ExponentPushToken[one]"]));
        assert!(users.clear("u1", "ExponentPushToken[one]").await.unwrap());
        assert!(!users.clear("u1", "ExponentPushToken[one]").await.unwrap());
        assert_eq!(users.look_up("u1").await.unwrap(), user(&[]));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_statement_is_a_configuration_error_that_names_its_key() {
    on_both(async |place| {
        place.execute(TABLES).await;
        let ids = ids(place);
        for (query, clear, key, word) in [
            (
                format!(r#"SELECT u."id" AS user_id, u."token" AS token FROM "User" AS u WHERE u."id" IN ({ids})"#),
                "",
                "users.query: ",
                "token",
            ),
            (
                format!(r#"SELECT u."id", u."pushToken" FROM "User" AS u WHERE u."id" IN ({ids})"#),
                "",
                "users.query: ",
                "`user_id` and `token`",
            ),
            (format!("SELECT user_id, token FROM nobody WHERE user_id IN ({ids})"), "", "users.query: ", "nobody"),
            ("SELEC $1".to_owned(), "", "users.query: ", "syntax error"),
            (
                String::new(),
                r#"UPDATE "User" SET "token" = NULL WHERE "id" = $1 AND "pushToken" = $2"#,
                "users.clear: ",
                "token",
            ),
            (String::new(), r#"UPDATE "User" SET "pushToken" = NULL WHERE "id" = $1"#, "users.clear: ", "$2"),
        ] {
            let Err(StoreError::Config(message)) = open(place, &query, clear).await else {
                panic!("taken: {query} {clear}")
            };
            assert!(message.starts_with(key) && message.contains(word), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        // A type that is not text shows with the first row.
        let query = format!(r#"SELECT u."id" AS user_id, 5 AS token FROM "User" AS u WHERE u."id" IN ({ids})"#);
        let users = open(place, &query, "").await.unwrap();
        let refused = users.look_up("u1").await;
        assert!(
            matches!(&refused, Err(StoreError::Config(message)) if message.starts_with("users.query: ")),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_query_that_returns_everybody_is_refused() {
    on_both(async |place| {
        place.execute("CREATE TABLE many (user_id TEXT, token TEXT)").await;
        let numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10001)";
        place.execute(&format!("INSERT INTO many {numbers} SELECT 'u', 't' FROM n")).await;
        let clear = "UPDATE many SET token = NULL WHERE user_id = $1 AND token = $2";
        let users = open(place, "SELECT user_id, token FROM many WHERE $1 <> ''", clear).await.unwrap();
        assert!(matches!(users.look_up("u").await, Err(StoreError::Config(_))));
    })
    .await;
}

#[tokio::test]
async fn an_id_the_database_refuses_fails_alone() {
    let Some(place) = Place::postgres().await else { return };
    place.execute(TABLES).await;
    let users = open(&place, "", "").await.unwrap();
    let (good, bad, other) = tokio::join!(users.look_up("u1"), users.look_up("u\0"), users.look_up("u2"));
    assert_eq!(good.unwrap().tokens.len(), 1);
    assert!(matches!(bad, Err(StoreError::Data(_))), "{bad:?}");
    assert!(other.unwrap().found);
    place.clean().await;
}
