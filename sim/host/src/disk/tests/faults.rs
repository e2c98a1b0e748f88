//! Disks that fail.

use std::collections::BTreeSet;

use super::*;
use crate::host::Death;

const ALWAYS: u32 = 1_000_000;

fn byte_at(content: &[u8], at: usize) -> u8 {
    content[at]
}

/// Every kind of damage does what it says, whether the content was flushed or not, and a power loss does
/// not heal it.
#[test]
fn damage() {
    for seed in 0..20 {
        let (world, host, device) = machine(seed, Schedule::Random);
        let test = async {
            let disk = open(&host.boot()).await;
            flushed(&disk, "other", &[7, 8]).await;
            let file = flushed(&disk, "a", &[1, 2, 3, 4]).await;
            let a = name("a");
            assert!(device.damage(&a, Damage::Flip { offset: 10, mask: 0x81 }));
            assert!(device.damage(&a, Damage::Zero { offset: PAGE - 2, bytes: 4 }));
            let from = name("other");
            let misdirected =
                Damage::Misdirected { offset: 2 * PAGE + 512, bytes: 512, from, from_offset: PAGE - 256 };
            assert!(device.damage(&a, misdirected));
            if seed % 2 == 0 {
                drop((disk, file));
                host.kill(Death::Power);
                let disk = open(&host.boot()).await;
                check_damaged(&disk.open(&a).await.unwrap()).await;
            } else {
                check_damaged(&file).await;
            }
            assert_eq!(device.files(), [(a, 4 * PAGE), (name("other"), 2 * PAGE)]);
        };
        world.run(LIMIT, test).unwrap();
    }
}

async fn check_damaged(file: &SimFile) {
    let first = read(file, 0).await.unwrap();
    assert_eq!([9, 10, 11].map(|at| byte_at(&first, at)), [1, 0x80, 1], "bits are flipped");
    let second = read(file, 1).await.unwrap();
    assert_eq!(first[ALIGN_BYTES - 3..], [1, 0, 0], "a write is lost");
    assert_eq!(second[..3], [0, 0, 2], "a write is lost");
    let third = read(file, 2).await.unwrap();
    assert_eq!([511, 512, 767, 768, 1023, 1024].map(|at| byte_at(&third, at)), [3, 7, 7, 8, 8, 3]);
    assert_eq!(read(file, 3).await.unwrap(), vec![4; ALIGN_BYTES], "the rest is whole");
}

/// What lies beyond the end, changes nothing or names no file is no damage.
#[test]
fn no_damage() {
    let (world, host, device) = machine(1, Schedule::Random);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1]).await;
        let a = name("a");
        assert!(!device.damage(&name("b"), Damage::Flip { offset: 0, mask: 1 }));
        assert!(!device.damage(&a, Damage::Flip { offset: PAGE, mask: 1 }));
        assert!(!device.damage(&a, Damage::Flip { offset: 0, mask: 0 }));
        assert!(!device.damage(&a, Damage::Zero { offset: 0, bytes: 0 }));
        assert!(!device.damage(&a, Damage::Unreadable { offset: u64::MAX, bytes: u64::MAX }));
        let nothing = Damage::Misdirected { offset: 0, bytes: 5, from: name("b"), from_offset: 0 };
        assert!(!device.damage(&a, nothing));
        assert_eq!(read(&file, 0).await.unwrap(), vec![1; ALIGN_BYTES]);
        assert!(device.damage(&a, Damage::Zero { offset: PAGE - 1, bytes: u64::MAX }));
        assert_eq!(file.size().await.unwrap(), PAGE);
    };
    world.run(LIMIT, test).unwrap();
}

