//! What a database's refusal means: wait, change something, or give up on the row.
//!
//! Called wherever a statement is run. The database's own words are kept, redacted and bounded; the URL never is.

use crate::domain::redact;

/// Why a store call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is locked or too slow; the call may be repeated.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// Somebody must change something first: credentials, a missing database, a wrong query. Exit code 78.
    #[error("{0}")]
    Config(String),
    /// The database refuses this very row.
    #[error("database refused the row: {0}")]
    Data(String),
}

/// The configuration keys an error may have to name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// Where the database is: `store.url`, `users.url`.
    pub url: &'static str,
    /// Where the statement comes from: `users.query`; the URL's key for our own statements.
    pub statement: &'static str,
}

pub(super) const STORE: Keys = Keys { url: "store.url", statement: "store.url" };

/// Says what `error` means. `place` names the database without credentials (`host:5432/name`, a path).
pub(super) fn classify(keys: Keys, place: &str, error: &sqlx::Error) -> StoreError {
    use sqlx::Error;
    match error {
        Error::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            let message = redact(refusal.message());
            match code.parse::<u32>() {
                // SQLSTATE has five characters and PostgreSQL's are never below 01000.
                Ok(number) if code.len() < 5 => sqlite(keys, place, number, message),
                _ => postgres(keys, place, &code, message),
            }
        }
        Error::Configuration(source) => {
            StoreError::Config(format!("{}: not a database URL: {}", keys.url, redact(&source.to_string())))
        }
        Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) | Error::TypeNotFound { .. } => {
            StoreError::Config(format!("{}: unexpected result: {}", keys.statement, redact(&error.to_string())))
        }
        Error::Encode(_) | Error::InvalidArgument(_) => StoreError::Data(redact(&error.to_string())),
        Error::PoolTimedOut => StoreError::Unavailable(format!("no connection to {place} in time")),
        // Waited for as well: a certificate may just be being renewed.
        Error::Io(source) => StoreError::Unavailable(format!("{place}: {}", with_hint(keys, &source.to_string()))),
        Error::Tls(source) => StoreError::Unavailable(format!("{place}: {}", with_hint(keys, &source.to_string()))),
        other => StoreError::Unavailable(format!("{place}: {}", redact(&other.to_string()))),
    }
}

/// Returns the words of a failed connection; about a certificate, with what to do.
fn with_hint(keys: Keys, words: &str) -> String {
    let words = redact(words);
    match words.contains("certificate") {
        true => format!("{words}; a private authority's certificate goes into sslrootcert in {}", keys.url),
        false => words,
    }
}

/// PostgreSQL's error codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
fn postgres(keys: Keys, place: &str, code: &str, message: String) -> StoreError {
    let Keys { url, statement } = keys;
    match code {
        "3D000" => StoreError::Config(format!("{url}: {message}: create it, or correct the name in the URL")),
        "42501" => {
            refused(url);
            StoreError::Config(format!("{statement}: {message}: grant it to the user in {url}"))
        }
        // A query that was cancelled ran into our own statement timeout.
        "57014" | "55P03" => StoreError::Unavailable(format!("{place}: {message}")),
        _ if code.starts_with("28") => {
            refused(url);
            StoreError::Config(format!("{url}: {place} refuses the credentials: {message}: correct user and password"))
        }
        _ if code.starts_with("42") || code.starts_with("3F") => {
            StoreError::Config(format!("{statement}: the database refuses the statement: {message}"))
        }
        _ if ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)) => StoreError::Data(message),
        _ => StoreError::Unavailable(format!("{place}: {message} ({code})")),
    }
}

/// Counts a refusal of our credentials or rights by the database behind the key `url`.
fn refused(url: &'static str) {
    let dependency = url.split('.').next().unwrap_or_default();
    metrics::counter!("herald_credentials_rejected_total", "dependency" => dependency).increment(1);
}

/// SQLite's result codes, the low byte naming the class: https://www.sqlite.org/rescode.html
fn sqlite(keys: Keys, place: &str, code: u32, message: String) -> StoreError {
    let Keys { url, statement } = keys;
    match code & 0xff {
        // ERROR: the statement does not fit the tables.
        1 => StoreError::Config(format!("{statement}: the database refuses the statement: {message}")),
        // PERM, READONLY, CANTOPEN, AUTH: the file's rights.
        3 | 8 | 14 | 23 => StoreError::Config(format!(
            "{url}: cannot use `{place}`: {message}: file and directory must exist and be writable for this user"
        )),
        // CORRUPT, NOTADB.
        11 | 26 => StoreError::Config(format!("{url}: `{place}` is not a usable SQLite database: {message}")),
        // TOOBIG, CONSTRAINT, MISMATCH: the row.
        18..=20 => StoreError::Data(message),
        // BUSY, LOCKED, IOERR, FULL and what else passes or must be looked after without a new configuration.
        _ => StoreError::Unavailable(format!("{place}: {message} ({code})")),
    }
}

/// Says what a failed migration means.
pub(super) fn classify_migration(place: &str, error: sqlx::migrate::MigrateError) -> StoreError {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => classify(STORE, place, &source),
        MigrateError::VersionMissing(version) => StoreError::Config(format!(
            "store.url: {place} was migrated by a newer herald (migration {version}): run that version or newer"
        )),
        other => StoreError::Config(format!("store.url: {place}: {}", redact(&other.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_waiting_from_changing_from_giving_up() {
        for (code, expected) in [
            ("08006", "unavailable"),
            ("28P01", "config"),
            ("28000", "config"),
            ("3D000", "config"),
            ("42703", "config"),
            ("42501", "config"),
            ("22P05", "data"),
            ("23514", "data"),
            ("40001", "unavailable"),
            ("40P01", "unavailable"),
            ("53300", "unavailable"),
            ("57014", "unavailable"),
            ("57P01", "unavailable"),
            ("25006", "unavailable"),
        ] {
            assert_eq!(name(&postgres(STORE, "db:5432/herald", code, "words".into())), expected, "{code}");
        }
        for (code, expected) in [
            (1, "config"),
            (5, "unavailable"),
            (261, "unavailable"),
            (8, "config"),
            (10, "unavailable"),
            (13, "unavailable"),
            (14, "config"),
            (26, "config"),
            (275, "data"),
            (1299, "data"),
            (2067, "data"),
        ] {
            assert_eq!(name(&sqlite(STORE, "herald.db", code, "words".into())), expected, "{code}");
        }
    }

    fn name(error: &StoreError) -> &'static str {
        match error {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Config(_) => "config",
            StoreError::Data(_) => "data",
        }
    }
}
