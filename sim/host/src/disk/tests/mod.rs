//! Tests of the simulated disk.

mod behaviour;
mod crashes;
mod deaths;
mod faults;

use std::time::Duration;

use env::buf::ALIGN_BYTES;
use env::{AlignedBuf, Disk, DiskFile, Disks, Env, FileName, Priority, Read, StorageErrorKind, Write};

use super::*;
use crate::host::{Host, SimEnv};
use crate::world::{Schedule, World, WorldOptions};

const PATH: &str = "/disk";
const PAGE: u64 = ALIGN_BYTES as u64;
const CAPACITY_BYTES: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(100_000);

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

/// A host with an empty disk.
fn machine(seed: u64, schedule: Schedule) -> (World, Host, DiskDevice) {
    let world = World::new(WorldOptions { schedule, ..WorldOptions::new(seed) });
    let host = world.add_host("a", "operator/alice".parse().unwrap());
    let device = host.insert_disk(PATH, CAPACITY_BYTES);
    (world, host, device)
}

async fn open(env: &SimEnv) -> SimDisk {
    env.disks().open(PATH).await.expect("the disk opens")
}

fn page(byte: u8) -> AlignedBuf {
    pages(1, byte)
}

fn pages(count: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * ALIGN_BYTES);
    buf.as_mut_slice().fill(byte);
    buf
}

async fn write<F: DiskFile>(file: &F, at_page: u64, buf: AlignedBuf) -> Result<(), StorageErrorKind> {
    let batch = vec![Write { offset: at_page * PAGE, buf }];
    file.write(batch, Priority::Client).await.map_err(|error| error.kind())
}

async fn read<F: DiskFile>(file: &F, at_page: u64) -> Result<Vec<u8>, StorageErrorKind> {
    let batch = vec![Read { offset: at_page * PAGE, buf: page(0xee) }];
    let answer = file.read(batch, Priority::Client).await.pop().expect("an answer");
    answer.map(|buf| buf.as_slice().to_vec()).map_err(|error| error.kind())
}

/// A file with a flushed page of each of these bytes, and a flushed name.
async fn flushed<D: Disk>(disk: &D, text: &str, bytes: &[u8]) -> D::File {
    let file = disk.create(&name(text), bytes.len() as u64 * PAGE).await.expect("create");
    for (at, byte) in (0..).zip(bytes) {
        write(&file, at, page(*byte)).await.expect("write");
    }
    file.flush().await.expect("flush");
    disk.flush_names().await.expect("flush of names");
    file
}
