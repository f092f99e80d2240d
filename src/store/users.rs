//! The app's users: push tokens by user id, and the conditional clear of a dead token.
//!
//! Called by the worker's third stop and by its receipts. The statements are configuration, since the table is the app's.
//! A failed look-up is an error, never a user without tokens; tokens never get into errors, logs or `Debug`.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Column, Executor, PgPool, SqlSafeStr, SqlitePool, Statement};

use crate::provider::coalescer::{Coalescer, Limits, Lost};

use super::{
    StoreError, batch,
    connect::{Address, postgres_pool, sqlite_pool},
    database::timed,
    error::{Keys, classify},
    row::write,
};

/// Finds tokens in Prisma's `"User"` on PostgreSQL.
///
/// `$1` is a JSON array of user ids as text; the columns are `user_id`, `token` (NULL: the user has none) and, if wanted,
/// `skip_reason`. Several rows for one user are several tokens, so a table of devices is
/// `SELECT u."id" AS user_id, d."token" AS token FROM "User" u LEFT JOIN "Device" d ON d."userId" = u."id" WHERE …`, and an
/// opt-out kept in Prisma's `"notificationPreferences"` is one more column:
/// `CASE WHEN u."notificationPreferences"->>'push' = 'false' THEN 'opted_out' END AS skip_reason`.
pub const DEFAULT_QUERY_POSTGRES: &str = r#"SELECT u."id" AS user_id, u."pushToken" AS token FROM "User" AS u
WHERE u."id" = ANY (ARRAY(SELECT json_array_elements_text($1::json)))"#;

/// Finds tokens in Prisma's `"User"` on SQLite, where an unknown column in double quotes is taken for a text unless the
/// table's name stands before it.
pub const DEFAULT_QUERY_SQLITE: &str = r#"SELECT u."id" AS user_id, u."pushToken" AS token FROM "User" AS u
WHERE u."id" IN (SELECT value FROM json_each($1))"#;

/// Clears a token in Prisma's `"User"`, on either database: `$1` is the user, `$2` the token that was sent to.
pub const DEFAULT_CLEAR: &str =
    r#"UPDATE "User" SET "pushToken" = NULL WHERE "User"."id" = $1 AND "User"."pushToken" = $2"#;

/// Users in one statement.
const BATCH: usize = 100;
/// Most rows taken for one batch: a query that forgets `$1` returns the whole table.
const MAX_ROWS: usize = 10_000;

const QUERY: Keys = Keys { url: "users.url", statement: "users.query" };
const CLEAR: Keys = Keys { url: "users.url", statement: "users.clear" };

/// What the app's database knows of one user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The query returned a row for this user.
    pub found: bool,
    /// Push tokens as they stand, each once, in the order returned.
    pub tokens: Vec<String>,
    /// Why nothing may be pushed to this user (opted out).
    pub skip_reason: Option<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User { found, tokens, skip_reason } = self;
        f.debug_struct("User")
            .field("found", found)
            .field("tokens", &tokens.len())
            .field("skip_reason", skip_reason)
            .finish()
    }
}

/// The app's database. A handle: clones share the pool and the coalescer.
#[derive(Clone)]
pub struct Users {
    app: Arc<App>,
    look_ups: Coalescer<String, Result<User, StoreError>>,
}

struct App {
    pool: Pool,
    place: String,
    query: String,
    clear: String,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: Option<String>,
    token: Option<String>,
    #[sqlx(default)]
    skip_reason: Option<String>,
}

impl Users {
    /// Connects and has the database check both statements. An empty `query` or `clear` stands for the default of the URL's
    /// kind.
    pub async fn open(url: &SecretString, query: &str, clear: &str) -> Result<Users, StoreError> {
        let address = Address::parse(QUERY, url.expose_secret())?;
        let default_query = match &address {
            Address::Sqlite(_) => DEFAULT_QUERY_SQLITE,
            Address::Postgres { .. } => DEFAULT_QUERY_POSTGRES,
        };
        let text = |given: &str, default: &str| if given.trim().is_empty() { default.into() } else { given.to_owned() };
        let (query, clear) = (text(query, default_query), text(clear, DEFAULT_CLEAR));
        check_parameters(&query, &clear)?;
        let place = address.place();
        let pool = match address {
            // The app's file: neither made nor changed in its ways here.
            Address::Sqlite(options) => sqlite_pool(*options, 4).await.map(Pool::Sqlite),
            Address::Postgres { options, schema } => {
                postgres_pool(*options, schema.as_deref(), 4).await.map(Pool::Postgres)
            }
        };
        let pool = pool.map_err(|error| classify(QUERY, &place, &error))?;
        let app = Arc::new(App { pool, place, query, clear });
        app.check().await?;
        let limits = Limits { requests: 2, eager: 2, items: BATCH, weight: usize::MAX };
        let asked = app.clone();
        let look_ups = Coalescer::new(limits, move |users| Box::pin(look_up_batch(asked.clone(), users)));
        Ok(Users { app, look_ups })
    }

    /// Looks up one user, in a batch with its neighbours.
    pub async fn look_up(&self, user_id: &str) -> Result<User, StoreError> {
        let lost = |Lost| Err(StoreError::Unavailable("the look-up ended without an answer".to_owned()));
        self.look_ups.ask(user_id.to_owned(), user_id.len()).await.unwrap_or_else(lost)
    }

