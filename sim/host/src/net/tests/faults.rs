//! Breaks within messages, limits, and taps.

use std::sync::Mutex;
use std::time::Duration;

use env::rpc::CallError;
use env::{Connection, NetError, RecvStream, SendStream};

use super::*;
use crate::host::HostId;
use crate::net::{Link, Sent, Tap, Verdict};
use crate::world::lock;

/// Sends messages on many streams and connections, reads them at the other end, and counts how many came
/// whole and how many did not. What came is always the beginning of what was sent.
async fn storm(scene: &Scene, seed: u64) -> (u32, u32) {
    let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
    let random_lengths = Stream::new(seed);
    let (mut whole, mut failed) = (0, 0);
    for _ in 0..10 {
        let (ours, theirs) = scene.pair(&tenant, &node).await;
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let (mut tasks, mut lengths) = (Vec::new(), Vec::new());
        for number in 0..8_u8 {
            let length = usize::try_from(random_lengths.skewed(1, 3_000_000)).unwrap();
            let message = random(u64::from(number), length);
            let cuts = [0, random_lengths.index(length), length];
            let pieces: Vec<_> = cuts.windows(2).map(|cut| message.slice(cut[0]..cut[1])).collect();
            let sender = ours.clone();
            tasks.push(scene.world.spawn("send", async move {
                let Ok((mut send, _recv)) = sender.open().await else { return };
                if send.write(Bytes::copy_from_slice(&[number])).await.is_ok() {
                    drop(write_all(&mut send, &pieces).await);
                }
            }));
            let (receiver, outcomes) = (theirs.clone(), outcomes.clone());
            tasks.push(scene.world.spawn("receive", async move {
                let Ok((_send, mut recv)) = receiver.accept().await else { return };
                let Ok(Some(number)) = recv.read(1).await else { return };
                let (bytes, result) = read_all(&mut recv, 100_000).await;
                lock(&outcomes).push((number[0], bytes, result));
            }));
            lengths.push(length);
        }
        drop((ours, theirs));
        for task in tasks {
            env::Task::join(task).await;
        }
        for (number, bytes, result) in lock(&outcomes).drain(..) {
            let length = lengths[usize::from(number)];
            let message = random(u64::from(number), length);
            assert!(message.starts_with(&bytes), "stream {number}: something else arrived");
            match result {
                Ok(()) => {
                    assert_eq!(bytes.len(), length, "stream {number} ended early");
                    whole += 1;
                }
                Err(_) => failed += 1,
            }
        }
    }
    (whole, failed)
}

/// Whatever breaks, what a stream gives is whole, or an error comes after the beginning of it.
#[test]
fn whole_or_failed() {
    let (mut whole, mut failed) = (0, 0);
    for seed in 0..30 {
        let scene = Scene::on(seed, SCHEDULES[usize::try_from(seed % 3).unwrap()]);
        scene.world.network().configure(NetFaults { reset_ppm: 10_000, ..rough() });
        let (a, b) = (scene.tenant.id(), scene.node.id());
        let world = scene.world.clone();
        let stream = world.stream("flapping");
        scene.world.spawn("flap", async move {
            loop {
                world.sleep(Duration::from_micros(stream.skewed(1, 3_000_000))).await;
                let (from, to) = if stream.chance(500_000) { (a, b) } else { (b, a) };
                let link = [Link::Up, Link::Cut, Link::Slow { extra_us: 50_000 }][stream.index(3)];
                world.network().set_link(from, to, link);
                world.sleep(Duration::from_micros(stream.skewed(1, 2_000_000))).await;
                world.network().heal();
                if stream.chance(50_000) {
                    world.network().break_connections(a, b);
                }
            }
        });
        let (some_whole, some_failed) = scene.run(storm(&scene, seed));
        whole += some_whole;
        failed += some_failed;
    }
    println!("{whole} whole, {failed} failed");
    assert!(whole > 500 && failed > 50, "{whole} whole, {failed} failed");
}

/// A side opens 256 streams at most; another one when the first is done with on both sides.
#[test]
fn stream_limit() {
    let scene = Scene::new(1);
    let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
    scene.run(async {
        let (ours, theirs) = scene.pair(&tenant, &node).await;
        let mut streams = Vec::new();
        for _ in 0..256 {
            streams.push(ours.open().await.unwrap());
        }
        let opened = Arc::new(AtomicU32::new(0));
        let (more, count) = (ours.clone(), opened.clone());
        scene.world.spawn("open", async move {
            let streams = more.open().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
            drop(streams);
        });
        // The last one's arrival makes all of them arrive, in order.
        streams[255].0.write(Bytes::from_static(b"x")).await.unwrap();
        let mut accepted = Vec::new();
        for _ in 0..256 {
            accepted.push(theirs.accept().await.unwrap());
        }
        assert_eq!(accepted[255].1.read(5).await, Ok(Some(Bytes::from_static(b"x"))));
        drop(streams.pop());
        scene.sleep_ms(1000).await;
        assert_eq!(opened.load(Ordering::Relaxed), 0, "the peer holds its halves");
        drop(accepted.pop());
        scene.sleep_ms(1000).await;
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    });
}

