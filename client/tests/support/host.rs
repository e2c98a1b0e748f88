//! A host in this process: virtual time, a network of channels, no disks.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use env::buf::AlignedBuf;
use env::{
    Batch, Clock, Connection, Disk, DiskFile, Disks, Env, Expect, FileName, Kv, KvRead, Kvs, Listener,
    Monotonic, Net, NetError, Order, Priority, Read, RecvStream, Rng, Row, SendStream, Space, Spawn,
    StorageError, Table, Task, Write,
};
use proto::{Identity, Timestamp};
use tokio::sync::mpsc;

/// The network that hosts share.
pub type Wires = Arc<Mutex<BTreeMap<String, (Identity, mpsc::Sender<Link>)>>>;

#[derive(Clone)]
pub struct Host {
    pub me: Identity,
    pub wires: Wires,
    seed: Arc<Mutex<u64>>,
}

impl Host {
    pub fn new(me: &str, wires: &Wires) -> Self {
        Self { me: me.parse().unwrap(), wires: wires.clone(), seed: Arc::new(Mutex::new(7)) }
    }
}

impl Env for Host {
    type Clock = Self;
    type Rng = Self;
    type Spawn = Self;
    type Disks = Self;
    type Net = Self;
    type Kvs = Self;
    fn clock(&self) -> &Self {
        self
    }
    fn rng(&self) -> &Self {
        self
    }
    fn spawn(&self) -> &Self {
        self
    }
    fn disks(&self) -> &Self {
        self
    }
    fn net(&self) -> &Self {
        self
    }
    fn kvs(&self) -> &Self {
        self
    }
}

impl Clock for Host {
    fn now(&self) -> Monotonic {
        thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
        Monotonic::new(START.with(|start| start.elapsed()))
    }
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl Rng for Host {
    fn fill(&self, bytes: &mut [u8]) {
        let mut seed = self.seed.lock().unwrap();
        for byte in bytes {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_be_bytes()[0];
        }
    }
}

pub struct Handle(tokio::task::JoinHandle<()>);

impl Task for Handle {
    fn abort(&self) {
        self.0.abort();
    }
    async fn join(self) {
        let _ = self.0.await;
    }
}

impl Spawn for Host {
    type Task = Handle;
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, _: &'static str, work: F) -> Handle {
        Handle(tokio::spawn(work))
    }
}

/// A connection: each side opens streams into the other's queue.
#[derive(Clone)]
pub struct Link {
    peer: Identity,
    out: mpsc::Sender<(Pipe, Pipe)>,
    inward: Arc<tokio::sync::Mutex<mpsc::Receiver<(Pipe, Pipe)>>>,
}

enum Piece {
    Data(Bytes),
    End,
}

/// One half of a stream, or rather both of its ends.
pub struct Pipe {
    send: Option<mpsc::Sender<Piece>>,
    recv: Option<mpsc::Receiver<Piece>>,
    rest: Bytes,
}

fn pipe() -> (Pipe, Pipe) {
    let (send, recv) = mpsc::channel(64);
    let of = |send, recv| Pipe { send, recv, rest: Bytes::new() };
    (of(Some(send), None), of(None, Some(recv)))
}

impl SendStream for Pipe {
    async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        let send = self.send.as_ref().ok_or(NetError::Reset)?;
        send.send(Piece::Data(bytes)).await.map_err(|_| NetError::Reset)
    }
    fn finish(&mut self) -> Result<(), NetError> {
        let send = self.send.take().ok_or(NetError::Reset)?;
        send.try_send(Piece::End).map_err(|_| NetError::Reset)
    }
}

impl RecvStream for Pipe {
    async fn read(&mut self, max_bytes: usize) -> Result<Option<Bytes>, NetError> {
        while self.rest.is_empty() {
            match self.recv.as_mut().unwrap().recv().await {
                Some(Piece::Data(bytes)) => self.rest = bytes,
                Some(Piece::End) => return Ok(None),
                None => return Err(NetError::Reset),
            }
        }
        Ok(Some(self.rest.split_to(max_bytes.min(self.rest.len()))))
    }
}

