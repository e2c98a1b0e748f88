//! Disks: directories, with positioned reads and writes.
//!
//! Transfers and flushes go through io_uring ([`ring`]), a thread and a ring a disk. Where the kernel gives
//! no ring, as in many containers, they are POSIX calls that wait, on the runtime's threads for
//! blocking work; so are all calls on names. Where the file system says that it takes direct I/O (`statx`,
//! `STATX_DIOALIGN`), the page cache is left out: half the time and a fifteenth of the CPU of
//! buffered writes. Where it does not, transfers are buffered; a flush makes both durable.
//!
//! A `.lock` file in the directory, locked with `flock`, keeps a second owner out. It stays behind
//! when the disk is closed; the kernel drops the lock with the last descriptor, so that a crash
//! leaves none.
//!
//! After a flush has failed, no flush of that disk succeeds until it is opened again: the kernel
//! reports lost pages once and forgets them, and a disk that loses pages must be looked at.

mod engine;
mod errors;
mod file;
mod lanes;
mod ring;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::{Disk, Disks, FileName, Priority, Space, StorageError, StorageErrorKind};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub use self::engine::EngineChoice;
use self::engine::{Cache, PATIENCE};
pub use self::file::OsFile;
use self::lanes::Lanes;
use self::ring::Ring;
use crate::blocking::{self, Broken, GroupFlush};
use crate::memory;

/// The name is no [`FileName`], so that it never shows in a list and nobody else can use it.
const LOCK_NAME: &str = ".lock";

/// Files are private to the daemon's user.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// The directories of this machine, as disks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisks {
    choice: EngineChoice,
}

impl OsDisks {
    /// The directories of this machine, as disks served by this engine.
    pub fn new(choice: EngineChoice) -> Self {
        env::buf::advise(memory::prefer_huge_pages);
        Self { choice }
    }
}

impl Disks for OsDisks {
    type Disk = OsDisk;

    async fn open(&self, path: &str) -> Result<OsDisk, StorageError> {
        let (path, choice) = (PathBuf::from(path), self.choice);
        blocking::run(move || OsDisk::open_now(path, choice)).await
    }
}

/// A directory that this process owns.
#[derive(Clone, Debug)]
pub struct OsDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    directory: OwnedFd,
    /// Holds the lock while it is open.
    _lock: OwnedFd,
    cache: Cache,
    /// Or why there is none.
    ring: Result<Ring, String>,
    lanes: Lanes,
    names: GroupFlush,
    broken: Arc<Broken>,
}

impl OsDisk {
    fn open_now(path: PathBuf, choice: EngineChoice) -> Result<Self, StorageError> {
        let what = || format!("cannot open the disk {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(&path, flags, Mode::empty()).map_err(|e| errors::from(e, what()))?;
        let lock = lock(&directory, &path)?;
        let cache = Cache::of(&lock);
        let ring = match choice {
            EngineChoice::Best => Ring::start(PATIENCE),
            EngineChoice::Threads => Err("threads were chosen".to_owned()),
        };
        if let Cache::Buffered { why } = cache {
            tracing::warn!(path = %path.display(), why, "transfers of this disk are buffered");
        }
        if let (EngineChoice::Best, Err(why)) = (choice, &ring) {
            tracing::warn!(path = %path.display(), why, "this disk is served by threads");
        }
        Ok(Self(Arc::new(Shared {
            path,
            directory,
            _lock: lock,
            cache,
            ring,
            lanes: Lanes::default(),
            names: GroupFlush::default(),
            broken: Arc::default(),
        })))
    }

    /// Runs a short call on names.
    async fn call<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    {
        let disk = self.clone();
        let place = self.0.lanes.enter(Priority::Client).await?;
        blocking::run(move || {
            let result = work(&disk);
            drop(place);
            result
        })
        .await
    }

    fn what(&self, doing: &str, name: &str) -> String {
        format!("cannot {doing} {}", self.0.path.join(name).display())
    }

    fn open_now_file(&self, name: &FileName) -> Result<OsFile, StorageError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let what = || self.what("open", name.as_str());
        let fd = fs::openat(&self.0.directory, name.as_str(), flags, Mode::empty())
            .map_err(|e| errors::from(e, what()))?;
        OsFile::new(self.clone(), fd, name).map_err(|e| errors::from(e, what()))
    }

