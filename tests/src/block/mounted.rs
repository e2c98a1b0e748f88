//! A file system on a device.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::device::run;
use super::{Device, Image, Recorder, Trace};

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// With its journal in the usual mode, `ordered`.
    Ext4,
    /// Where `mkfs.xfs` is installed.
    Xfs,
}

impl FileSystem {
    /// As `mount` knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// What makes it.
    pub fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    /// What a device that it survives on may tear a write into. xfs takes a block of metadata for whole when its first
    /// sector is new, and does not replay its log over it.
    pub fn sectors_bytes(self) -> &'static [u64] {
        match self {
            Self::Ext4 => &[512, 4096],
            Self::Xfs => &[4096],
        }
    }

    /// A device of so many bytes with nothing but the file system on it. A small journal, so that it goes around too.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn fresh(self, bytes: u64) -> Result<Image, String> {
        let device = Device::start(Image::new(bytes), Duration::ZERO)?;
        let options = match self {
            Self::Ext4 => "-q -F -b 4096 -J size=8 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0",
            Self::Xfs => "-q -f -K",
        };
        run(self.maker(), options.split(' ').chain([device.path()]).map(OsStr::new))?;
        Ok(device.image())
    }
}

/// A file system that is mounted. Dropping it takes it away, whoever uses it.
pub struct Mounted {
    /// False once it is known not to be.
    is_mounted: bool,
    dir: TempDir,
    device: Device,
}

impl Mounted {
    /// Mounts what is on the image, on a device whose flushes take so long.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(image: Image, flush: Duration, file_system: FileSystem) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut mounted = Self { is_mounted: false, dir, device: Device::start(image, flush)? };
        let words = ["-t", file_system.name(), mounted.device.path()];
        run("mount", words.iter().map(OsStr::new).chain([mounted.path().as_os_str()]))?;
        mounted.is_mounted = true;
        mounted.device.leave_to_its_user();
        Ok(mounted)
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Watches the device.
    pub fn recorder(&self) -> Recorder {
        self.device.recorder()
    }

    /// What was done to the device up to now.
    pub fn trace(&self) -> Trace {
        self.device.trace()
    }

    /// Unmounts it. Threads that have ended may hold their files for a moment.
    ///
    /// # Errors
    ///
    /// When it is used for long.
    pub fn unmount(mut self) -> Result<(), String> {
        let mut result = Ok(String::new());
        for _ in 0..400 {
            result = run("umount", [self.path().as_os_str()]);
            if result.is_ok() {
                self.is_mounted = false;
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        result.map(|_| ())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = run("umount", [OsStr::new("--lazy"), self.path().as_os_str()]);
        }
    }
}
