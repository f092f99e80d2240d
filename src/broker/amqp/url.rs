//! The broker's address: URL, heartbeat and TLS.
//!
//! Called by the supervisor before each connection, so that a renewed authority file counts at once. Must never show the
//! password: [`Address`] prints as host and port.

use std::{fmt, path::PathBuf};

use lapin::{
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};

use crate::broker::BrokerError;

/// Seconds between heartbeats unless the URL says otherwise: a dead peer is noticed after twice as long.
const HEARTBEAT_SECONDS: u16 = 10;

/// Bytes in a frame, as RabbitMQ is shipped; what herald publishes has at most half of it in headers, and bodies span frames.
/// https://www.rabbitmq.com/docs/configure#config-items
const FRAME_BYTES: u32 = 131_072;

/// Largest authority file read, in bytes.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// Where the broker is and how to talk to it.
#[derive(Clone)]
pub(super) struct Address {
    uri: AMQPUri,
    ca_file: Option<PathBuf>,
}

impl Address {
    /// Reads `url`; the heartbeat is 10 s unless its query says otherwise.
    pub(super) fn parse(url: &SecretString, ca_file: Option<PathBuf>) -> Result<Address, BrokerError> {
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| {
            // The parser's own words may quote the URL, and with it the password.
            BrokerError::Config(
                "broker.url (AMQP_URL) is not an AMQP URL: expected amqp://user:password@host:5672/%2f, with special \
                 characters percent-encoded"
                    .to_owned(),
            )
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Address { uri, ca_file })
    }

    /// Returns the address for a connection that only publishes. lapin then makes its buffers once, of pages that nothing has touched;
    /// when it learns the size from the broker, it fills 8 MB with zeros. What is consumed may need larger frames: there the broker says.
    pub(super) fn for_publishing(mut self) -> Address {
        self.uri.query.frame_max.get_or_insert(FRAME_BYTES);
        self
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Reads the authority file, if TLS needs it, and sees to it that rustls has a crypto provider.
    pub(super) async fn tls(&self) -> Result<OwnedTLSConfig, BrokerError> {
        if self.uri.scheme != AMQPScheme::AMQPS {
            return Ok(OwnedTLSConfig::default());
        }
        // Fails when a provider is installed already, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let Some(path) = &self.ca_file else {
            return Ok(OwnedTLSConfig::default());
        };
        let problem = |what: &str| BrokerError::Config(format!("broker.ca_file `{}`: {what}", path.display()));
        let size = tokio::fs::metadata(path).await.map_err(|error| problem(&error.to_string()))?.len();
        if size > MAX_CA_FILE {
            return Err(problem("larger than 1 MiB"));
        }
        let pem = tokio::fs::read_to_string(path).await.map_err(|error| problem(&error.to_string()))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        if !certificates.is_ok_and(|certificates| !certificates.is_empty()) {
            return Err(problem("holds no readable PEM certificate"));
        }
        Ok(OwnedTLSConfig { identity: None, cert_chain: Some(pem) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uri.authority.host, self.uri.authority.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, BrokerError> {
        Address::parse(&SecretString::from(url), None)
    }

    #[test]
    fn the_heartbeat_is_ten_seconds_unless_the_url_says_otherwise() {
        for (url, heartbeat, vhost) in [
            ("amqp://u:p@h:5672/%2f", 10, "/"),
            ("amqp://u:p@h/%2f?heartbeat=3", 3, "/"),
            ("amqp://h/staging", 10, "staging"),
            ("amqps://h", 10, "/"),
        ] {
            let address = address(url).unwrap();
            assert_eq!((address.uri().query.heartbeat, address.vhost()), (Some(heartbeat), vhost), "{url}");
        }
    }

    #[test]
    fn only_a_publishing_connection_says_its_frame_size_and_the_url_may_say_another() {
        for (url, consuming, publishing) in
            [("amqp://h/%2f", None, Some(FRAME_BYTES)), ("amqp://h/%2f?frame_max=65536", Some(65_536), Some(65_536))]
        {
            let address = address(url).unwrap();
            assert_eq!(address.uri().query.frame_max, consuming, "{url}");
            assert_eq!(address.for_publishing().uri().query.frame_max, publishing, "{url}");
        }
    }

    #[test]
    fn what_is_no_amqp_url_is_a_configuration_error_without_the_password() {
        for url in
            ["", "hunter2", "http://u:hunter2@h/", "amqp://u:hunter2@h:port/%2f", "amqp://u:hunter2@h?heartbeat=x"]
        {
            let error = address(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("broker.url (AMQP_URL)") && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn an_address_prints_host_and_port_only() {
        assert_eq!(address("amqps://u:hunter2@h/%2f").unwrap().to_string(), "h:5671");
    }

    #[tokio::test]
    async fn an_authority_file_must_hold_a_certificate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = SecretString::from("amqps://h/%2f");
        for path in [file.path().to_owned(), file.path().join("absent")] {
            let address = Address::parse(&url, Some(path)).unwrap();
            let error = address.tls().await.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("broker.ca_file"), "{error}");
        }
        let plain = Address::parse(&SecretString::from("amqp://h/%2f"), Some(file.path().to_owned())).unwrap();
        assert!(plain.tls().await.is_ok());
    }
}