    fn create_now(&self, name: &FileName, size_bytes: u64) -> Result<OsFile, StorageError> {
        let what = || self.what("create", name.as_str());
        // Asked for first: a file system hands out all the space that it has before it says no, and
        // whoever else writes to it meanwhile would be told that it is full.
        if size_bytes > self.space_now()?.available_bytes {
            return match fs::statat(&self.0.directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(StorageError::new(StorageErrorKind::AlreadyExists, what())),
                Err(_) => Err(StorageError::new(StorageErrorKind::Full, what())),
            };
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.0.directory, name.as_str(), flags, FILE_MODE)
            .map_err(|e| errors::from(e, what()))?;
        let made = reserve(&fd, size_bytes).and_then(|()| OsFile::new(self.clone(), fd, name));
        made.map_err(|error| {
            // Should this fail too, a file of no use is left: the caller knows only that it has none.
            let _ = fs::unlinkat(&self.0.directory, name.as_str(), AtFlags::empty());
            errors::from(error, what())
        })
    }

    fn list_now(&self) -> Result<Vec<FileName>, StorageError> {
        let what = |e| errors::from(e, self.what("list", ""));
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0.directory).map_err(what)? {
            let entry = entry.map_err(what)?;
            let Some(name) = entry.file_name().to_str().ok().and_then(|name| name.parse::<FileName>().ok())
            else {
                continue;
            };
            let regular = match entry.file_type() {
                FileType::Unknown => self.is_regular(&name).map_err(what)?,
                kind => kind == FileType::RegularFile,
            };
            if regular {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// For file systems whose directories do not tell.
    fn is_regular(&self, name: &FileName) -> Result<bool, Errno> {
        match fs::statat(&self.0.directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn space_now(&self) -> Result<Space, StorageError> {
        let stat = fs::fstatvfs(&self.0.directory)
            .map_err(|e| errors::from(e, self.what("measure the space of", "")))?;
        Ok(Space {
            capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

impl Disk for OsDisk {
    type File = OsFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        self.call(Self::list_now).await
    }

    async fn open(&self, name: &FileName) -> Result<OsFile, StorageError> {
        let name = name.clone();
        self.call(move |disk| disk.open_now_file(&name)).await
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<OsFile, StorageError> {
        let name = name.clone();
        self.call(move |disk| disk.create_now(&name, size_bytes)).await
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        let (from, to) = (from.clone(), to.clone());
        self.call(move |disk| {
            let directory = &disk.0.directory;
            fs::renameat(directory, from.as_str(), directory, to.as_str())
                .map_err(|e| errors::from(e, disk.what("rename", from.as_str())))
        })
        .await
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        let name = name.clone();
        self.call(move |disk| {
            fs::unlinkat(&disk.0.directory, name.as_str(), AtFlags::empty())
                .map_err(|e| errors::from(e, disk.what("remove", name.as_str())))
        })
        .await
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        let disk = self.clone();
        let flush = move || {
            transfer::retried(|| fs::fsync(&disk.0.directory))
                .map_err(|e| errors::from(e, disk.what("flush the names of", "")))
        };
        self.0.names.flush(&self.0.broken, flush).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.call(Self::space_now).await
    }

    fn engine(&self) -> String {
        let cache = &self.0.cache;
        match &self.0.ring {
            Ok(_) => format!("io_uring, {cache}"),
            Err(why) => format!("threads ({why}), {cache}"),
        }
    }
}

fn lock(directory: &OwnedFd, path: &Path) -> Result<OwnedFd, StorageError> {
    let what = || format!("cannot lock the disk {}", path.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = fs::openat(directory, LOCK_NAME, flags, FILE_MODE).map_err(|e| errors::from(e, what()))?;
    transfer::retried(|| fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)).map_err(|error| {
        if error == Errno::WOULDBLOCK {
            StorageError::new(StorageErrorKind::Locked, format!("{} is in use", path.display()))
        } else {
            errors::from(error, what())
        }
    })?;
    Ok(lock)
}

fn reserve(file: &OwnedFd, size_bytes: u64) -> Result<(), Errno> {
    if size_bytes == 0 {
        return Ok(());
    }
    transfer::retried(|| fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes))
}
