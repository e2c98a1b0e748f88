//! Peers that speak the protocol in ways that the library would not.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use env::rpc::{CallError, Caller, Local, Reply, Target};
use env::{Connection, Env, Expect, Net, NetError, RecvStream, SendStream};
use os::ca::Authority;
use os::{CredentialPaths, Credentials, Host, HostOptions};
use proto::wire::request::Call;
use proto::{Identity, Role, frame, wire};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a peer waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Someone with a certificate.
pub struct Peer {
    host: Host,
    caller: Caller<Host>,
}

impl Peer {
    /// With a valid certificate of the authority in `ca`.
    pub fn of(ca: &Path, identity: &str) -> Self {
        Self::with(&issue(ca, identity))
    }

    /// With the certificate in these files.
    pub fn with(paths: &CredentialPaths) -> Self {
        let credentials = Credentials::load(paths).expect("credentials");
        let host = Host::start(HostOptions::new(credentials)).expect("a host");
        Self { caller: Caller::new(host.clone(), Local::new()), host }
    }

    /// Sends a call as it is: no leader is looked for, nothing is repeated.
    ///
    /// # Errors
    ///
    /// What the peer answers, or that it does not.
    pub async fn call(&self, address: &str, role: Role, call: Call) -> Result<Reply, CallError> {
        self.call_with(address, role, call, Bytes::new()).await
    }

    /// The same with a payload.
    ///
    /// # Errors
    ///
    /// What the peer answers, or that it does not.
    pub async fn call_with(
        &self,
        address: &str,
        role: Role,
        call: Call,
        payload: Bytes,
    ) -> Result<Reply, CallError> {
        let target = Target { address: address.to_owned(), expect: Expect::Role(role) };
        self.caller.call(&target, call, vec![payload], TIMEOUT).await
    }

    /// Connects and greets as any peer does, then sends `bytes` on a stream of its own and gives back
    /// all that is answered, or how the stream ended.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the peer gives up the stream.
    pub async fn send_raw(
        &self,
        address: &str,
        role: Role,
        bytes: &[u8],
        end: StreamEnd,
    ) -> Result<Vec<u8>, NetError> {
        let connection = self.host.net().connect(address, &Expect::Role(role)).await?;
        let (mut send, mut recv) = connection.open().await?;
        let hello = wire::Hello { version_min: 1, version_max: 1, ..Default::default() };
        send.write(frame::encode(&hello).expect("small")).await?;
        send.finish()?;
        read_all(&mut recv).await?;
        let (mut send, mut recv) = connection.open().await?;
        send.write(Bytes::copy_from_slice(bytes)).await?;
        match end {
            StreamEnd::Finish => send.finish()?,
            StreamEnd::Reset => {
                drop(send);
                return Ok(Vec::new());
            }
            StreamEnd::Open => {
                let answer = read_all(&mut recv).await;
                drop(send);
                return answer;
            }
        }
        read_all(&mut recv).await
    }

    /// Connects and sends `bytes` instead of a greeting.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the peer gives up the stream.
    pub async fn greet_raw(&self, address: &str, role: Role, bytes: &[u8]) -> Result<Vec<u8>, NetError> {
        let connection = self.host.net().connect(address, &Expect::Role(role)).await?;
        let (mut send, mut recv) = connection.open().await?;
        send.write(Bytes::copy_from_slice(bytes)).await?;
        send.finish()?;
        read_all(&mut recv).await
    }

    /// Tries to connect, and no more.
    ///
    /// # Errors
    ///
    /// Why the peer will not have us.
    pub async fn connect(&self, address: &str, role: Role) -> Result<(), NetError> {
        let connection = self.host.net().connect(address, &Expect::Role(role)).await?;
        // A server may find out about our certificate only after we think that we are connected.
        let (mut send, mut recv) = connection.open().await?;
        let hello = wire::Hello { version_min: 1, version_max: 1, ..Default::default() };
        send.write(frame::encode(&hello).expect("small")).await?;
        send.finish()?;
        read_all(&mut recv).await.map(|_| ())
    }
}

/// How a raw stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// As it should.
    Finish,
    /// It is reset, as when the sender dies.
    Reset,
    /// Not at all: the sender goes on waiting.
    Open,
}

async fn read_all<R: RecvStream>(recv: &mut R) -> Result<Vec<u8>, NetError> {
    let mut all = Vec::new();
    while let Some(bytes) = recv.read(1 << 20).await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Issues a certificate that is valid for a year.
pub fn issue(ca: &Path, identity: &str) -> CredentialPaths {
    issue_from(ca, identity, SystemTime::now(), DAY * 365)
}

/// Issues a certificate that is valid from `start` on.
pub fn issue_from(ca: &Path, identity: &str, start: SystemTime, validity: Duration) -> CredentialPaths {
    let identity: Identity = identity.parse().expect("an identity");
    let authority = Authority::open(ca).expect("an authority");
    let issued = authority.issue_at(&identity, start, validity).expect("a certificate");
    // A directory of its own: two that write there at the same time would both make the CA's certificate.
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    issued.write(&ca.with_file_name(format!("more-certs-{number}"))).expect("written")
}

/// The failure in an answer as it stands on the wire.
pub fn failure_in(answer: &[u8]) -> Option<proto::Failure> {
    let header = Bytes::copy_from_slice(answer.get(frame::LENGTH_BYTES..)?);
    match frame::decode::<wire::Response>(header).ok()?.result? {
        wire::response::Result::Failure(failure) => Some(proto::Failure::from_wire(failure)),
        _ => None,
    }
}