/// Latent errors stay until the sectors are written; a stale read happens once, and not to a look at rest.
#[test]
fn unreadable_and_stale() {
    let (world, host, device) = machine(2, Schedule::Random);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1, 2, 3]).await;
        let a = name("a");
        assert!(device.damage(&a, Damage::Unreadable { offset: PAGE + 600, bytes: 1 }));
        assert_eq!(read(&file, 0).await.unwrap()[0], 1);
        for _ in 0..3 {
            assert_eq!(read(&file, 1).await, Err(StorageErrorKind::Io));
        }
        let seen = device.forensic().open(&a).await.unwrap();
        assert_eq!(read(&seen, 1).await, Err(StorageErrorKind::Io), "it is the same medium");
        write(&file, 1, page(9)).await.unwrap();
        assert_eq!(read(&file, 1).await.unwrap(), vec![9; ALIGN_BYTES]);

        assert!(device.damage(&a, Damage::StaleOnce { offset: 2 * PAGE + 1, bytes: 2 }));
        assert_eq!(read(&seen, 2).await.unwrap()[..4], [3, 3, 3, 3]);
        assert_eq!(read(&file, 2).await.unwrap()[..4], [3, 0, 0, 3]);
        assert_eq!(read(&file, 2).await.unwrap()[..4], [3, 3, 3, 3]);
        assert!(device.damage(&a, Damage::StaleOnce { offset: 0, bytes: 2 }));
        write(&file, 0, page(5)).await.unwrap();
        assert_eq!(read(&file, 0).await.unwrap()[0], 5, "what is written anew is read");
    };
    world.run(LIMIT, test).unwrap();
}

/// Reads, writes and flushes fail as often as they are told to; a failed write may be partly there, and of one
/// that was refused there is nothing.
#[test]
fn errors() {
    let (world, host, device) = machine(3, Schedule::Random);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1, 1]).await;
        device.configure(DiskFaults { read_error_ppm: ALWAYS, ..DiskFaults::default() });
        assert_eq!(read(&file, 0).await, Err(StorageErrorKind::Io));
        assert_eq!(disk.list().await.err().unwrap().kind(), StorageErrorKind::Io);
        assert_eq!(disk.open(&name("a")).await.err().unwrap().kind(), StorageErrorKind::Io);
        let mut seen = [0; 3];
        for byte in 2..100 {
            device.configure(DiskFaults { write_error_ppm: ALWAYS, ..DiskFaults::default() });
            assert_eq!(write(&file, 0, pages(2, byte)).await, Err(StorageErrorKind::Io));
            device.configure(DiskFaults::default());
            let [first, second] = [read(&file, 0).await.unwrap()[0], read(&file, 1).await.unwrap()[0]];
            assert!(first <= byte && (second < byte || first == byte), "a prefix is written");
            seen[usize::from(first == byte) + usize::from(second == byte)] += 1;
        }
        assert!(seen.iter().all(|times| *times > 5), "nothing, a part and all of it: {seen:?}");
        write(&file, 0, pages(2, 100)).await.unwrap();
        device.configure(DiskFaults { busy_ppm: ALWAYS, ..DiskFaults::default() });
        assert_eq!(write(&file, 0, pages(2, 101)).await, Err(StorageErrorKind::Busy));
        assert_eq!(read(&file, 0).await, Err(StorageErrorKind::Busy));
        device.configure(DiskFaults::default());
        assert_eq!([read(&file, 0).await.unwrap()[0], read(&file, 1).await.unwrap()[0]], [100, 100]);
        device.configure(DiskFaults { read_error_ppm: 300_000, ..DiskFaults::default() });
        let mut failed = 0;
        for _ in 0..1000 {
            failed += usize::from(read(&file, 0).await.is_err());
        }
        assert!((200..400).contains(&failed), "{failed} of 1000 reads failed");
    };
    world.run(LIMIT, test).unwrap();
}

