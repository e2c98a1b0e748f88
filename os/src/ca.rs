//! The cluster's own certificate authority.
//!
//! A certificate says who its holder is (URI `cadole:meta/1`) and in which role it may be connected
//! to (DNS name `meta.cadole.internal`, never looked up). There is no list of revoked certificates:
//! they are issued for a limited time, and a stolen one is answered by a new authority.
//!
//! The directory holds `ca.crt` and `ca.key`. The key opens everything; it belongs on a machine that
//! is no part of the cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use env::Rng;
use proto::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{URI_SCHEME, server_name};
use crate::credentials::CredentialPaths;
use crate::rng::OsRng;

/// How long the authority itself is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// How far clocks of the cluster may lag behind the one that issues.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// Random bytes of a serial number; RFC 5280 allows 20 and asks for a positive number.
const SERIAL_BYTES: usize = 16;

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The authority cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one in this directory, and certificates of it may be in use.
    #[error("{path} exists: this directory holds an authority already; it is never overwritten")]
    Exists {
        /// What was found.
        path: PathBuf,
    },
    /// There is none.
    #[error("{path} does not exist: there is no authority here; `cadoled ca init` makes one")]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The directory holds something else.
    #[error("{path} cannot be used: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate would be of no use.
    #[error("cannot issue a certificate for {identity}: {reason}")]
    Refused {
        /// For whom.
        identity: Identity,
        /// Why.
        reason: String,
    },
}

/// The certificate authority of a cluster, with its key.
pub struct Authority {
    certificate_pem: String,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority in `directory`, which is made if it does not exist. The key is readable
    /// by its owner alone. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`Exists`](AuthorityError::Exists) when there is one; when the directory cannot be written.
    pub fn init(directory: &Path) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = paths(directory);
        for path in [&certificate_path, &key_path] {
            if path.symlink_metadata().is_ok() {
                return Err(AuthorityError::Exists { path: path.clone() });
            }
        }
        fs::create_dir_all(directory).map_err(|error| io_error(directory, error))?;

        let broken = |error: rcgen::Error| invalid(&certificate_path, error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(broken)?;
        let params = authority_params();
        let certificate_pem = params.self_signed(&key).map_err(broken)?.pem();
        // The certificate is written last: with it, the authority exists.
        write_new(&key_path, key.serialize_pem().as_bytes(), KEY_MODE)?;
        write_new(&certificate_path, certificate_pem.as_bytes(), CERTIFICATE_MODE)?;
        Ok(Self { certificate_pem, not_after: params.not_after, issuer: Issuer::new(params, key) })
    }

    /// Opens the authority in `directory`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`Missing`](AuthorityError::Missing) when there is none; when it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = paths(directory);
        let certificate_pem = read(&certificate_path)?;
        let key_pem = read(&key_path)?;

        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| invalid(&certificate_path, error.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| invalid(&key_path, error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|error| invalid(&certificate_path, error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(invalid(&key_path, "it is not the key of ca.crt"));
        }
        let not_after = parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| invalid(&certificate_path, error.to_string()))?;
        Ok(Self { certificate_pem, not_after, issuer })
    }

    /// The authority's certificate: what every host needs besides its own.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate with a new key, valid from now (an hour ago, for clocks that lag) for
    /// `validity`. `extra_names` are further DNS names or IP addresses; Cadole itself needs none.
    ///
    /// # Errors
    ///
    /// [`Refused`](AuthorityError::Refused) when it would outlive the authority, or a name is none.
    pub fn issue(
        &self,
        identity: &Identity,
        validity: Duration,
        extra_names: &[String],
    ) -> Result<Issued, AuthorityError> {
        self.issue_from(identity, OffsetDateTime::from(SystemTime::now()), validity, extra_names)
    }

    /// The same with a start of validity of the caller's choice, so that tests can make certificates
    /// that have expired.
    ///
    /// # Errors
    ///
    /// As [`issue`](Self::issue).
    pub fn issue_at(
        &self,
        identity: &Identity,
        start: SystemTime,
        validity: Duration,
    ) -> Result<Issued, AuthorityError> {
        self.issue_from(identity, OffsetDateTime::from(start), validity, &[])
    }