impl Connection for Link {
    type Send = Pipe;
    type Recv = Pipe;
    fn peer(&self) -> &Identity {
        &self.peer
    }
    fn peer_address(&self) -> String {
        "here".to_owned()
    }
    async fn open(&self) -> Result<(Pipe, Pipe), NetError> {
        let (our_send, their_recv) = pipe();
        let (their_send, our_recv) = pipe();
        let lost = |_| NetError::Lost("gone".to_owned());
        self.out.send((their_send, their_recv)).await.map_err(lost)?;
        Ok((our_send, our_recv))
    }
    async fn accept(&self) -> Result<(Pipe, Pipe), NetError> {
        let next = self.inward.lock().await.recv().await;
        next.ok_or_else(|| NetError::Lost("gone".to_owned()))
    }
    fn close(&self, _: &str) {}
    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }
}

pub struct Door {
    address: String,
    arrivals: mpsc::Receiver<Link>,
}

impl Listener for Door {
    type Connection = Link;
    async fn accept(&mut self) -> Option<Link> {
        self.arrivals.recv().await
    }
    fn address(&self) -> String {
        self.address.clone()
    }
}

impl Net for Host {
    type Listener = Door;
    type Connection = Link;
    async fn connect(&self, address: &str, expect: &Expect) -> Result<Link, NetError> {
        let found = self.wires.lock().unwrap().get(address).cloned();
        // Nobody there: as silent as a host that is switched off.
        let Some((peer, door)) = found else { return pending().await };
        assert!(expect.accepts(&peer), "{peer} is not {expect}");
        let queue = || mpsc::channel(1024);
        let ((to_them, for_them), (to_us, for_us)) = (queue(), queue());
        let link = |peer, out, inward| Link { peer, out, inward: Arc::new(tokio::sync::Mutex::new(inward)) };
        let theirs = link(self.me.clone(), to_us, for_them);
        door.send(theirs).await.map_err(|_| NetError::Lost("gone".to_owned()))?;
        Ok(link(peer, to_them, for_us))
    }
    async fn listen(&self, address: &str) -> Result<Door, NetError> {
        let (door, arrivals) = mpsc::channel(16);
        self.wires.lock().unwrap().insert(address.to_owned(), (self.me.clone(), door));
        Ok(Door { address: address.to_owned(), arrivals })
    }
}

/// What these hosts do not have.
#[derive(Clone)]
pub enum Never {}

impl Disks for Host {
    type Disk = Never;
    async fn open(&self, _: &str) -> Result<Never, StorageError> {
        pending().await
    }
}

impl Kvs for Host {
    type Kv = Never;
    async fn open(&self, _: &str, _: &[Table]) -> Result<Never, StorageError> {
        pending().await
    }
    async fn list(&self) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
    async fn remove(&self, _: &str) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Disk for Never {
    type File = Self;
    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        match *self {}
    }
    async fn open(&self, _: &FileName) -> Result<Self, StorageError> {
        match *self {}
    }
    async fn create(&self, _: &FileName, _: u64) -> Result<Self, StorageError> {
        match *self {}
    }
    async fn rename(&self, _: &FileName, _: &FileName) -> Result<(), StorageError> {
        match *self {}
    }
    async fn remove(&self, _: &FileName) -> Result<(), StorageError> {
        match *self {}
    }
    async fn flush_names(&self) -> Result<(), StorageError> {
        match *self {}
    }
    async fn space(&self) -> Result<Space, StorageError> {
        match *self {}
    }
    fn engine(&self) -> String {
        match *self {}
    }
}

impl DiskFile for Never {
    async fn write(&self, _: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        match *self {}
    }
    async fn read(&self, _: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        match *self {}
    }
    async fn flush(&self) -> Result<(), StorageError> {
        match *self {}
    }
    async fn size(&self) -> Result<u64, StorageError> {
        match *self {}
    }
}

impl KvRead for Never {
    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match *self {}
    }
    fn scan(&self, _: Table, _: &env::KeyRange, _: Order, _: usize) -> Result<Vec<Row>, StorageError> {
        match *self {}
    }
}

impl Kv for Never {
    fn write(&self, _: Batch) -> Result<(), StorageError> {
        match *self {}
    }
    async fn flush(&self) -> Result<(), StorageError> {
        match *self {}
    }
    async fn checkpoint(&self, _: &str) -> Result<(), StorageError> {
        match *self {}
    }
}
