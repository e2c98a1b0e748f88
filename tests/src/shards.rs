//! Behind a node's back: the shards on its disks, while it serves them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use env::{
    AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};
use futures_util::FutureExt;
use node::store::survey::{self, SurveyError};
use proto::ShardName;

/// Bytes of a record before the shard itself; docs/formats.md.
pub const HEADER_BYTES: u64 = 4096;

/// One shard on a disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    /// `node-3`.
    pub node: String,
    /// The file in which it lies.
    pub path: PathBuf,
    /// Where in the file its record begins.
    pub offset: u64,
    /// Bytes of the record.
    pub bytes: u64,
    /// What it is.
    pub name: ShardName,
    /// Its bytes match their checksums.
    pub whole: bool,
}

impl Shard {
    /// Inverts the byte at this place of the record.
    pub fn damage(&self, at: u64) {
        let file = self.file();
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset + at).expect("a byte to damage");
        file.write_all_at(&[!byte[0]], self.offset + at).expect("damaged");
        file.sync_all().expect("on the disk");
    }

    /// Makes zeros of the record from this place on, as if it had never been written.
    pub fn zero(&self, from: u64) {
        let file = self.file();
        let zeros = vec![0; usize::try_from(self.bytes - from).expect("fits memory")];
        file.write_all_at(&zeros, self.offset + from).expect("zeroed");
        file.sync_all().expect("on the disk");
    }

    /// Removes the file, with whatever else lies in it.
    pub fn remove_file(&self) {
        fs::remove_file(&self.path).expect("removed");
    }

    /// The shard, without the record's header.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = vec![0; usize::try_from(self.bytes - HEADER_BYTES).expect("fits memory")];
        self.file().read_exact_at(&mut payload, self.offset + HEADER_BYTES).expect("read");
        payload
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).expect("the file of its segment")
    }
}

/// All shards on the disks of the cluster in `dir`, in a stable order.
pub fn all(dir: &Path) -> Vec<Shard> {
    let mut found = Vec::new();
    for home in entries(dir) {
        let node = home.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if node.starts_with("node-") {
            collect(&home, &node, &mut found);
        }
    }
    found.sort();
    found
}

fn collect(dir: &Path, node: &str, found: &mut Vec<Shard>) {
    if dir.join("superblock").exists() {
        // Nothing of it ever waits. A disk that is being written to while it is read may have to be read again.
        let looked = || survey::survey(Looking(dir.to_owned())).now_or_never().expect("files never wait");
        let survey = match looked().or_else(|_| looked()) {
            Ok(survey) => survey,
            Err(SurveyError::NoDisk) => return,
            Err(error) => panic!("{}: {error}", dir.display()),
        };
        found.extend(survey.shards.into_iter().map(|shard| Shard {
            node: node.to_owned(),
            path: dir.join(shard.place.file.as_str()),
            offset: shard.place.offset,
            bytes: shard.place.bytes,
            name: shard.name,
            whole: shard.whole,
        }));
        return;
    }
    entries(dir).iter().filter(|path| path.is_dir()).for_each(|path| collect(path, node, found));
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A directory that somebody else has open as a disk.
#[derive(Clone, Debug)]
struct Looking(PathBuf);

#[derive(Clone, Debug)]
struct LookingFile(PathBuf);

fn refused<T>() -> Result<T, StorageError> {
    Err(StorageError::new(StorageErrorKind::Invalid, "only looked at"))
}

fn failed(error: &std::io::Error) -> StorageError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => StorageErrorKind::NotFound,
        _ => StorageErrorKind::Io,
    };
    StorageError::new(kind, error.to_string())
}

impl Disk for Looking {
    type File = LookingFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        let entries = entries(&self.0);
        let names = entries.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        Ok(names.collect())
    }

    async fn open(&self, name: &FileName) -> Result<LookingFile, StorageError> {
        let path = self.0.join(name.as_str());
        fs::metadata(&path).map_err(|error| failed(&error))?;
        Ok(LookingFile(path))
    }

    async fn create(&self, _: &FileName, _: u64) -> Result<LookingFile, StorageError> {
        refused()
    }

    async fn rename(&self, _: &FileName, _: &FileName) -> Result<(), StorageError> {
        refused()
    }

    async fn remove(&self, _: &FileName) -> Result<(), StorageError> {
        refused()
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        refused()
    }

    async fn space(&self) -> Result<Space, StorageError> {
        Ok(Space { capacity_bytes: 0, available_bytes: 0 })
    }

    fn engine(&self) -> String {
        "looking".to_owned()
    }
}

impl DiskFile for LookingFile {
    async fn write(&self, _: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        refused()
    }

    async fn read(&self, batch: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let one = |Read { offset, mut buf }: Read| {
            let file = File::open(&self.0)?;
            let mut there = 0;
            let room = buf.as_capacity_mut_slice();
            loop {
                let rest = room.get_mut(there..).unwrap_or_default();
                match file.read_at(rest, offset + there as u64)? {
                    0 => break,
                    bytes => there += bytes,
                }
            }
            buf.set_len(there);
            Ok(buf)
        };
        batch.into_iter().map(|read| one(read).map_err(|error| failed(&error))).collect()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        refused()
    }

    async fn size(&self) -> Result<u64, StorageError> {
        fs::metadata(&self.0).map(|about| about.len()).map_err(|error| failed(&error))
    }
}