/// After a failed flush reads see what was written; a later flush that succeeds does not save it, but what
/// was written again is safe. A flush under way together with the one that failed fails too.
#[test]
fn failed_flushes() {
    let (mut saved, mut lost) = (0, 0);
    for seed in 0..60 {
        let (world, host, device) = machine(seed, Schedule::Random);
        let test = async {
            let disk = open(&host.boot()).await;
            let file = flushed(&disk, "a", &[1, 1]).await;
            write(&file, 0, page(2)).await.unwrap();
            write(&file, 1, page(2)).await.unwrap();
            device.configure(DiskFaults { flush_error_ppm: ALWAYS, ..DiskFaults::default() });
            assert_eq!(file.flush().await.err().unwrap().kind(), StorageErrorKind::Io);
            device.configure(DiskFaults::default());
            assert_eq!(read(&file, 0).await.unwrap()[0], 2);
            write(&file, 1, page(3)).await.unwrap();
            file.flush().await.expect("a flush that works");
            host.kill(Death::Power);
            let disk = open(&host.boot()).await;
            let file = disk.open(&name("a")).await.unwrap();
            assert_eq!(read(&file, 1).await.unwrap(), vec![3; ALIGN_BYTES], "seed {seed}: flushed content");
            let doubtful = read(&file, 0).await.unwrap();
            assert!(doubtful.iter().all(|byte| *byte == 1 || *byte == 2), "seed {seed}");
            doubtful == vec![2; ALIGN_BYTES]
        };
        if world.run(LIMIT, test).unwrap() { saved += 1 } else { lost += 1 }
    }
    assert!(saved > 5 && lost > 5, "{saved} saved, {lost} lost");
}

/// Of two flushes at once that the same error hits, none says that the content is safe.
#[test]
fn failed_flushes_together() {
    let mut successes = 0;
    for seed in 0..40 {
        let (world, host, device) = machine(seed, Schedule::Random);
        let test = async {
            let disk = open(&host.boot()).await;
            let file = flushed(&disk, "a", &[1]).await;
            write(&file, 0, page(2)).await.unwrap();
            device.configure(DiskFaults { flush_error_ppm: 500_000, ..DiskFaults::default() });
            let (one, two) = tokio::join!(file.flush(), file.flush());
            device.configure(DiskFaults::default());
            host.kill(Death::Power);
            let disk = open(&host.boot()).await;
            let content = read(&disk.open(&name("a")).await.unwrap(), 0).await.unwrap();
            let safe = one.is_ok() || two.is_ok();
            assert!(!safe || content == vec![2; ALIGN_BYTES], "seed {seed}: {one:?} {two:?}");
            safe
        };
        successes += usize::from(world.run(LIMIT, test).unwrap());
    }
    assert!((5..40).contains(&successes), "{successes}");
}

/// A failed flush of names makes the first changes durable, or none, or all; a later one makes up for it.
#[test]
fn failed_flushes_of_names() {
    let mut seen = BTreeSet::new();
    for seed in 0..80 {
        let (world, host, device) = machine(seed, Schedule::Random);
        let again = seed % 2 == 0;
        let test = async {
            let disk = open(&host.boot()).await;
            for text in ["a", "b", "c"] {
                disk.create(&name(text), 0).await.unwrap();
            }
            device.configure(DiskFaults { flush_error_ppm: ALWAYS, ..DiskFaults::default() });
            assert_eq!(disk.flush_names().await.err().unwrap().kind(), StorageErrorKind::Io);
            device.configure(DiskFaults::default());
            if again {
                disk.flush_names().await.expect("a flush that works");
            }
            host.kill(Death::Power);
            open(&host.boot()).await.list().await.unwrap().len()
        };
        let there = world.run(LIMIT, test).unwrap();
        assert!(!again || there == 3, "seed {seed}: {there}");
        seen.insert(there);
    }
    assert_eq!(seen, (0..=3).collect());
}

