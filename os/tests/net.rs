//! QUIC keeps the contract of the network, and strangers do not stop it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use common::{Trust, identity};
use env::conformance::NetCase;
use env::{Connection, Env, Expect, Listener, Net, NetError, Rng, conformance};
use os::Host;
use os::ca::Issued;
use os::net::{OsConnection, OsListener};
use proto::Role;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The contract, over IPv4 and IPv6.
#[tokio::test(flavor = "multi_thread")]
async fn contract() {
    let trust = Trust::new();
    for loopback in ["127.0.0.1", "[::1]"] {
        // Held so that nobody else takes the port, and never read.
        let silent = UdpSocket::bind(format!("{loopback}:0")).unwrap();
        let case = NetCase {
            listening: identity("node/3"),
            connecting: identity("meta/1"),
            address: format!("{loopback}:0"),
            nobody: silent.local_addr().unwrap().to_string(),
        };
        conformance::net(&trust.host("node/3"), &trust.host("meta/1"), &case).await;
    }
}

struct Server {
    _host: Host,
    listener: OsListener,
    address: SocketAddr,
}

impl Server {
    async fn start(trust: &Trust) -> Self {
        let host = trust.host("node/3");
        let listener = host.net().listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().parse().unwrap();
        Self { _host: host, listener, address }
    }

    /// It accepts an ordinary client, and nobody was accepted before.
    async fn still_serves(&mut self, trust: &Trust) {
        let client = trust.host("meta/1");
        let address = self.address.to_string();
        let expect = Expect::Role(Role::Node);
        let (connected, accepted): (Result<OsConnection, _>, _) =
            tokio::join!(client.net().connect(&address, &expect), self.listener.accept());
        connected.unwrap();
        assert_eq!(accepted.unwrap().peer(), &identity("meta/1"));
    }
}

/// Connects past our own checks, with any certificate or none, and says how it ended.
async fn barge_in(trust: &Trust, address: SocketAddr, issued: Option<Issued>, alpn: &[u8]) -> String {
    let mut roots = RootCertStore::empty();
    let ca = trust.issue("operator/alice").ca_pem;
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match issued {
        None => config.with_no_client_auth(),
        Some(issued) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address, "node.cadole.internal").unwrap();
    match connecting.await {
        Err(error) => error.to_string(),
        Ok(connection) => match connection.accept_uni().await {
            Err(error) => error.to_string(),
            Ok(_) => "accepted".to_owned(),
        },
    }
}

/// Strangers, expired certificates, none at all and other protocols are refused, whatever the other
/// side claims to have checked; the listener goes on.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let (trust, stranger) = (Trust::new(), Trust::new());
    let mut server = Server::start(&trust).await;
    let genuine = || Some(trust.issue("meta/1"));
    for (what, issued, alpn) in [
        ("another authority's certificate", Some(stranger.issue("meta/1")), &b"cadole/1"[..]),
        ("an expired certificate", Some(trust.issue_expired("meta/1")), b"cadole/1"),
        ("no certificate", None, b"cadole/1"),
        ("another protocol", genuine(), b"h3"),
    ] {
        let end = barge_in(&trust, server.address, issued, alpn).await;
        assert!(end.contains("aborted by peer"), "{what}: {end}");
        server.still_serves(&trust).await;
    }
    let end = barge_in(&trust, server.address, genuine(), b"cadole/1").await;
    assert_eq!(end, "accepted", "the genuine one is not refused");
}

/// Between two authorities, each side says that the other is not to be trusted.
#[tokio::test(flavor = "multi_thread")]
async fn other_clusters_are_untrusted() {
    let (trust, stranger) = (Trust::new(), Trust::new());
    let mut server = Server::start(&trust).await;
    let host = stranger.host("meta/1");
    let refused = host.net().connect(&server.address.to_string(), &Expect::Role(Role::Node)).await;
    assert!(matches!(&refused, Err(NetError::Untrusted { .. })), "{:?}", refused.err());
    server.still_serves(&trust).await;
}

/// Random datagrams, short and long, with and without the look of a handshake, do no harm.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_does_no_harm() {
    let trust = Trust::new();
    let mut server = Server::start(&trust).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let rng = trust.host("meta/2");
    for round in 0..2_000_usize {
        let mut bytes = vec![0; 1 + round * 7 % 1500];
        rng.rng().fill(&mut bytes);
        if round % 2 == 0 && bytes.len() > 5 {
            // A long header of version 1: an Initial with nonsense in it.
            bytes[0] |= 0xc0;
            bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        // The receiver may be full: that is as good.
        let _ = socket.send_to(&bytes, server.address);
    }
    server.still_serves(&trust).await;
}

/// A taken port is an error; a stopped host's listener ends, and its port is free again.
#[tokio::test(flavor = "multi_thread")]
async fn listening_ends_with_the_host() {
    let trust = Trust::new();
    let host = trust.host("node/3");
    let mut listener = host.net().listen("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    let taken = trust.host("node/4").net().listen(&address).await;
    assert!(matches!(taken, Err(NetError::CannotListen { .. })));
    let nonsense = host.net().listen("no.such.host.invalid:1").await;
    assert!(matches!(nonsense, Err(NetError::CannotListen { .. })));

    let client = trust.host("meta/1");
    let expect = Expect::Role(Role::Node);
    let (connected, accepted) = tokio::join!(client.net().connect(&address, &expect), listener.accept());
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    host.stop().await;
    assert!(listener.accept().await.is_none(), "no connection comes after the end");
    assert!(connected.accept().await.is_err() && accepted.accept().await.is_err());
    drop((listener, accepted));
    trust.host("node/3").net().listen(&address).await.unwrap();
}

/// Who shakes hands and then says nothing keeps nobody else waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_accept_delays_nobody_forever() {
    let trust = Trust::new();
    let server = Server::start(&trust).await;
    let client = trust.host("meta/1");
    let (address, expect) = (server.address.to_string(), Expect::Role(Role::Node));
    let mut connections = Vec::new();
    let failed = loop {
        match tokio::time::timeout(Duration::from_secs(30), client.net().connect(&address, &expect)).await {
            Ok(Ok(connection)) => connections.push(connection),
            Ok(Err(error)) => break error,
            Err(_) => panic!("a connection neither came about nor failed"),
        }
        assert!(connections.len() < 1000, "connections that nobody accepts are bounded");
    };
    assert!(matches!(failed, NetError::Unreachable { .. }), "{failed}");
}
