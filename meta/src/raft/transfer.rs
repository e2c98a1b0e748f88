//! A snapshot on its way: rows in chunks, then how many there were and their checksum.
//!
//! The checksum is CRC-32C over table, key and value of each row in the order sent, each with its
//! length in front (u32, little endian), so that no two different sequences of rows agree by shifting
//! bytes between them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use env::{Batch, Env, Kv, Kvs, Table};
use proto::{ErrorCode, Failure, InvalidInput, frame, wire};

use super::handle::Handle;
use super::machine::{Spare, Spares};
use super::replica::TABLES;
use super::snapshot::Rows;

/// A chunk is sent once it has so many bytes; the last row may exceed it.
const CHUNK_BYTES: usize = 512 * 1024;

/// Count and checksum of the rows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    crc32c: u32,
}

impl Sum {
    fn add(&mut self, row: &wire::SnapshotRow) {
        self.rows += 1;
        for part in [row.table.as_bytes(), &row.key, &row.value] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.crc32c = crc32c::crc32c_append(self.crc32c, &length.to_le_bytes());
            self.crc32c = crc32c::crc32c_append(self.crc32c, part);
        }
    }
}

/// Makes the chunks of a snapshot, framed as they go over the wire.
pub(crate) struct Chunks<K> {
    rows: Rows<K>,
    page: std::vec::IntoIter<wire::SnapshotRow>,
    sum: Sum,
    ended: bool,
}

impl<K: Kv> Chunks<K> {
    pub(crate) fn new(kv: Arc<Handle<K>>) -> Self {
        Self { rows: Rows::new(kv), page: Vec::new().into_iter(), sum: Sum::default(), ended: false }
    }

    /// The next chunk; none after the one that says it is the last.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let mut chunk = wire::SnapshotChunk::default();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES {
            let Some(row) = self.row()? else {
                self.ended = true;
                chunk.last = true;
                chunk.rows_total = self.sum.rows;
                chunk.crc32c = self.sum.crc32c;
                break;
            };
            bytes += row.key.len() + row.value.len();
            chunk.rows.push(row);
        }
        Ok(Some(frame::encode(&chunk)?))
    }

    fn row(&mut self) -> Result<Option<wire::SnapshotRow>, Failure> {
        loop {
            if let Some(row) = self.page.next() {
                self.sum.add(&row);
                return Ok(Some(row));
            }
            let Some((table, rows)) = self.rows.next().map_err(local)? else { return Ok(None) };
            let rows = rows.into_iter();
            let rows = rows.map(|(key, value)| wire::SnapshotRow { table: table.to_owned(), key, value });
            self.page = rows.collect::<Vec<_>>().into_iter();
        }
    }
}

/// Writes the chunks that arrive into a store, and checks them.
pub(crate) struct Receiver<S: Kvs> {
    spare: Spare<S>,
    sum: Sum,
    complete: bool,
}

impl<S: Kvs> Receiver<S> {
    /// With a fresh store.
    pub(crate) async fn start(spares: &Spares<S>) -> Result<Self, Failure> {
        let spare = spares.open().await.map_err(local)?;
        Ok(Self { spare, sum: Sum::default(), complete: false })
    }

    /// Takes the next chunk.
    pub(crate) fn take(&mut self, chunk: wire::SnapshotChunk) -> Result<(), Failure> {
        if self.complete {
            return Err(InvalidInput::new("a snapshot goes on after its last chunk").into());
        }
        let mut batch = Batch::new();
        for row in chunk.rows {
            self.sum.add(&row);
            batch.put(known_table(&row.table)?, row.key, row.value);
        }
        self.spare.kv().write(batch).map_err(|error| local(io::Error::other(error)))?;
        if chunk.last {
            let told = Sum { rows: chunk.rows_total, crc32c: chunk.crc32c };
            if told != self.sum {
                let sentence = format!("a snapshot arrived damaged: {:?}, announced were {told:?}", self.sum);
                return Err(Failure::new(ErrorCode::ChecksumMismatch, sentence));
            }
            self.complete = true;
        }
        Ok(())
    }

    /// The complete store, durable.
    pub(crate) async fn finish(self) -> Result<Spare<S>, Failure> {
        if !self.complete {
            return Err(InvalidInput::new("a snapshot ended without its last chunk").into());
        }
        self.spare.kv().flush().await.map_err(|error| local(io::Error::other(error)))?;
        Ok(self.spare)
    }
}

/// Receives a whole snapshot from the payload of a request.
pub(crate) async fn receive<E: Env>(
    spares: &Spares<E::Kvs>,
    payload: &mut env::rpc::Payload<<<<E as Env>::Net as env::Net>::Connection as env::Connection>::Recv>,
) -> Result<Spare<E::Kvs>, Failure> {
    let mut receiver = Receiver::start(spares).await?;
    while let Some(chunk) = payload.next_message().await? {
        receiver.take(chunk)?;
    }
    receiver.finish().await
}

fn known_table(name: &str) -> Result<Table, InvalidInput> {
    TABLES.into_iter().find(|table| *table == name).ok_or_else(|| {
        InvalidInput::new(format!("a snapshot has a table {name:?} that this version does not know"))
    })
}

fn local(error: io::Error) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the snapshot's store: {error}"))
}