    /// Clears `token` of `user_id` if it is still the same; returns whether it was.
    pub async fn clear(&self, user_id: &str, token: &str) -> Result<bool, StoreError> {
        let app = &self.app;
        let text = || AssertSqlSafe(app.clear.as_str());
        let running = async {
            Ok(match &app.pool {
                Pool::Sqlite(pool) => {
                    sqlx::query(text()).bind(user_id).bind(token).execute(pool).await?.rows_affected()
                }
                Pool::Postgres(pool) => {
                    sqlx::query(text()).bind(user_id).bind(token).persistent(false).execute(pool).await?.rows_affected()
                }
            })
        };
        let cleared = timed("users_clear", &app.place, running).await?;
        Ok(cleared.map_err(|error| classify(CLEAR, &app.place, &error))? > 0)
    }
}

impl App {
    /// Has the database prepare both statements and checks the columns of the query.
    async fn check(&self) -> Result<(), StoreError> {
        let columns = timed("users_check", &self.place, self.prepare(&self.query, 1)).await?;
        let columns = columns.map_err(|error| classify(QUERY, &self.place, &error))?;
        for needed in ["user_id", "token"] {
            if !columns.iter().any(|column| column == needed) {
                let found = columns.join("`, `");
                return Err(StoreError::Config(format!(
                    "users.query: must return the columns `user_id` and `token`, and returns `{found}`"
                )));
            }
        }
        let prepared = timed("users_check", &self.place, self.prepare(&self.clear, 2)).await?;
        prepared.map(|_| ()).map_err(|error| classify(CLEAR, &self.place, &error))
    }

    /// Prepares a statement with so many text parameters and returns the names of its columns.
    async fn prepare(&self, text: &str, parameters: usize) -> Result<Vec<String>, sqlx::Error> {
        let text = AssertSqlSafe(text).into_sql_str();
        let names = match &self.pool {
            Pool::Sqlite(pool) => {
                pool.prepare(text).await?.columns().iter().map(|column| column.name().to_owned()).collect()
            }
            Pool::Postgres(pool) => {
                let texts = vec![<String as sqlx::Type<sqlx::Postgres>>::type_info(); parameters];
                let prepared = pool.prepare_with(text, &texts).await?;
                prepared.columns().iter().map(|column| column.name().to_owned()).collect()
            }
        };
        Ok(names)
    }

    /// Runs the query for a JSON array of user ids.
    async fn rows(&self, users: &str) -> Result<Vec<UserRow>, StoreError> {
        let text = || AssertSqlSafe(self.query.as_str());
        let running = async {
            match &self.pool {
                Pool::Sqlite(pool) => {
                    sqlx::query_as(text()).bind(users).fetch(pool).take(MAX_ROWS + 1).try_collect::<Vec<_>>().await
                }
                // Not kept prepared: after a migration of the app, PostgreSQL refuses plans made before it.
                Pool::Postgres(pool) => {
                    let rows = sqlx::query_as(text()).bind(users).persistent(false).fetch(pool);
                    rows.take(MAX_ROWS + 1).try_collect::<Vec<_>>().await
                }
            }
        };
        let rows = timed("users_look_up", &self.place, running).await?;
        let rows: Vec<UserRow> = rows.map_err(|error| classify(QUERY, &self.place, &error))?;
        if rows.len() > MAX_ROWS {
            return Err(StoreError::Config(format!(
                "users.query: returns over {MAX_ROWS} rows for {BATCH} users: it must return those in $1 only"
            )));
        }
        Ok(rows)
    }
}

/// An unconditional clear would take the token of a new device away.
fn check_parameters(query: &str, clear: &str) -> Result<(), StoreError> {
    if !query.contains("$1") {
        return Err(StoreError::Config("users.query: must use $1, a JSON array of user ids".to_owned()));
    }
    if !clear.contains("$1") || !clear.contains("$2") {
        return Err(StoreError::Config("users.clear: must use $1, the user, and $2, the token".to_owned()));
    }
    Ok(())
}

/// Looks up a batch; one answer per user, in order.
async fn look_up_batch(app: Arc<App>, users: Vec<String>) -> Vec<Result<User, StoreError>> {
    let run = |part: &[String]| -> BoxFuture<'static, Result<Vec<User>, StoreError>> {
        let (app, part) = (app.clone(), part.to_vec());
        Box::pin(async move {
            let mut found: HashMap<String, User> = HashMap::new();
            for row in app.rows(&write(&part)?).await? {
                let Some(user) = row.user_id else { continue };
                let user = found.entry(user).or_default();
                user.found = true;
                user.skip_reason = user.skip_reason.take().or(row.skip_reason);
                if let Some(token) = row.token
                    && !user.tokens.contains(&token)
                {
                    user.tokens.push(token);
                }
            }
            Ok(part.iter().map(|user| found.remove(user).unwrap_or_default()).collect())
        })
    };
    let unique: Vec<String> = users.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let answers = batch::each(unique.clone(), |user| user, run).await;
    let answers: HashMap<String, Result<User, StoreError>> = unique.into_iter().zip(answers).collect();
    users.iter().map(|user| answers[user].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_token() {
        let user = User { found: true, tokens: vec!["ExponentPushToken[secret]".into()], skip_reason: None };
        assert_eq!(format!("{user:?}"), "User { found: true, tokens: 1, skip_reason: None }");
    }

    #[test]
    fn statements_without_their_parameters_are_refused() {
        assert!(check_parameters(DEFAULT_QUERY_POSTGRES, DEFAULT_CLEAR).is_ok());
        assert!(check_parameters(DEFAULT_QUERY_SQLITE, DEFAULT_CLEAR).is_ok());
        for (query, clear, key) in [
            ("SELECT 1", DEFAULT_CLEAR, "users.query"),
            (DEFAULT_QUERY_SQLITE, "UPDATE u SET t = NULL WHERE id = $1", "users.clear"),
        ] {
            let Err(StoreError::Config(message)) = check_parameters(query, clear) else { panic!("{query} was taken") };
            assert!(message.starts_with(key), "{message}");
        }
    }
}
