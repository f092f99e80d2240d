//! RabbitMQ's management API: what AMQP does not tell about a queue.
//!
//! Called by `status` and the page when `broker.management_url` is set. It only reads; everything works without it. A value
//! the API does not give is `None`, never 0.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::BrokerError;
use crate::domain::redact;

/// Longest a request may take, body included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read, in bytes; with the columns asked for, a queue takes some three hundred.
const MAX_BODY: usize = 1024 * 1024;
/// What is asked for.
const COLUMNS: &str = "name,messages_ready,messages_unacknowledged,messages_dlx,policy,\
    message_stats.publish_details.rate,message_stats.ack_details.rate";

/// A client of the management API.
pub struct Management {
    http: Client,
    base: Url,
    user: String,
    password: SecretString,
    vhost: String,
}

/// What the management API knows of a queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueStats {
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    /// Messages on their way to a dead-letter target that does not take them.
    pub dead_lettering: Option<u64>,
    /// Messages a second.
    pub publish_rate: Option<f64>,
    /// Messages a second.
    pub ack_rate: Option<f64>,
    /// The policy in force, which may change what the queue's arguments say.
    pub policy: Option<String>,
}

impl Management {
    /// Makes a client from `broker.management_url`, with credentials in it, for the vhost of the AMQP URL.
    pub fn new(url: &SecretString, amqp_url: &SecretString) -> Result<Management, BrokerError> {
        let wrong = |what: &str| BrokerError::Config(format!("broker.management_url {what}"));
        let mut base: Url = url.expose_secret().parse().map_err(|_| wrong("is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("must be http://user:password@host:15672 or https"));
        }
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = decoded(base.username());
        let password = SecretString::from(decoded(base.password().unwrap_or_default()));
        if base.set_username("").and_then(|()| base.set_password(None)).is_err() {
            return Err(wrong("cannot hold credentials"));
        }
        let amqp: lapin::uri::AMQPUri = amqp_url
            .expose_secret()
            .parse()
            .map_err(|_| BrokerError::Config("broker.url is no AMQP URL".to_owned()))?;
        // Fails when a provider is installed already, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(TIMEOUT).connect_timeout(TIMEOUT).build();
        let http = http.map_err(|error| wrong(&redact(&error.to_string())))?;
        Ok(Management { http, base, user, password, vhost: amqp.vhost })
    }

    /// Returns what is known of every queue whose name starts with `prefix` and a dot.
    pub async fn queues(&self, prefix: &str) -> Result<BTreeMap<String, QueueStats>, BrokerError> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(["api", "queues", &self.vhost]),
            Err(()) => return Err(BrokerError::Config("broker.management_url has no path".to_owned())),
        };
        let start = format!("{prefix}.");
        url.query_pairs_mut()
            .append_pair("columns", COLUMNS)
            .append_pair("name", &start)
            .append_pair("use_regex", "false")
            .append_pair("page", "1")
            .append_pair("page_size", "500");
        let page: Page = serde_json::from_slice(&self.get(url).await?)
            .map_err(|error| BrokerError::Unavailable(format!("management API: {}", redact(&error.to_string()))))?;
        // The filter finds the text anywhere in the name.
        let ours = page.items.into_iter().filter(|item| item.name.starts_with(&start));
        Ok(ours.map(|item| (item.name.clone(), item.into())).collect())
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, BrokerError> {
        let unavailable = |error: reqwest::Error| {
            BrokerError::Unavailable(format!("management API: {}", redact(&error.without_url().to_string())))
        };
        let request = self.http.get(url).basic_auth(&self.user, Some(self.password.expose_secret()));
        let mut response = request.send().await.map_err(unavailable)?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                return Err(BrokerError::Config(format!(
                    "the management API refused user `{}`: it needs the password and the tag `monitoring`",
                    self.user
                )));
            }
            404 => return Err(BrokerError::Config(format!("vhost `{}` is unknown to the management API", self.vhost))),
            status => return Err(BrokerError::Unavailable(format!("management API: status {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(BrokerError::Unavailable("management API: answer over 1 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    name: String,
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
    messages_dlx: Option<u64>,
    policy: Option<String>,
    message_stats: Option<Stats>,
}

#[derive(Deserialize)]
struct Stats {
    publish_details: Option<Details>,
    ack_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    rate: Option<f64>,
}

impl From<Item> for QueueStats {
    fn from(item: Item) -> Self {
        let stats = item.message_stats.unwrap_or(Stats { publish_details: None, ack_details: None });
        QueueStats {
            ready: item.messages_ready,
            unacked: item.messages_unacknowledged,
            dead_lettering: item.messages_dlx,
            publish_rate: stats.publish_details.and_then(|details| details.rate),
            ack_rate: stats.ack_details.and_then(|details| details.rate),
            policy: item.policy.filter(|policy| !policy.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_leaves_out_is_unknown() {
        let page: Page = serde_json::from_str(
            r#"{"items": [{"name": "a"}, {"name": "b", "messages_ready": 3, "messages_unacknowledged": 0,
                "messages_dlx": 2, "policy": "", "message_stats": {"publish_details": {"rate": 1.5}}}]}"#,
        )
        .unwrap();
        let stats: Vec<QueueStats> = page.items.into_iter().map(QueueStats::from).collect();
        let known = QueueStats {
            ready: Some(3),
            unacked: Some(0),
            dead_lettering: Some(2),
            publish_rate: Some(1.5),
            ack_rate: None,
            policy: None,
        };
        assert_eq!(stats, [QueueStats::default(), known]);
    }

    #[test]
    fn a_wrong_url_is_named_without_its_password() {
        let amqp = SecretString::from("amqp://h/%2f");
        for url in ["hunter2", "ftp://u:hunter2@h", "data:hunter2"] {
            let error = Management::new(&SecretString::from(url), &amqp).err().map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.starts_with("broker.management_url") && !error.contains("hunter2"), "{error}");
        }
    }
}
