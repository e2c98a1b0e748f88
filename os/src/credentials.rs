//! What a process proves its identity with.
//!
//! [`Credentials::load`] refuses at the start whatever peers would refuse later, with a sentence
//! that says what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::{Identity, Timestamp};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use crate::certificate::{self, Facts};

/// The three files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPaths {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The holder's certificate.
    pub certificate: PathBuf,
    /// The holder's private key.
    pub key: PathBuf,
}

impl CredentialPaths {
    /// `ca.crt`, `ROLE-NAME.crt` and `ROLE-NAME.key` in `directory`, as the authority writes them.
    pub fn of(directory: &Path, identity: &Identity) -> Self {
        let stem = identity.to_string().replace('/', "-");
        Self {
            ca: directory.join("ca.crt"),
            certificate: directory.join(format!("{stem}.crt")),
            key: directory.join(format!("{stem}.key")),
        }
    }
}

/// Credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}; `cadoled ca issue` writes it")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{path} cannot be used: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate was valid once.
    #[error(
        "certificate {path} of {identity} expired on {not_after}; issue a new one with `cadoled ca issue {identity}`"
    )]
    Expired {
        /// Which.
        path: PathBuf,
        /// Its holder.
        identity: Identity,
        /// Since when.
        not_after: Timestamp,
    },
    /// The certificate will be valid.
    #[error("certificate {path} is not valid before {not_before}; check this machine's clock (now {now})")]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when on.
        not_before: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// The certificate is another authority's.
    #[error(
        "certificate {path} was not issued by the authority in {ca} ({reason}); take both files from the same cluster"
    )]
    WrongAuthority {
        /// Which.
        path: PathBuf,
        /// The authority's certificate.
        ca: PathBuf,
        /// What the check said.
        reason: String,
    },
    /// The key is another certificate's.
    #[error(
        "key {key} does not belong to certificate {certificate}; issue both anew with `cadoled ca issue {identity}`"
    )]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// Its holder.
        identity: Identity,
    },
}

/// A certificate with its key, and the authority that it and all peers are checked against. Clones
/// are cheap.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    facts: Facts,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl Credentials {
    /// Reads and checks the three files. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Whatever a peer would refuse later: see [`CredentialsError`].
    pub fn load(paths: &CredentialPaths) -> Result<Self, CredentialsError> {
        let now = now();
        let chain = read_certificates(&paths.certificate)?;
        let roots = read_roots(&paths.ca)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&paths.key)?)
            .map_err(|error| invalid(&paths.key, format!("it holds no private key ({error})")))?;
        let own = chain.first().ok_or_else(|| invalid(&paths.certificate, "it holds no certificate"))?;
        let facts = certificate::read(own).map_err(|error| invalid(&paths.certificate, error.to_string()))?;
        check_validity(&facts, now, &paths.certificate)?;
        check_chain(&facts, &chain, &roots, now, paths)?;
        check_key(&facts, &chain, &key, paths)?;
        Ok(Self(Arc::new(Inner { facts, chain, key, roots })))
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.0.facts.identity
    }

    /// The certificate's last moment.
    pub fn not_after(&self) -> Timestamp {
        self.0.facts.not_after
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.0.roots.clone()
    }
}

/// Without the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", self.identity())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// The cryptography of all connections: AES-128-GCM first, since it is the fastest on machines with
/// AES instructions and strong enough.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|error| CredentialsError::Read { path: path.to_owned(), error })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(path, format!("it is not PEM ({error})")))
}

fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| invalid(path, error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid(path, "it holds no certificate"));
    }
    Ok(Arc::new(roots))
}

fn check_validity(facts: &Facts, now: Timestamp, path: &Path) -> Result<(), CredentialsError> {
    let path = path.to_owned();
    if now > facts.not_after {
        let (identity, not_after) = (facts.identity.clone(), facts.not_after);
        return Err(CredentialsError::Expired { path, identity, not_after });
    }
    if now < facts.not_before {
        return Err(CredentialsError::NotYetValid { path, not_before: facts.not_before, now });
    }
    Ok(())
}

/// Does what a peer would do.
fn check_chain(
    facts: &Facts,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: Timestamp,
    paths: &CredentialPaths,
) -> Result<(), CredentialsError> {
    let wrong = |reason: String| CredentialsError::WrongAuthority {
        path: paths.certificate.clone(),
        ca: paths.ca.clone(),
        reason,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| invalid(&paths.ca, error.to_string()))?;
    let name = ServerName::try_from(certificate::server_name(facts.identity.role()))
        .map_err(|error| wrong(error.to_string()))?;
    let Some((own, intermediates)) = chain.split_first() else {
        return Err(invalid(&paths.certificate, "it holds no certificate"));
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.as_millis()));
    verifier
        .verify_server_cert(own, intermediates, &name, &[], now)
        .map(|_| ())
        .map_err(|error| wrong(error.to_string()))
}

fn check_key(
    facts: &Facts,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    paths: &CredentialPaths,
) -> Result<(), CredentialsError> {
    match CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CredentialsError::KeyMismatch {
                key: paths.key.clone(),
                certificate: paths.certificate.clone(),
                identity: facts.identity.clone(),
            })
        }
        Err(error) => Err(invalid(&paths.key, error.to_string())),
    }
}

fn invalid(path: &Path, reason: impl Into<String>) -> CredentialsError {
    CredentialsError::Invalid { path: path.to_owned(), reason: reason.into() }
}

/// The wall clock, as certificates are judged by.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
