//! A cluster's authority in a directory, and hosts with its certificates.

use std::time::Duration;

use os::ca::{Authority, Issued};
use os::{Credentials, Host, HostOptions};
use proto::Identity;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// An authority and what it issued; removed when dropped.
pub(crate) struct Trust {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Trust {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::init(&directory.path().join("ca")).unwrap();
        Self { directory, authority }
    }

    pub(crate) fn issue(&self, holder: &str) -> Issued {
        self.authority.issue(&identity(holder), DAY, &[]).unwrap()
    }

    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn issue_expired(&self, holder: &str) -> Issued {
        self.authority.issue_at(&identity(holder), std::time::SystemTime::now() - 2 * DAY, DAY).unwrap()
    }

    pub(crate) fn host(&self, holder: &str) -> Host {
        let paths = self.issue(holder).write(&self.directory.path().join("host")).unwrap();
        Host::start(HostOptions::new(Credentials::load(&paths).unwrap())).unwrap()
    }
}
