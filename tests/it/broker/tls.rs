//! amqps with a private authority, and the TLS end that other tests put in front of their broker.

use std::{io::Write, sync::Arc};

use herald::broker::{
    Broker, BrokerError,
    amqp::{Amqp, AmqpOptions, Role},
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::setup::{PATIENCE, delete_queues, message, options, queue, topology};
use crate::support::{amqp_url, eventually, within};

/// Takes TLS with `config` on a free port and passes what is inside on to `server`.
async fn tls_end(config: ServerConfig, server: String) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (acceptor, server) = (acceptor.clone(), server.clone());
            connections.spawn(async move {
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ended = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, tasks)
}

/// A TLS end in front of a broker; gone when dropped.
pub struct TlsEnd {
    pub url: String,
    /// The certificate to trust, PEM.
    pub authority: String,
    _tasks: JoinSet<()>,
}

/// Puts a TLS end with an authority of its own in front of the broker at `direct`.
pub async fn tls_in_front_of(direct: &str) -> TlsEnd {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
    let mut url = url::Url::parse(&direct.replace("amqp://", "amqps://")).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let (port, tasks) = tls_end(config, server).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    TlsEnd { url: url.into(), authority: issued.cert.pem(), _tasks: tasks }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_its_file_is_named() {
    let Some(direct) = amqp_url() else { return };
    let end = tls_in_front_of(&direct).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(end.authority.as_bytes()).unwrap();

    let topology = topology("tls");
    let plain = AmqpOptions { role: Role::Command, ..options(&end.url, &topology) };
    let trusting = Amqp::start(AmqpOptions { ca_file: Some(file.path().to_owned()), ..plain.clone() });
    trusting.ready(PATIENCE).await.unwrap();
    trusting.publish(&queue(topology.events()), message("over TLS")).await.unwrap();
    within(4, "closing", trusting.close()).await;

    let distrusting = Amqp::start(plain.clone());
    eventually("the reason", async || {
        let ready = distrusting.ready(std::time::Duration::from_millis(200)).await;
        matches!(ready, Err(BrokerError::Unavailable(why)) if why.contains("certificate") && why.contains("broker.ca_file"))
            .then_some(())
    })
    .await;
    within(4, "closing", distrusting.close()).await;

    let absent = Amqp::start(AmqpOptions { ca_file: Some(file.path().with_extension("absent")), ..plain });
    let ready = absent.ready(PATIENCE).await;
    assert!(matches!(&ready, Err(BrokerError::Config(line)) if line.starts_with("broker.ca_file")), "{ready:?}");
    absent.close().await;
    delete_queues(&direct, &topology).await;
}