/// A dead disk fails everything, with its flushes' content; a removed one for good.
#[test]
fn gone() {
    let (world, host, device) = machine(4, Schedule::Random);
    let test = async {
        let env = host.boot();
        let disk = open(&env).await;
        let file = flushed(&disk, "a", &[1]).await;
        write(&file, 0, page(2)).await.unwrap();
        device.set_gone(true);
        assert_eq!(read(&file, 0).await, Err(StorageErrorKind::Io));
        assert_eq!(write(&file, 0, page(3)).await, Err(StorageErrorKind::Io));
        let mut answers = vec![file.flush().await, disk.flush_names().await, disk.remove(&name("a")).await];
        answers.push(disk.rename(&name("a"), &name("b")).await);
        answers.push(disk.create(&name("c"), 0).await.map(drop));
        answers.extend([disk.list().await.map(drop), disk.open(&name("a")).await.map(drop)]);
        answers.extend([disk.space().await.map(drop), file.size().await.map(drop)]);
        answers.push(env.disks().open(PATH).await.map(drop));
        for (place, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.err().map(|error| error.kind()), Some(StorageErrorKind::Io), "answer {place}");
        }
        device.set_gone(false);
        assert_eq!(read(&file, 0).await.unwrap()[0], 2);
        file.flush().await.unwrap();
        host.kill(Death::Power);
        let disk = open(&host.boot()).await;
        let file = disk.open(&name("a")).await.unwrap();
        assert_eq!(read(&file, 0).await.unwrap()[0], 1, "the failed flush has lost it");

        let fresh = host.insert_disk(PATH, CAPACITY_BYTES);
        assert_eq!(read(&file, 0).await, Err(StorageErrorKind::Io));
        device.set_gone(false);
        assert_eq!(disk.list().await.err().unwrap().kind(), StorageErrorKind::Io);
        assert_eq!((device.files(), fresh.files()), (vec![], vec![]));
    };
    world.run(LIMIT, test).unwrap();
}

/// Operations of a stuck disk wait, and go on with it; slow ones take their time.
#[test]
fn stuck_and_slow() {
    let (world, host, device) = machine(5, Schedule::Random);
    let test = async {
        let disk = open(&host.boot()).await;
        let file = flushed(&disk, "a", &[1]).await;
        device.set_stuck(true);
        let began = world.now();
        let release = async {
            world.sleep(Duration::from_secs(30)).await;
            device.set_stuck(false);
        };
        let (answer, flushed, ()) = tokio::join!(read(&file, 0), file.flush(), release);
        assert_eq!(answer.unwrap()[0], 1);
        flushed.unwrap();
        assert_eq!(world.now() - began, Duration::from_secs(30));

        let slow = DiskFaults { slow_ppm: ALWAYS, slow_us: (7_000_000, 7_000_000), ..DiskFaults::default() };
        device.configure(slow);
        let began = world.now();
        read(&file, 0).await.unwrap();
        let took = (world.now() - began).as_micros();
        assert!((7_000_050..=7_000_400).contains(&took), "{took} us");
    };
    world.run(LIMIT, test).unwrap();
}

/// The planted bugs do harm, each its own: without them the same run keeps everything.
#[test]
fn bugs() {
    for (flush_lies, name_flush_lies) in [(false, false), (true, false), (false, true)] {
        let mut lost = [0, 0];
        for seed in 0..20 {
            let (world, host, device) = machine(seed, Schedule::Random);
            device.set_bugs(DiskBugs { flush_lies, name_flush_lies, ..DiskBugs::default() });
            let test = async {
                let disk = open(&host.boot()).await;
                flushed(&disk, "a", &[1]).await;
                host.kill(Death::Power);
                let disk = open(&host.boot()).await;
                let Ok(file) = disk.open(&name("a")).await else { return [0, 1] };
                [u64::from(read(&file, 0).await.unwrap() != vec![1; ALIGN_BYTES]), 0]
            };
            let [content, names] = world.run(LIMIT, test).unwrap();
            lost = [lost[0] + content, lost[1] + names];
        }
        println!("flushes lie {flush_lies}, of names {name_flush_lies}: lost {lost:?}");
        assert_eq!(lost.map(|times| times > 4), [flush_lies, name_flush_lies]);
    }
}
