//! What the disk does when nothing fails.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::host::Death;
use crate::world::lock;

/// The contract of disks holds for any order of tasks and any latency, and leaves the disk empty.
#[test]
fn conformance() {
    for schedule in [Schedule::Random, Schedule::Fifo, Schedule::Starving] {
        for seed in 0..6 {
            println!("seed {seed}, {schedule:?}");
            let (world, host, device) = machine(seed, schedule);
            if seed == 0 {
                device.configure(DiskFaults {
                    latency_us: (0, 0),
                    flush_us: (0, 0),
                    ..DiskFaults::default()
                });
            } else {
                device.configure(DiskFaults { slow_ppm: 20_000, ..DiskFaults::default() });
            }
            let env = host.boot();
            let suite = async { env::conformance::disks(env.disks(), PATH, "/absent").await };
            world.run(LIMIT, suite).unwrap();
            assert_eq!(device.files(), []);
            let space = device.with(|state| state.space());
            assert_eq!(space.available_bytes, space.capacity_bytes, "all space came back");
        }
    }
}

/// The same seed gives the same trace, another one another.
#[test]
fn repeats() {
    let trace = |seed| {
        let (world, host, _) = machine(seed, Schedule::Random);
        let env = host.boot();
        let suite = async { env::conformance::disks(env.disks(), PATH, "/absent").await };
        world.run(LIMIT, suite).unwrap();
        world.trace_hash()
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

/// A disk has one owner, until that drops it or dies; handles of the dead free nothing of the living.
#[test]
fn owners() {
    let (world, host, device) = machine(1, Schedule::Random);
    let test = async {
        let first = host.boot();
        let disk = open(&first).await;
        let file = flushed(&disk, "a", &[1]).await;
        assert_eq!(first.disks().open(PATH).await.err().unwrap().kind(), StorageErrorKind::Locked);
        host.kill(Death::Process);
        let second = host.boot();
        let again = open(&second).await;
        let held = again.open(&name("a")).await.unwrap();
        again.remove(&name("a")).await.unwrap();
        again.flush_names().await.unwrap();
        let used = |device: &DiskDevice| {
            let space = device.with(|state| state.space());
            space.capacity_bytes - space.available_bytes
        };
        assert_eq!(used(&device), PAGE, "a removed file that is open has its room");
        drop((disk, file));
        assert_eq!(used(&device), PAGE);
        assert_eq!(read(&held, 0).await.unwrap(), vec![1; ALIGN_BYTES]);
        drop(held);
        assert_eq!(used(&device), 0);
        drop(again);
        open(&second).await;
    };
    world.run(LIMIT, test).unwrap();
}

/// A full disk makes no file, and writes nothing beyond what was reserved; within that it does.
#[test]
fn full() {
    let (world, host, device) = machine(2, Schedule::Random);
    device.set_capacity(4 * PAGE);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = disk.create(&name("a"), 3 * PAGE - 10).await.unwrap();
        assert_eq!(disk.space().await.unwrap().available_bytes, PAGE);
        let refused = disk.create(&name("b"), PAGE + 1).await.err().unwrap();
        assert_eq!(refused.kind(), StorageErrorKind::Full);
        assert_eq!(disk.list().await.unwrap(), [name("a")]);
        write(&file, 3, page(1)).await.unwrap();
        assert_eq!(write(&file, 4, page(1)).await, Err(StorageErrorKind::Full));
        assert_eq!(write(&file, 1 << 50, page(1)).await, Err(StorageErrorKind::Full));
        device.set_capacity(PAGE);
        assert_eq!(disk.space().await.unwrap().available_bytes, 0);
        write(&file, 0, page(2)).await.unwrap();
        assert_eq!(file.size().await.unwrap(), 4 * PAGE);
        let huge = disk.create(&name("c"), u64::MAX).await.err().unwrap();
        assert_eq!(huge.kind(), StorageErrorKind::Full);
        let last = u64::MAX - (PAGE - 1);
        let batch = vec![Write { offset: last, buf: page(1) }];
        assert_eq!(
            file.write(batch, Priority::Client).await.err().unwrap().kind(),
            StorageErrorKind::Invalid
        );
        let batch = vec![Read { offset: last, buf: page(1) }];
        assert!(file.read(batch, Priority::Client).await.pop().unwrap().unwrap().is_empty());
    };
    world.run(LIMIT, test).unwrap();
}

/// Everything is counted, and a look at the disk is not; the look works while the host is down, and
/// changes nothing.
#[test]
fn counters_and_forensics() {
    let (world, host, device) = machine(3, Schedule::Random);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1, 2]).await;
        assert_eq!(read(&file, 1).await.unwrap()[0], 2);
        let expected = DiskCounters {
            reads: 1,
            writes: 2,
            flushes: 1,
            name_flushes: 1,
            bytes_read: PAGE,
            bytes_written: 2 * PAGE,
        };
        assert_eq!(device.counters(), expected);
        assert_eq!(device.files(), [(name("a"), 2 * PAGE)]);
        host.kill(Death::Power);
        device.set_stuck(true);
        device.set_gone(true);
        let before = (world.now(), device.counters());
        let look = device.forensic();
        assert_eq!(look.list().await.unwrap(), [name("a")]);
        let seen = look.open(&name("a")).await.unwrap();
        assert_eq!(seen.size().await.unwrap(), 2 * PAGE);
        assert_eq!(read(&seen, 1).await.unwrap(), vec![2; ALIGN_BYTES]);
        assert_eq!(write(&seen, 0, page(9)).await, Err(StorageErrorKind::Invalid));
        let refused = [look.remove(&name("a")).await, look.rename(&name("a"), &name("b")).await];
        assert!(refused.into_iter().all(|answer| answer.err().unwrap().kind() == StorageErrorKind::Invalid));
        assert_eq!((world.now(), device.counters()), before);
    };
    world.run(LIMIT, test).unwrap();
}