/// All unread bytes of a connection together are limited, and room comes back however they go.
#[test]
fn connection_window() {
    for stop in [false, true] {
        let scene = Scene::new(1);
        let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
        scene.run(async {
            let (ours, theirs) = scene.pair(&tenant, &node).await;
            let done = Arc::new(AtomicU32::new(0));
            let piece = random(1, 1 << 20);
            for _ in 0..20 {
                let (ours, done, piece) = (ours.clone(), done.clone(), piece.clone());
                scene.world.spawn("send", async move {
                    let (mut send, _recv) = ours.open().await.unwrap();
                    write_all(&mut send, &[piece]).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            scene.sleep_ms(1000).await;
            assert_eq!(done.load(Ordering::Relaxed), 16, "16 MiB and no more");
            for _ in 0..4 {
                let (_send, mut recv) = theirs.accept().await.unwrap();
                if !stop {
                    assert_eq!(read_all(&mut recv, usize::MAX).await, (piece.to_vec(), Ok(())));
                }
            }
            scene.sleep_ms(1000).await;
            assert_eq!(done.load(Ordering::Relaxed), 20);
        });
    }
}

/// What a tap saw: who wrote to whom, on which stream, as opener or not, and which write it was.
type Seen = (HostId, HostId, u64, bool, u64, Bytes);

#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<Seen>>,
    verdict: Mutex<Option<(u64, Verdict)>>,
}

impl Tap for Recorder {
    fn message(&self, sent: Sent<'_>) -> Verdict {
        let Sent { from, to, stream, opener, index, .. } = sent;
        lock(&self.seen).push((from, to, stream, opener, index, sent.bytes.clone()));
        let verdict = lock(&self.verdict);
        match &*verdict {
            Some((index, verdict)) if *index == sent.index && sent.opener => verdict.clone(),
            _ => Verdict::Pass,
        }
    }
}

/// A tap sees each write once; it can replace one, or refuse it: then both sides see a reset, and the
/// connection goes on.
#[test]
fn taps() {
    for seed in 0..10 {
        let scene = Scene::new(seed);
        scene.world.network().configure(rough());
        scene.serve();
        let caller = scene.caller();
        let tap = Arc::new(Recorder::default());
        scene.run(async {
            let call = || {
                let payload = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
                caller.call(&scene.target, write(1), payload, Duration::from_secs(60))
            };
            assert!(call().await.is_ok());
            scene.world.network().set_tap(Some(tap.clone()));
            assert_eq!(call().await.unwrap().payload, &b"owteno"[..]);
            let seen = std::mem::take(&mut *lock(&tap.seen));
            let (tenant, node) = (scene.tenant.id(), scene.node.id());
            let who: Vec<_> = seen.iter().map(|seen| (seen.0, seen.1, seen.3, seen.4)).collect();
            let request = (tenant, node, true);
            assert_eq!(
                who,
                [
                    (request.0, request.1, true, 0),
                    (request.0, request.1, true, 1),
                    (request.0, request.1, true, 2),
                    (node, tenant, false, 0),
                    (node, tenant, false, 1),
                ]
            );
            assert!(seen.iter().all(|other| other.2 == seen[0].2), "one stream");
            assert_eq!((&seen[1].5[..], &seen[2].5[..]), (&b"one"[..], &b"two"[..]));

            *lock(&tap.verdict) = Some((1, Verdict::Replace(Bytes::from_static(b"ONE"))));
            assert_eq!(call().await.unwrap().payload, &b"owtENO"[..]);
            *lock(&tap.verdict) = Some((1, Verdict::Reset));
            let refused = call().await;
            assert!(
                matches!(refused, Err(CallError::Net { error: NetError::Reset, .. } | CallError::Failed(_))),
                "{refused:?}"
            );
            let before = scene.world.network().connections();
            scene.world.network().set_tap(None);
            assert_eq!(call().await.unwrap().payload, &b"owteno"[..]);
            assert_eq!(scene.world.network().connections(), before);
            scene.sleep_ms(1000).await;
            assert_eq!(scene.echo.under_way(), 0, "the request cut short is over");
        });
    }
}

/// Connections that nobody holds any more are forgotten.
#[test]
fn nothing_stays() {
    let scene = Scene::new(1);
    let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
    scene.run(async {
        for _ in 0..20 {
            let (ours, theirs) = scene.pair(&tenant, &node).await;
            pass(&ours, &theirs, &random(1, 1000)).await;
        }
        scene.sleep_ms(1000).await;
    });
    assert_eq!(scene.world.network().connections(), 0);
}
