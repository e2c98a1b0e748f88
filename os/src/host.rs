//! The host: everything of this crate in one bundle.

use std::path::PathBuf;
use std::time::Duration;

use env::{Clock, Env, NetError};
use tracing::warn;

use crate::clock::OsClock;
use crate::credentials::Credentials;
use crate::disk::{EngineChoice, OsDisks};
use crate::kv::OsKvs;
use crate::net::OsNet;
use crate::rng::OsRng;
use crate::spawn::OsSpawn;

/// How long before its end a certificate is complained about.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Who this process is.
    pub credentials: Credentials,
    /// Where key-value stores lie; without it there are none, which is enough for clients.
    pub kv_directory: Option<PathBuf>,
    /// What serves the disks.
    pub disk_engine: EngineChoice,
}

impl HostOptions {
    /// A host without key-value stores.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, kv_directory: None, disk_engine: EngineChoice::default() }
    }

    /// The same with key-value stores in `directory`.
    #[must_use]
    pub fn kv_directory(self, directory: impl Into<PathBuf>) -> Self {
        Self { kv_directory: Some(directory.into()), ..self }
    }

    /// The same with disks served by `engine`.
    #[must_use]
    pub fn disk_engine(self, engine: EngineChoice) -> Self {
        Self { disk_engine: engine, ..self }
    }
}

/// The host cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// This machine, under one certificate. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    clock: OsClock,
    rng: OsRng,
    spawn: OsSpawn,
    disks: OsDisks,
    net: OsNet,
    kvs: OsKvs,
}

impl Host {
    /// Starts the host. Must be called within a tokio runtime, to which its tasks then belong.
    ///
    /// # Errors
    ///
    /// When no socket can be made.
    pub fn start(options: HostOptions) -> Result<Self, StartError> {
        let clock = OsClock::new();
        let not_after = options.credentials.not_after();
        if not_after.since(clock.wall()) < EXPIRY_WARNING {
            warn!(
                identity = %options.credentials.identity(),
                not_after = %not_after,
                "the certificate expires soon: issue a new one with `cadoled ca issue`"
            );
        }
        Ok(Self {
            clock,
            rng: OsRng::new(),
            spawn: OsSpawn::new(),
            disks: OsDisks::new(options.disk_engine),
            net: OsNet::start(options.credentials)?,
            kvs: OsKvs::new(options.kv_directory),
        })
    }

    /// Closes all connections and listeners and tells the peers so. To be called last: what was sent
    /// and has not arrived is lost. Takes at most a second.
    pub async fn stop(&self) {
        self.net.stop().await;
    }
}

impl Env for Host {
    type Clock = OsClock;
    type Rng = OsRng;
    type Spawn = OsSpawn;
    type Disks = OsDisks;
    type Net = OsNet;
    type Kvs = OsKvs;

    fn clock(&self) -> &OsClock {
        &self.clock
    }

    fn rng(&self) -> &OsRng {
        &self.rng
    }

    fn spawn(&self) -> &OsSpawn {
        &self.spawn
    }

    fn disks(&self) -> &OsDisks {
        &self.disks
    }

    fn net(&self) -> &OsNet {
        &self.net
    }

    fn kvs(&self) -> &OsKvs {
        &self.kvs
    }
}