    fn issue_from(
        &self,
        identity: &Identity,
        start: OffsetDateTime,
        validity: Duration,
        extra_names: &[String],
    ) -> Result<Issued, AuthorityError> {
        let refused = |reason: String| AuthorityError::Refused { identity: identity.clone(), reason };
        let broken = |error: rcgen::Error| refused(error.to_string());

        let mut params = CertificateParams::new(extra_names).map_err(broken)?;
        params.not_before = start - CLOCK_SKEW;
        params.not_after = time::Duration::try_from(validity)
            .ok()
            .and_then(|validity| start.checked_add(validity))
            .filter(|end| *end <= self.not_after)
            .ok_or_else(|| {
                refused(format!("it would outlive the authority, which ends {}", self.not_after))
            })?;
        let uri = format!("{URI_SCHEME}{identity}").try_into().map_err(broken)?;
        let name = server_name(identity.role()).to_owned().try_into().map_err(broken)?;
        params.subject_alt_names.extend([SanType::URI(uri), SanType::DnsName(name)]);
        params.distinguished_name = common_name(identity.to_string());
        params.serial_number = Some(random_serial());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(broken)?;
        let certificate_pem = params.signed_by(&key, &self.issuer).map_err(broken)?.pem();
        Ok(Issued {
            identity: identity.clone(),
            ca_pem: self.certificate_pem.clone(),
            certificate_pem,
            key_pem: key.serialize_pem(),
        })
    }
}

/// A certificate and its key, fresh from the authority.
pub struct Issued {
    /// The holder.
    pub identity: Identity,
    /// The authority's certificate.
    pub ca_pem: String,
    /// The holder's certificate.
    pub certificate_pem: String,
    /// The holder's private key.
    pub key_pem: String,
}

impl Issued {
    /// Writes the files that [`Credentials::load`](crate::Credentials::load) reads into `directory`,
    /// which is made if it does not exist. Each file appears whole or not at all and replaces an
    /// older one; the key is readable by its owner alone. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the directory holds another authority's certificate, or cannot be written.
    pub fn write(&self, directory: &Path) -> Result<CredentialPaths, AuthorityError> {
        fs::create_dir_all(directory).map_err(|error| io_error(directory, error))?;
        let paths = CredentialPaths::of(directory, &self.identity);
        match fs::read(&paths.ca) {
            Ok(present) if present == self.ca_pem.as_bytes() => {}
            Ok(_) => return Err(invalid(&paths.ca, "it is the certificate of another authority")),
            Err(_) => write_new(&paths.ca, self.ca_pem.as_bytes(), CERTIFICATE_MODE)?,
        }
        replace(&paths.key, self.key_pem.as_bytes(), KEY_MODE)?;
        replace(&paths.certificate, self.certificate_pem.as_bytes(), CERTIFICATE_MODE)?;
        Ok(paths)
    }
}

fn authority_params() -> CertificateParams {
    let now = OffsetDateTime::from(SystemTime::now());
    let mut bytes = [0; 4];
    OsRng::new().fill(&mut bytes);
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + AUTHORITY_VALIDITY;
    params.serial_number = Some(random_serial());
    params.distinguished_name = common_name(format!("Cadole CA {:08x}", u32::from_be_bytes(bytes)));
    // It signs holders' certificates and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn random_serial() -> SerialNumber {
    let mut bytes = [0; SERIAL_BYTES];
    OsRng::new().fill(&mut bytes);
    // Positive, and never with a leading zero that encoders disagree about.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.crt"), directory.join("ca.key"))
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => AuthorityError::Missing { path: path.to_owned() },
        _ => io_error(path, error),
    })
}

/// Writes a file that does not exist yet: it appears whole, and nobody's file is replaced.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = write_temporary(path, bytes, mode)?;
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    linked.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::Exists { path: path.to_owned() },
        _ => io_error(path, error),
    })?;
    removed.map_err(|error| io_error(&temporary, error))?;
    sync_directory(path)
}

/// Writes a file, or replaces it as a whole.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = write_temporary(path, bytes, mode)?;
    fs::rename(&temporary, path).map_err(|error| io_error(path, error))?;
    sync_directory(path)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, AuthorityError> {
    let temporary = path.with_extension(format!("tmp-{:016x}", OsRng::new().u64()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // Best effort: what matters is the first error.
        let _ = fs::remove_file(&temporary);
        io_error(&temporary, error)
    })?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> Result<(), AuthorityError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| io_error(directory, error))
}

fn io_error(path: &Path, error: io::Error) -> AuthorityError {
    AuthorityError::Io { path: path.to_owned(), error }
}

fn invalid(path: &Path, reason: impl Into<String>) -> AuthorityError {
    AuthorityError::Invalid { path: path.to_owned(), reason: reason.into() }
}
