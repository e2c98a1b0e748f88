//! The disks' suite.

use crate::buf::{ALIGN_BYTES, AlignedBuf};
use crate::conformance::{Fixed, refuses};
use crate::disk::{Disk, DiskFile, Disks, FileName, Priority, Read, Write};
use crate::storage::StorageErrorKind::{AlreadyExists, Full, Invalid, Locked, NotFound};

const PAGE: u64 = ALIGN_BYTES as u64;

/// Checks [`Disks`] on `path`, an empty disk with some megabytes of room; `absent` is no disk.
///
/// # Panics
///
/// When a clause does not hold.
pub async fn disks<D: Disks>(disks: &D, path: &str, absent: &str) {
    one_owner(disks, path, absent).await;
    let disk = disks.open(path).await.expect("a disk opens again when its owner is gone");
    assert!(!disk.engine().is_empty(), "the engine has no name");
    names(&disk).await;
    reserved_space(&disk).await;
    transfers(&disk).await;
    ends_of_files(&disk).await;
    random_transfers(&disk).await;
    outlives_handles(disks, path, disk).await;
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn filled(pages: u64, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(usize::try_from(pages * PAGE).unwrap());
    buf.as_mut_slice().fill(byte);
    buf
}

fn blank(pages: u64) -> AlignedBuf {
    filled(pages, 0xee)
}

async fn write<F: DiskFile>(file: &F, offset: u64, buf: AlignedBuf) {
    file.write(vec![Write { offset, buf }], Priority::Client).await.expect("a write");
}

async fn read<F: DiskFile>(file: &F, offset: u64, pages: u64) -> Vec<u8> {
    let batch = vec![Read { offset, buf: blank(pages) }];
    let mut answers = file.read(batch, Priority::Client).await;
    assert_eq!(answers.len(), 1, "answers to one read");
    answers.pop().unwrap().expect("a read").as_slice().to_vec()
}

/// Fails unless `got` is a page of this byte, without printing all of it.
#[track_caller]
fn assert_page(clause: &str, byte: u8, got: &[u8]) {
    let wrong = got.iter().position(|b| *b != byte);
    assert!(
        got.len() == ALIGN_BYTES && wrong.is_none(),
        "{clause}: {} bytes, the first that is not {byte} at {wrong:?}",
        got.len()
    );
}

async fn one_owner<D: Disks>(disks: &D, path: &str, absent: &str) {
    refuses("no disk there", NotFound, disks.open(absent).await.map(drop));
    let disk = disks.open(path).await.expect("an empty disk opens");
    refuses("second owner", Locked, disks.open(path).await.map(drop));
    let clone = disk.clone();
    drop(disk);
    refuses("second owner while a clone lives", Locked, disks.open(path).await.map(drop));
    let file = clone.create(&name("held"), PAGE).await.expect("create");
    drop(clone);
    refuses("second owner while a file is open", Locked, disks.open(path).await.map(drop));
    drop(file);
    let disk = disks.open(path).await.expect("a disk opens again when its owner is gone");
    disk.remove(&name("held")).await.expect("remove");
}

async fn names<D: Disk>(disk: &D) {
    assert_eq!(disk.list().await.unwrap(), [], "an empty disk");
    for text in ["b", "a-2", "a", "B"] {
        disk.create(&name(text), PAGE).await.expect("create");
    }
    disk.flush_names().await.expect("flush of names");
    let listed = disk.list().await.unwrap();
    assert_eq!(listed, ["B", "a", "a-2", "b"].map(name), "names in byte order");

    refuses("create over a file", AlreadyExists, disk.create(&name("a"), PAGE).await.map(drop));
    refuses("open nothing", NotFound, disk.open(&name("c")).await.map(drop));
    refuses("rename nothing", NotFound, disk.rename(&name("c"), &name("a")).await);
    refuses("remove nothing", NotFound, disk.remove(&name("c")).await);
    disk.open(&name("a")).await.expect("what could not be renamed over is still there");

    write(&disk.open(&name("b")).await.unwrap(), 0, filled(1, 9)).await;
    disk.rename(&name("b"), &name("a")).await.expect("rename replaces");
    disk.rename(&name("B"), &name("c")).await.expect("rename");
    assert_eq!(disk.list().await.unwrap(), ["a", "a-2", "c"].map(name), "names after renames");
    let replaced = disk.open(&name("a")).await.unwrap();
    assert_page("the new file under the old name", 9, &read(&replaced, 0, 1).await);

    disk.remove(&name("a")).await.expect("remove");
    assert_page("a removed file that is open", 9, &read(&replaced, 0, 1).await);
    disk.remove(&name("a-2")).await.expect("remove");
    disk.remove(&name("c")).await.expect("remove");
    let (one, two, three) = tokio::join!(disk.flush_names(), disk.flush_names(), disk.flush_names());
    one.and(two).and(three).expect("flushes of names together");
    assert_eq!(disk.list().await.unwrap(), [], "all is removed");
}

async fn reserved_space<D: Disk>(disk: &D) {
    let space = disk.space().await.expect("space");
    assert!(space.available_bytes > 0 && space.available_bytes <= space.capacity_bytes, "{space:?}");
    let too_much = (space.capacity_bytes / PAGE + 1) * PAGE;
    refuses("more than there is", Full, disk.create(&name("huge"), too_much).await.map(drop));
    refuses("the file that found no room", NotFound, disk.open(&name("huge")).await.map(drop));

    let file = disk.create(&name("zeros"), 300 * PAGE).await.expect("create");
    assert_eq!(file.size().await.unwrap(), 300 * PAGE, "the size as reserved");
    assert!(read(&file, 0, 300).await.iter().all(|byte| *byte == 0), "reserved space reads as zeros");
    file.flush().await.expect("flush of nothing");
    let empty = disk.create(&name("empty"), 0).await.expect("a file without space");
    assert_eq!(empty.size().await.unwrap(), 0);
    assert_eq!(read(&empty, 0, 1).await, [], "an empty file");
    disk.remove(&name("zeros")).await.expect("remove");
    disk.remove(&name("empty")).await.expect("remove");
}

async fn transfers<D: Disk>(disk: &D) {
    let file = disk.create(&name("data"), 64 * PAGE).await.expect("create");
    let batch =
        [(8, 1), (0, 2), (40, 3)].map(|(page, byte)| Write { offset: page * PAGE, buf: filled(4, byte) });
    file.write(batch.into(), Priority::Client).await.expect("a batch of writes");
    let other = disk.open(&name("data")).await.expect("open");
    let batch = [0, 8, 40, 20].map(|page| Read { offset: page * PAGE, buf: blank(4) });
    let answers = other.read(batch.into(), Priority::Repair).await;
    let bytes: Vec<u8> = answers.iter().map(|answer| answer.as_ref().unwrap().as_slice()[0]).collect();
    assert_eq!(bytes, [2, 1, 3, 0], "answers in the order of the batch");
    let whole = answers.iter().all(|answer| {
        let got = answer.as_ref().unwrap().as_slice();
        got.len() == 4 * ALIGN_BYTES && got.iter().all(|byte| *byte == got[0])
    });
    assert!(whole, "each read is whole");

    // The length of the buffer is no matter: its whole capacity goes to the disk.
    let mut short = filled(1, 7);
    short.set_len(10);
    file.write(vec![Write { offset: 0, buf: short }], Priority::Scrub).await.expect("a write");
    assert_page("a write of the whole capacity", 7, &read(&other, 0, 1).await);

    invalid_offsets(&file).await;
    file.write(vec![], Priority::Client).await.expect("an empty batch");
    assert!(file.read(vec![], Priority::Client).await.is_empty(), "an empty batch");
    let (one, two, three) = tokio::join!(file.flush(), other.flush(), file.flush());
    one.and(two).and(three).expect("flushes together");
    assert_eq!(file.size().await.unwrap(), 64 * PAGE, "writes within the file leave its size");
    disk.remove(&name("data")).await.expect("remove");
}

async fn invalid_offsets<F: DiskFile>(file: &F) {
    let batch = vec![Write { offset: 512, buf: filled(1, 1) }];
    refuses("a write to an odd offset", Invalid, file.write(batch, Priority::Client).await);
    let batch = vec![Read { offset: 0, buf: blank(1) }, Read { offset: 1, buf: blank(1) }];
    let mut answers = file.read(batch, Priority::Client).await;
    assert_eq!(answers.len(), 2, "an answer to each read");
    refuses("a read at an odd offset", Invalid, answers.pop().unwrap());
    assert!(answers.pop().unwrap().is_ok(), "each read has its own answer");
}

async fn ends_of_files<D: Disk>(disk: &D) {
    let file = disk.create(&name("end"), 2 * PAGE + 100).await.expect("create");
    assert_eq!(file.size().await.unwrap(), 2 * PAGE + 100, "a size that is not aligned");
    assert_eq!(read(&file, PAGE, 4).await.len(), ALIGN_BYTES + 100, "a read across the end");
    assert_eq!(read(&file, 2 * PAGE, 1).await, vec![0; 100], "a read up to the end");
    assert_eq!(read(&file, 3 * PAGE, 1).await, [], "a read beyond the end");
    write(&file, 3 * PAGE, filled(1, 5)).await;
    assert_eq!(file.size().await.unwrap(), 4 * PAGE, "a write beyond the end makes the file longer");
    let gap = read(&file, 2 * PAGE, 2).await;
    assert_eq!((gap[100], gap[ALIGN_BYTES]), (0, 5), "a gap reads as zeros");
    disk.remove(&name("end")).await.expect("remove");
}

/// Against a model in memory: random disjoint batches, each read back.
async fn random_transfers<D: Disk>(disk: &D) {
    const PAGES: usize = 128;
    for seed in 1..=3 {
        let mut random = Fixed(seed);
        let file = disk.create(&name("random"), PAGES as u64 * PAGE).await.expect("create");
        let mut model = [0_u8; PAGES];
        for round in 0..20 {
            let mut batch = Vec::new();
            let mut page = random.below(8);
            while page < PAGES {
                let pages = (1 + random.below(6)).min(PAGES - page);
                let byte = u8::try_from(1 + random.below(255)).unwrap();
                model[page..page + pages].fill(byte);
                batch.push(Write { offset: page as u64 * PAGE, buf: filled(pages as u64, byte) });
                page += pages + random.below(32);
            }
            file.write(batch, Priority::Client).await.expect("a batch of writes");
            if random.below(4) == 0 {
                file.flush().await.expect("flush");
            }
            let got = read(&file, 0, PAGES as u64).await;
            for (page, byte) in model.iter().enumerate() {
                let part = &got[page * ALIGN_BYTES..][..ALIGN_BYTES];
                assert!(part.iter().all(|b| b == byte), "seed {seed}, round {round}, page {page}");
            }
        }
        disk.remove(&name("random")).await.expect("remove");
    }
}

/// What was flushed is there when the disk is opened again.
async fn outlives_handles<D: Disks>(disks: &D, path: &str, disk: D::Disk) {
    let file = disk.create(&name("kept.tmp"), PAGE).await.expect("create");
    write(&file, 0, filled(1, 42)).await;
    file.flush().await.expect("flush");
    disk.rename(&name("kept.tmp"), &name("kept")).await.expect("rename");
    disk.flush_names().await.expect("flush of names");
    drop(file);
    drop(disk);
    let disk = disks.open(path).await.expect("open again");
    assert_eq!(disk.list().await.unwrap(), [name("kept")], "names that were flushed");
    let file = disk.open(&name("kept")).await.expect("open");
    assert_page("content that was flushed", 42, &read(&file, 0, 1).await);
    disk.remove(&name("kept")).await.expect("remove");
}
