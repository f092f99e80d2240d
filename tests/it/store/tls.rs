//! PostgreSQL over TLS, with an authority made for the test: `sslmode` and `sslrootcert` in the URL are kept to.

use std::{io::Write, sync::Arc};

use herald::store::{Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::Place;

/// A certificate authority, and the file with its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        Authority { issuer: Issuer::new(parameters, key), file }
    }

    /// Returns a server that proves to be 127.0.0.1.
    fn server(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap()
    }
}

/// Stands in front of `server` as PostgreSQL with TLS would: a request for TLS, a yes, the handshake.
async fn tls_end(config: ServerConfig, server: String) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (acceptor, server) = (acceptor.clone(), server.clone());
            connections.spawn(async move {
                // SSLRequest: https://www.postgresql.org/docs/current/protocol-message-formats.html
                let mut request = [0; 8];
                if client.read_exact(&mut request).await.is_err() || request[4..] != 80_877_103_u32.to_be_bytes() {
                    return;
                }
                client.write_all(b"S").await.unwrap();
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ended = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_against_the_authority_in_the_url() {
    let Some(place) = Place::postgres().await else { return };
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let (right, wrong) = (Authority::new(), Authority::new());
    let direct = url::Url::parse(&place.url).unwrap();
    let server = format!("{}:{}", direct.host_str().unwrap(), direct.port().unwrap_or(5432));
    let (port, _tasks) = tls_end(right.server(), server).await;
    let open = async |host: &str, mode: &str, authority: &str| {
        let mut url = direct.clone();
        url.set_host(Some(host)).unwrap();
        url.set_port(Some(port)).unwrap();
        url.query_pairs_mut().append_pair("sslmode", mode).append_pair("sslrootcert", authority);
        Store::open(url.as_str(), "tls").await.map(drop)
    };
    let path = |authority: &Authority| authority.file.path().display().to_string();

    open("127.0.0.1", "verify-full", &path(&right)).await.unwrap();
    for (host, authority) in [("127.0.0.1", path(&wrong)), ("localhost", path(&right))] {
        let refused = open(host, "verify-full", &authority).await.unwrap_err();
        let line = refused.to_string();
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
        assert!(
            line.contains("certificate") && line.contains("sslrootcert in store.url") && line.lines().count() == 1,
            "{line}"
        );
    }
    let absent = open("127.0.0.1", "verify-full", "/no/such/authority.pem").await.unwrap_err();
    assert!(absent.to_string().contains("No such file"), "{absent}");
    place.clean().await;
}
