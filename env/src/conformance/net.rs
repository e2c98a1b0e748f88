//! The suite of [`Net`].

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use proto::{Identity, Role};

use super::Fixed;
use crate::net::{Connection, Expect, Listener, Net, NetError, RecvStream, SendStream};
use crate::{Clock, Elapsed, Env};

/// Where [`net`] listens and who the hosts are.
#[derive(Clone, Debug)]
pub struct NetCase {
    /// Whom the certificate of the host that listens names.
    pub listening: Identity,
    /// Whom the certificate of the host that connects names.
    pub connecting: Identity,
    /// An address of the host that listens, with port 0.
    pub address: String,
    /// An address where nobody listens.
    pub nobody: String,
}

/// Long enough for anything that must happen, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for a sender to fill every window, in the tests where it must stall.
const SETTLE: Duration = Duration::from_millis(500);

type Pair<E> = (<<E as Env>::Net as Net>::Connection, <<E as Env>::Net as Net>::Connection);
type SendOf<E> = <<<E as Env>::Net as Net>::Connection as Connection>::Send;
type RecvOf<E> = <<<E as Env>::Net as Net>::Connection as Connection>::Recv;

/// Checks the contract of two hosts' networks: `a` listens, `b` connects.
///
/// # Panics
///
/// When a clause is broken.
pub async fn net<E: Env>(a: &E, b: &E, case: &NetCase) {
    let suite = Suite { a, b, case };
    let mut listener = suite.listens().await;
    suite.nobody_is_unreachable().await;
    suite.wrong_peers_are_refused(&mut listener).await;
    suite.identities(&mut listener).await;
    suite.bytes_arrive(&mut listener).await;
    suite.streams_are_independent(&mut listener).await;
    suite.unfinished_streams_fail(&mut listener).await;
    suite.dropped_receivers_stop_senders(&mut listener).await;
    suite.slow_readers_hold_senders(&mut listener).await;
    suite.reads_can_be_dropped(&mut listener).await;
    suite.close_fails_both_sides(&mut listener).await;
    suite.last_clone_closes(&mut listener).await;
}

struct Suite<'a, E> {
    a: &'a E,
    b: &'a E,
    case: &'a NetCase,
}

