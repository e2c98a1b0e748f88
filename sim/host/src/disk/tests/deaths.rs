//! A process that dies in the middle of an operation.

use super::*;
use crate::host::Death;

/// Replaces a file as careful people do: a temporary one, flushed, renamed, names flushed.
async fn replace(disk: &SimDisk, byte: u8) -> Result<(), env::StorageError> {
    let temporary = name("a.tmp");
    let file = disk.create(&temporary, 3 * PAGE).await?;
    file.write(vec![Write { offset: 0, buf: pages(3, byte) }], Priority::Client).await?;
    file.flush().await?;
    disk.rename(&temporary, &name("a")).await?;
    disk.flush_names().await
}

async fn whole(disk: &SimDisk, text: &str) -> Option<u8> {
    let file = disk.open(&name(text)).await.ok()?;
    let mut all = Vec::new();
    for at in 0..3 {
        all.extend(read(&file, at).await.unwrap());
    }
    assert!(all.iter().all(|byte| *byte == all[0]) && all.len() == 3 * ALIGN_BYTES, "{text} is torn");
    Some(all[0])
}

/// Whichever operation it dies at, before or after the effect and of whatever, there is the old file or the
/// new one, whole; and the new one when it was told so.
#[test]
fn doom_at_each_step() {
    let mut died = 0;
    for case in 0..240_u64 {
        let (operations, after) = (case % 6, case / 6 % 2 == 0);
        let death = if case / 12 % 2 == 0 { Death::Power } else { Death::Process };
        let (world, host, _) = machine(case, Schedule::Random);
        println!("case {case}: {death:?} at {operations}, after it: {after}");
        let test = async {
            let disk = open(&host.boot()).await;
            replace(&disk, 1).await.unwrap();
            host.doom(operations, death, after);
            let told = tokio::select! {
                biased;
                told = replace(&disk, 2) => { told.unwrap(); true }
                () = world.sleep(Duration::from_secs(10)) => false,
            };
            let dead = !host.is_alive();
            assert_eq!(dead, !told, "the dead are told nothing");
            host.kill(death);
            let disk = open(&host.boot()).await;
            let found = whole(&disk, "a").await;
            assert!(found == Some(2) || !told && found == Some(1), "{found:?}, told: {told}");
            if death == Death::Process && (operations, after) >= (3, true) {
                assert_eq!(found, Some(2), "what a killed process has done is there");
            }
            dead
        };
        died += usize::from(world.run(LIMIT, test).unwrap());
    }
    assert_eq!(died, 200, "five operations of six end the process");
}

/// A process that dies while a write is under way leaves any part of it, and neither dies later nor
/// changes anything then.
#[test]
fn writes_under_way() {
    for death in [Death::Process, Death::Power] {
        let mut seen = [0; 3];
        for seed in 0..100 {
            let (world, host, device) = machine(seed, Schedule::Random);
            let test = async {
                let env = host.boot();
                let disk = open(&env).await;
                let file = flushed(&disk, "a", &[1, 1]).await;
                env::Spawn::spawn(env.spawn(), "writer", async move {
                    let _ = write(&file, 0, pages(2, 2)).await;
                });
                world.sleep(Duration::from_micros(20)).await;
                host.kill(death);
                let after = device.forensic().open(&name("a")).await.unwrap();
                let there = [read(&after, 0).await.unwrap(), read(&after, 1).await.unwrap()].concat();
                let disk = open(&host.boot()).await;
                world.sleep(Duration::from_secs(1)).await;
                let file = disk.open(&name("a")).await.unwrap();
                let later = [read(&file, 0).await.unwrap(), read(&file, 1).await.unwrap()].concat();
                assert!(there == later, "seed {seed}: the dead write");
                there.iter().filter(|byte| **byte == 2).count()
            };
            let new = world.run(LIMIT, test).unwrap();
            seen[usize::from(new > 0) + usize::from(new == 2 * ALIGN_BYTES)] += 1;
        }
        assert!(seen.iter().all(|times| *times > 5), "{death:?}: nothing, part, all: {seen:?}");
    }
}

/// A change whose future is dropped takes place, or not, or later; it holds the disk until it has.
#[test]
fn dropped_futures() {
    let mut seen = [0; 3];
    for seed in 0..60 {
        let (world, host, _) = machine(seed, Schedule::Random);
        let test = async {
            let env = host.boot();
            let disk = open(&env).await;
            let file = flushed(&disk, "a", &[1]).await;
            tokio::select! {
                biased;
                _ = write(&file, 0, page(2)) => panic!("it takes longer"),
                () = world.sleep(Duration::from_micros(10)) => {}
            }
            let look = env.life().host().disk(PATH).unwrap().forensic().open(&name("a")).await.unwrap();
            let now = read(&look, 0).await.unwrap()[0];
            drop((file, disk));
            let locked = env.disks().open(PATH).await.is_err();
            world.sleep(Duration::from_secs(1)).await;
            let disk = open(&env).await;
            let later = read(&disk.open(&name("a")).await.unwrap(), 0).await.unwrap()[0];
            assert!(later >= now && !(locked && later == 1), "seed {seed}: {now} {later} {locked}");
            usize::from(now == 2) + 2 * usize::from(now == 1 && later == 2)
        };
        seen[world.run(LIMIT, test).unwrap()] += 1;
    }
    assert!(seen.iter().all(|times| *times > 5), "never, at once, later: {seen:?}");
}

/// A killed process leaves all it did, and that is still not flushed: the next power loss may take it.
#[test]
fn the_kernel_lives_on() {
    let mut lost = 0;
    for seed in 0..40 {
        let (world, host, _) = machine(seed, Schedule::Random);
        let test = async {
            let disk = open(&host.boot()).await;
            let file = flushed(&disk, "a", &[1]).await;
            write(&file, 0, page(2)).await.unwrap();
            disk.rename(&name("a"), &name("b")).await.unwrap();
            host.kill(Death::Process);
            let disk = open(&host.boot()).await;
            let file = disk.open(&name("b")).await.expect("a rename outlives the process");
            assert_eq!(read(&file, 0).await.unwrap(), vec![2; ALIGN_BYTES]);
            host.kill(Death::Power);
            let disk = open(&host.boot()).await;
            let names = disk.list().await.unwrap();
            assert_eq!(names.len(), 1, "seed {seed}: {names:?}");
            let file = disk.open(&names[0]).await.unwrap();
            names == [name("a")] || read(&file, 0).await.unwrap() != vec![2; ALIGN_BYTES]
        };
        lost += usize::from(world.run(LIMIT, test).unwrap());
    }
    assert!((5..40).contains(&lost), "{lost} of 40 lost something");
}
