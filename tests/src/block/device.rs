//! A block device in memory: one file of a FUSE file system that keeps a record of what is done to it, and a loop device
//! on that file.
//!
//! Its threads touch nothing but memory, so that the kernel never waits for itself. A flush of the loop device is a
//! `fsync` of the file; it has no other way to make anything durable, and writes through no cache of its own.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use tempfile::TempDir;

use super::{Event, Image, Trace};

const FILE: &str = "device";
const FILE_INODE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const FOR_LONG: Duration = Duration::from_secs(3600);
/// Several, so that writes go on during a flush, and a flush can overtake a write that it does not cover.
const THREADS: usize = 4;

/// What was done to a device so far.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Recorded>>);

struct Recorded {
    now: Image,
    events: Vec<Event>,
}

impl Recorder {
    /// How many events there were.
    pub fn position(&self) -> usize {
        self.lock().events.len()
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let event = Event::Write { offset, data: Bytes::copy_from_slice(data) };
        let mut recorded = self.lock();
        recorded.now.write(offset, data);
        recorded.events.push(event);
    }
}

/// A device that is there. Dropping it takes it away, whatever is done with it.
pub struct Device {
    /// Such as `/dev/loop3`.
    path: Option<String>,
    start: Image,
    recorder: Recorder,
    /// Ends when it is dropped, as soon as the kernel has no more use for it.
    _session: BackgroundSession,
    _dir: TempDir,
}

impl Device {
    /// A device that begins as `start`, and whose flushes take so long.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start(start: Image, flush: Duration) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let recorder = Recorder(Arc::new(Mutex::new(Recorded { now: start.clone(), events: Vec::new() })));
        let served = Served { recorder: recorder.clone(), bytes: start.bytes(), flush };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("cadole-power".to_owned())];
        config.n_threads = Some(THREADS);
        let session =
            fuser::spawn_mount(served, dir.path(), &config).map_err(|error| format!("FUSE: {error}"))?;
        let mut device = Self { path: None, start, recorder, _session: session, _dir: dir };
        let file = device._dir.path().join(FILE);
        let attach = ["--find", "--show", "--direct-io=on"];
        device.path = Some(run("losetup", attach.iter().map(OsStr::new).chain([file.as_os_str()]))?);
        Ok(device)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Watches it.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// What was done to it up to now.
    pub fn trace(&self) -> Trace {
        Trace::new(self.start.clone(), self.recorder.lock().events.clone())
    }

    /// Its content.
    pub fn image(&self) -> Image {
        self.recorder.lock().now.clone()
    }

    /// From now on it ends with the last user of it; somebody else's may then have its name.
    pub(super) fn leave_to_its_user(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = run("losetup", [OsStr::new("--detach"), OsStr::new(&path)]);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.leave_to_its_user();
    }
}

/// Runs a program and gives what it printed.
///
/// # Errors
///
/// What it said when it failed.
pub(super) fn run<'a>(
    program: &str,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program}: {}", text(&output.stderr)))
    }
}

/// Writes an image to a file, for people.
///
/// # Errors
///
/// What the system says.
pub fn keep(image: &Image, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path)?;
    file.set_len(image.bytes())?;
    image.pages().try_for_each(|(offset, page)| file.write_all_at(page, offset))
}

/// The file system with the one file.
struct Served {
    recorder: Recorder,
    bytes: u64,
    flush: Duration,
}

impl Served {
    fn about(&self, inode: INodeNo) -> FileAttr {
        let (kind, perm, size) = match inode {
            FILE_INODE => (FileType::RegularFile, 0o600, self.bytes),
            _ => (FileType::Directory, 0o700, 0),
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Better if it can: the loop device then has several calls under way.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&FOR_LONG, &self.about(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_LONG, &self.about(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = self.recorder.lock().now.read(offset, size as usize);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match u32::try_from(data.len()) {
            Ok(bytes) if offset.checked_add(u64::from(bytes)).is_some_and(|end| end <= self.bytes) => {
                self.recorder.write(offset, data);
                reply.written(bytes);
            }
            _ => reply.error(Errno::EINVAL),
        }
    }

    /// Whichever kind it is, zeros are right.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = offset.saturating_add(length).min(self.bytes);
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            self.recorder.write(at, &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())]);
            at += piece;
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let begun = self.recorder.position();
        std::thread::sleep(self.flush);
        self.recorder.lock().events.push(Event::Flush { begun });
        reply.ok();
    }
}