/// Other things take room that is not there for files then, and nothing else changes.
#[test]
fn occupied() {
    let (world, host, device) = machine(4, Schedule::Fifo);
    let test = async {
        let disk = open(&host.boot()).await;
        device.set_occupied(CAPACITY_BYTES - 2 * PAGE);
        let space = disk.space().await.unwrap();
        assert_eq!((space.capacity_bytes, space.available_bytes), (CAPACITY_BYTES, 2 * PAGE));
        drop(disk.create(&name("a"), 2 * PAGE).await.unwrap());
        let full = disk.create(&name("b"), PAGE).await.err().unwrap().kind();
        assert_eq!(full, StorageErrorKind::Full);
        device.set_occupied(0);
        drop(disk.create(&name("b"), PAGE).await.unwrap());
    };
    world.run(LIMIT, test).unwrap();
}

/// What flushes have covered can be looked at, is told of page by page, and is what a power loss leaves; what is
/// done to a copy is done to no other.
#[test]
fn durable_images() {
    let (world, host, device) = machine(5, Schedule::Fifo);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1, 1, 1]).await;
        write(&file, 1, page(2)).await.unwrap();
        drop(disk.create(&name("b"), PAGE).await.unwrap());
        let there: Vec<bool> = (0..4).map(|page| device.is_durable_to(&name("a"), page * PAGE)).collect();
        assert_eq!(there, [true, true, false, false]);
        assert!(!device.is_durable_to(&name("b"), 0), "its name is not durable");
        let durable = device.durable();
        assert_eq!(durable.list().await.unwrap(), [name("a")]);
        assert_eq!(durable.open(&name("b")).await.err().unwrap().kind(), StorageErrorKind::NotFound);
        let seen = durable.open(&name("a")).await.unwrap();
        assert_eq!([read(&seen, 0).await.unwrap()[0], read(&seen, 1).await.unwrap()[0]], [1, 1]);
        let copy = device.copy();
        assert!(copy.damage(&name("a"), Damage::Zero { offset: 0, bytes: PAGE }));
        let seen = copy.forensic().open(&name("a")).await.unwrap();
        assert_eq!([read(&seen, 0).await.unwrap()[0], read(&seen, 1).await.unwrap()[0]], [0, 2]);
        assert_eq!(read(&file, 0).await.unwrap()[0], 1);
        file.flush().await.unwrap();
        assert!(device.is_durable_to(&name("a"), 3 * PAGE));
    };
    world.run(LIMIT, test).unwrap();
}

/// A witness sees each transfer that is asked for; a filter changes it on its way, or has it vanish.
#[test]
fn transfers_pass_a_filter() {
    let (world, host, device) = machine(6, Schedule::Fifo);
    let test = async {
        let disk = open(&host.boot()).await;
        let seen: Arc<Mutex<Vec<(u64, u8)>>> = Arc::default();
        let into = seen.clone();
        device.set_witness(Arc::new(move |file: &FileName, offset: u64, page: &Bytes| {
            assert_eq!(*file, name("a"));
            lock(&into).push((offset, page[0]));
        }));
        device.set_filter(Some(Arc::new(|_: &FileName, _: u64, page: Bytes| match page[0] {
            2 => None,
            3 => Some(vec![4; page.len()].into()),
            _ => Some(page),
        })));
        let file = flushed(&disk, "a", &[1, 2, 3]).await;
        let mut there = Vec::new();
        for at in 0..3 {
            there.push(read(&file, at).await.unwrap()[0]);
        }
        assert_eq!(there, [1, 0, 4]);
        assert_eq!(*lock(&seen), [(0, 1), (PAGE, 2), (2 * PAGE, 3)]);
        device.set_filter(None);
        write(&file, 1, page(2)).await.unwrap();
        assert_eq!(read(&file, 1).await.unwrap()[0], 2);
    };
    world.run(LIMIT, test).unwrap();
}
