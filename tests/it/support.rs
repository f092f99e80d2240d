//! What every integration test needs: the services' addresses, names of its own, and waiting on conditions.

use std::{future::Future, time::Duration};

/// Returns the RabbitMQ to test against, or `None` after saying that the test is skipped.
pub fn amqp_url() -> Option<String> {
    service("HERALD_TEST_AMQP_URL")
}

/// Returns the PostgreSQL to test against, or `None` after saying that the test is skipped.
pub fn database_url() -> Option<String> {
    service("HERALD_TEST_DATABASE_URL")
}

/// Returns `url` with another password.
pub fn with_password(url: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    url.set_password(Some(password)).expect("a URL with a host");
    url.into()
}

/// Returns the user that `url` names.
pub fn user_of(url: &str) -> String {
    url::Url::parse(url).expect("a URL").username().to_owned()
}

fn service(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set and under CI no test may be skipped");
        eprintln!("skipped: {variable} is not set; `make test` provides it");
    }
    url
}

/// Returns a name no other test uses, fit for queue prefixes and schema names.
pub fn unique(name: &str) -> String {
    format!("{name}_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Waits until `condition` holds, and panics naming `what` after thirty seconds.
pub async fn eventually<F, T>(what: &str, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(30, what, waiting).await
}

/// Awaits `future` for at most `seconds`, and panics naming `what`.
pub async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {seconds} s: {what}"),
    }
}