impl<E: Env> Suite<'_, E> {
    async fn listens(&self) -> <E::Net as Net>::Listener {
        let listener = self.a.net().listen(&self.case.address).await.expect("port 0 is always free");
        let address = listener.address();
        assert!(!address.ends_with(":0"), "the address names the port that was chosen: {address}");
        listener
    }

    async fn within<T: Send>(&self, what: &str, work: impl Future<Output = T> + Send) -> T {
        match self.b.clock().timeout(PATIENCE, work).await {
            Ok(done) => done,
            Err(Elapsed) => panic!("{what}: nothing happened within {PATIENCE:?}"),
        }
    }

    async fn connect(&self, listener: &mut <E::Net as Net>::Listener) -> Pair<E> {
        let address = listener.address();
        let expect = Expect::Exactly(self.case.listening.clone());
        let both = async { tokio::join!(listener.accept(), self.b.net().connect(&address, &expect)) };
        let (accepted, connected) = self.within("connect", both).await;
        (accepted.expect("the host is not stopping"), connected.expect("the peer is the expected one"))
    }

    /// A stream that `b` opens and `a` accepts: `a`'s halves, then `b`'s. The first byte is spent.
    async fn stream(&self, (a, b): &Pair<E>) -> (SendOf<E>, RecvOf<E>, SendOf<E>, RecvOf<E>) {
        let work = async {
            let (mut b_send, b_recv) = b.open().await.expect("open");
            b_send.write(Bytes::from_static(b"!")).await.expect("the first byte");
            let (a_send, mut a_recv) = a.accept().await.expect("accept");
            assert_eq!(a_recv.read(1).await, Ok(Some(Bytes::from_static(b"!"))));
            (a_send, a_recv, b_send, b_recv)
        };
        self.within("open a stream", work).await
    }

    async fn nobody_is_unreachable(&self) {
        let expect = Expect::Role(self.case.listening.role());
        let attempt = self.b.net().connect(&self.case.nobody, &expect);
        let error = self.within("connect to nobody", attempt).await.err();
        assert!(matches!(error, Some(NetError::Unreachable { .. })), "{error:?}");
    }

    async fn wrong_peers_are_refused(&self, listener: &mut <E::Net as Net>::Listener) {
        let roles = [Role::Meta, Role::Node, Role::Tenant, Role::Operator];
        let others = roles.into_iter().filter(|role| *role != self.case.listening.role()).map(Expect::Role);
        let other_one = Expect::Exactly(self.case.connecting.clone());
        let address = listener.address();
        for expect in others.chain([other_one]) {
            let attempt = self.b.net().connect(&address, &expect);
            let error = self.within("connect to another", attempt).await.err();
            assert!(matches!(error, Some(NetError::Untrusted { .. })), "{expect}: {error:?}");
        }
        // Some of those may have been accepted before the other side hung up.
        let leftovers = async {
            while let Some(connection) = listener.accept().await {
                assert!(connection.accept().await.is_err(), "who is not wanted opens no stream");
            }
        };
        let _ = self.a.clock().timeout(SETTLE, leftovers).await;
    }

    async fn identities(&self, listener: &mut <E::Net as Net>::Listener) {
        let (a, b) = self.connect(listener).await;
        assert_eq!(a.peer(), &self.case.connecting, "the listener knows who connected");
        assert_eq!(b.peer(), &self.case.listening, "who connects knows who listens");
        assert!(!a.is_closed() && !b.is_closed());
        assert_eq!(b.peer_address(), listener.address());
    }

    /// Pieces of all sizes, both ways at once, then an end that stays the end.
    async fn bytes_arrive(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (mut a_send, mut a_recv, mut b_send, mut b_recv) = self.stream(&pair).await;
        let sizes = [0, 1, 2, 1199, 1200, 65_536, 1_000_003, 4 << 20];
        let (there, back) = (random(1, sizes.iter().sum()), random(2, sizes.iter().sum()));
        let work = async {
            tokio::join!(
                send_in_pieces(&mut a_send, &back, &sizes),
                send_in_pieces(&mut b_send, &there, &sizes),
                expect_all(&mut a_recv, &there, 100_000),
                expect_all(&mut b_recv, &back, usize::MAX),
            )
        };
        self.within("send both ways", work).await;
        assert_eq!(a_recv.read(1).await, Ok(None), "the end stays the end");
        assert!(a_send.write(Bytes::from_static(b"x")).await.is_err(), "nothing follows the end");
        assert!(a_send.finish().is_err(), "a stream ends once");
    }

    /// One stream is full and nobody reads it; a hundred others get through, in any order.
    async fn streams_are_independent(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (_a_send, _unread, mut stalled, _b_recv) = self.stream(&pair).await;
        let piece = random(3, 256 * 1024);
        let fill = async { while stalled.write(piece.clone()).await.is_ok() {} };
        assert_eq!(self.b.clock().timeout(SETTLE, fill).await, Err(Elapsed), "a full stream stalls");

        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(self.stream(&pair).await);
        }
        let message = random(4, 50_000);
        for (index, (_, recv, send, _)) in streams.iter_mut().enumerate().rev() {
            let mut message = message.to_vec();
            message.push(u8::try_from(index).expect("a hundred"));
            let message = Bytes::from(message);
            let work =
                async { tokio::join!(send_whole(send, &message), expect_all(recv, &message, usize::MAX)) };
            self.within("use a stream beside a stalled one", work).await;
        }
    }

    async fn unfinished_streams_fail(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (a_send, mut a_recv, mut b_send, mut b_recv) = self.stream(&pair).await;
        b_send.write(random(5, 1000)).await.expect("write");
        drop(b_send);
        let error = self.within("read a reset stream", drain(&mut a_recv)).await;
        assert_eq!(error, Err(NetError::Reset), "a stream that was dropped is never a short message");
        drop(a_send);
        let error = self.within("read a reset stream", drain(&mut b_recv)).await;
        assert_eq!(error, Err(NetError::Reset), "nor in the other direction");

        // A write that was cut short: what follows cannot pass for the whole.
        let (_a_send, mut a_recv, mut b_send, _b_recv) = self.stream(&pair).await;
        let cut = b_send.write(random(6, 64 << 20));
        assert_eq!(self.b.clock().timeout(SETTLE, cut).await, Err(Elapsed), "nobody reads 64 MiB");
        assert!(b_send.finish().is_err(), "half a message cannot be finished");
        drop(b_send);
        let error = self.within("read half a message", drain(&mut a_recv)).await;
        assert_eq!(error, Err(NetError::Reset));
        assert!(!pair.0.is_closed() && !pair.1.is_closed(), "the connection is unharmed");
    }

    async fn dropped_receivers_stop_senders(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (_a_send, a_recv, mut b_send, _b_recv) = self.stream(&pair).await;
        drop(a_recv);
        let write = async {
            loop {
                if let Err(error) = b_send.write(random(7, 1000)).await {
                    break error;
                }
                self.b.clock().sleep(Duration::from_millis(1)).await;
            }
        };
        assert_eq!(self.within("write to nobody", write).await, NetError::Reset);
        assert!(!pair.0.is_closed() && !pair.1.is_closed(), "the connection is unharmed");
    }

    /// 64 MiB to a reader that rests: the sender waits, and all of it arrives in the end.
    async fn slow_readers_hold_senders(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (_a_send, mut a_recv, mut b_send, _b_recv) = self.stream(&pair).await;
        let piece = random(8, 1 << 20);
        let mut sent_pieces = 0;
        let mut send = Box::pin(async {
            for _ in 0..64 {
                b_send.write(piece.clone()).await.expect("write");
                sent_pieces += 1;
            }
            b_send.finish().expect("finish");
        });
        assert_eq!(self.b.clock().timeout(SETTLE, &mut send).await, Err(Elapsed), "the sender must wait");
        let receive = async {
            for _ in 0..64 {
                for part in piece.chunks(64 * 1024) {
                    expect_next(&mut a_recv, part).await;
                }
            }
            assert_eq!(a_recv.read(1).await, Ok(None));
        };
        self.within("read slowly", async { tokio::join!(send, receive) }).await;
        assert_eq!(sent_pieces, 64);
    }

    async fn reads_can_be_dropped(&self, listener: &mut <E::Net as Net>::Listener) {
        let pair = self.connect(listener).await;
        let (_a_send, mut a_recv, mut b_send, _b_recv) = self.stream(&pair).await;
        let early = self.a.clock().timeout(Duration::from_millis(10), a_recv.read(10)).await;
        assert_eq!(early, Err(Elapsed), "nothing was sent");
        let message = random(9, 300_000);
        let send = send_whole(&mut b_send, &message);
        let receive = async {
            let mut all = Vec::new();
            loop {
                // Sometimes it wins and sometimes the read; either way nothing is lost.
                match self.a.clock().timeout(Duration::ZERO, a_recv.read(1000)).await {
                    Ok(Ok(Some(bytes))) => all.extend_from_slice(&bytes),
                    Ok(Ok(None)) => break all,
                    Ok(Err(error)) => panic!("{error}"),
                    Err(Elapsed) => self.a.clock().sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let ((), all) = self.within("read in haste", async { tokio::join!(send, receive) }).await;
        assert!(all == message, "a dropped read lost bytes");
    }

    async fn close_fails_both_sides(&self, listener: &mut <E::Net as Net>::Listener) {
        for closer in 0..2 {
            let (a, b) = self.connect(listener).await;
            let pair = (a.clone(), b.clone());
            let (_a_send, mut a_recv, _b_send, mut b_recv) = self.stream(&pair).await;
            if closer == 0 {
                a.close("enough")
            } else {
                b.close("enough")
            }
            let work = async {
                assert!(matches!(a_recv.read(1).await, Err(NetError::Lost(_))), "a's stream fails");
                assert!(matches!(b_recv.read(1).await, Err(NetError::Lost(_))), "b's stream fails");
                assert!(a.accept().await.is_err() && b.accept().await.is_err(), "no stream is accepted");
                assert!(a.open().await.is_err() && b.open().await.is_err(), "no stream is opened");
            };
            self.within("close", work).await;
            assert!(a.is_closed() && b.is_closed(), "both sides know");
        }
    }

    async fn last_clone_closes(&self, listener: &mut <E::Net as Net>::Listener) {
        let (a, b) = self.connect(listener).await;
        let clone = b.clone();
        drop(b);
        let pair = (a, clone);
        let (_a_send, mut a_recv, mut b_send, b_recv) = self.stream(&pair).await;
        let (a, clone) = pair;
        drop(clone);
        b_send.write(Bytes::from_static(b"still here")).await.expect("a stream holds its connection");
        self.within("read", expect_next(&mut a_recv, b"still here")).await;
        drop((b_send, b_recv));
        assert!(self.within("the end of the last", a.accept()).await.is_err());
    }
}

fn random(seed: u64, length: usize) -> Bytes {
    let mut fixed = Fixed(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&fixed.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn send_in_pieces<S: SendStream>(send: &mut S, bytes: &Bytes, sizes: &[usize]) {
    let mut rest = bytes.clone();
    for size in sizes {
        send.write(rest.split_to(*size)).await.expect("write");
    }
    assert!(rest.is_empty(), "the sizes cover the bytes");
    send.finish().expect("finish");
}

async fn send_whole<S: SendStream>(send: &mut S, bytes: &Bytes) {
    send_in_pieces(send, bytes, &[bytes.len()]).await;
}

/// Reads to the end, with respect for `max_bytes`.
async fn expect_all<R: RecvStream>(recv: &mut R, bytes: &[u8], max_bytes: usize) {
    let mut read = 0;
    while let Some(piece) = recv.read(max_bytes).await.expect("read") {
        assert!(
            !piece.is_empty() && piece.len() <= max_bytes,
            "{} bytes of at most {max_bytes}",
            piece.len()
        );
        assert!(bytes[read..].starts_with(&piece), "bytes from {read} on differ");
        read += piece.len();
    }
    assert_eq!(read, bytes.len(), "the end comes after the last byte");
}

async fn expect_next<R: RecvStream>(recv: &mut R, bytes: &[u8]) {
    let mut read = 0;
    while read < bytes.len() {
        let piece = recv.read(bytes.len() - read).await.expect("read").expect("more bytes");
        assert!(bytes[read..].starts_with(&piece), "bytes differ");
        read += piece.len();
    }
}

async fn drain<R: RecvStream>(recv: &mut R) -> Result<(), NetError> {
    while recv.read(usize::MAX).await?.is_some() {}
    Ok(())
}
