//! TLS: both sides verified against the cluster's authority, version 1.3 only.
//!
//! rustls' own verifiers do all the checking. There are no session tickets: each connection proves
//! anew that both certificates are valid today.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;

use crate::credentials::{Credentials, provider};

/// The protocol's name; a later, incompatible protocol has another.
const ALPN: &[u8] = b"cadole/1";

/// For the side that connects.
///
/// # Errors
///
/// When the credentials cannot be used, with why.
pub(super) fn client(credentials: &Credentials) -> Result<QuicClientConfig, String> {
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(credentials.roots(), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(credentials.chain(), credentials.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|error| error.to_string())
}

/// For the side that listens.
///
/// # Errors
///
/// When the credentials cannot be used, with why.
pub(super) fn server(credentials: &Credentials) -> Result<QuicServerConfig, String> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(credentials.roots(), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain(), credentials.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(|error| error.to_string())
}
