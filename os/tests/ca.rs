//! The authority and the credentials that it issues.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use os::ca::{Authority, AuthorityError};
use os::{CredentialPaths, Credentials, CredentialsError};
use proto::Identity;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What is issued loads, for each role, from an authority that was closed and opened again; keys are
/// for their owner's eyes alone and no temporary file stays behind.
#[test]
fn issued_credentials_load() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, host) = (directory.path().join("ca"), directory.path().join("host"));
    Authority::init(&ca).unwrap();
    assert_eq!(mode(&ca.join("ca.key")), 0o600);
    let authority = Authority::open(&ca).unwrap();
    for holder in ["meta/1", "node/3", "tenant/dijon", "operator/alice"] {
        let holder = identity(holder);
        let names = ["disk-shelf.example.org".to_owned(), "192.0.2.7".to_owned()];
        let paths = authority.issue(&holder, 30 * DAY, &names).unwrap().write(&host).unwrap();
        assert_eq!(paths, CredentialPaths::of(&host, &holder));
        assert_eq!(mode(&paths.key), 0o600);
        let credentials = Credentials::load(&paths).unwrap();
        assert_eq!(credentials.identity(), &holder);
        assert!(!format!("{credentials:?}").contains("PRIVATE"));
    }
    let mut files: Vec<_> =
        fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files.len(), 9, "{files:?}");
}

/// An authority is never overwritten, and one that is not there is not made by the way.
#[test]
fn authorities_are_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Authority::open(directory.path()), Err(AuthorityError::Missing { .. })));
    Authority::init(directory.path()).unwrap();
    let before = fs::read(directory.path().join("ca.key")).unwrap();
    assert!(matches!(Authority::init(directory.path()), Err(AuthorityError::Exists { .. })));
    fs::remove_file(directory.path().join("ca.crt")).unwrap();
    assert!(matches!(Authority::init(directory.path()), Err(AuthorityError::Exists { .. })));
    assert_eq!(fs::read(directory.path().join("ca.key")).unwrap(), before);
}

/// A key that is not the certificate's is noticed when the authority is opened.
#[test]
fn mixed_up_authorities_do_not_open() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::init(one.path()).unwrap();
    Authority::init(two.path()).unwrap();
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    assert!(matches!(Authority::open(one.path()), Err(AuthorityError::Invalid { .. })));
}

/// A certificate that would outlive its authority is not issued.
#[test]
fn nothing_outlives_the_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::init(directory.path()).unwrap();
    for validity in [21 * 365 * DAY, Duration::MAX] {
        let refused = authority.issue(&identity("node/1"), validity, &[]);
        assert!(matches!(refused, Err(AuthorityError::Refused { .. })));
    }
    assert!(authority.issue(&identity("node/1"), DAY, &["köln".to_owned()]).is_err(), "no DNS name");
}

/// Each way in which files can be wrong has its own error, which names the file.
#[test]
fn wrong_files_are_told_apart() {
    let (ca, other_ca) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (host, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, stranger) =
        (Authority::init(ca.path()).unwrap(), Authority::init(other_ca.path()).unwrap());
    let node = identity("node/3");
    let good = authority.issue(&node, DAY, &[]).unwrap().write(host.path()).unwrap();
    let strange = stranger.issue(&node, DAY, &[]).unwrap().write(other.path()).unwrap();

    let mixed = CredentialPaths { ca: strange.ca.clone(), ..good.clone() };
    let error = Credentials::load(&mixed).unwrap_err();
    assert!(matches!(error, CredentialsError::WrongAuthority { .. }), "{error}");

    let mixed = CredentialPaths { key: strange.key.clone(), ..good.clone() };
    let error = Credentials::load(&mixed).unwrap_err();
    assert!(matches!(error, CredentialsError::KeyMismatch { .. }), "{error}");

    let absent = CredentialPaths { key: host.path().join("absent.key"), ..good.clone() };
    let error = Credentials::load(&absent).unwrap_err();
    assert!(error.to_string().contains("absent.key"), "{error}");

    let error = authority.issue(&node, DAY, &[]).unwrap().write(other.path()).err().unwrap();
    assert!(matches!(error, AuthorityError::Invalid { .. }), "another authority's directory: {error}");

    let last_year = SystemTime::now() - 365 * DAY;
    let expired = authority.issue_at(&node, last_year, DAY).unwrap().write(host.path()).unwrap();
    let error = Credentials::load(&expired).unwrap_err();
    assert!(error.to_string().contains("expired on 20"), "{error}");
    assert!(error.to_string().contains("cadoled ca issue node/3"), "{error}");

    let early = SystemTime::now() + 7 * DAY;
    let early = authority.issue_at(&node, early, DAY).unwrap().write(host.path()).unwrap();
    let error = Credentials::load(&early).unwrap_err();
    assert!(matches!(error, CredentialsError::NotYetValid { .. }), "{error}");

    fs::write(&good.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = Credentials::load(&good).unwrap_err();
    assert!(matches!(error, CredentialsError::Invalid { .. }), "{error}");
}
