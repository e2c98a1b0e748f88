//! Power cuts on a real file system: a block device that records what is done to it, and can be had again as it could have
//! been left at any moment.
//!
//! A [`Device`] is a loop device on a file that this process serves with FUSE from memory. Its [`Trace`] tells every write
//! and flush in their order; a [`Cutter`] makes an [`Image`] of a [`Cut`]: everything that was flushed, and of the rest what
//! chance leaves. [`Mounted`] is a file system on such an image: the kernel's own, which replays its own journal.
//! [`Promises`] says what has to be found there.
//!
//! All this takes root: [`isolated`] runs a test in a mount namespace of its own, so that nothing of it outlives the
//! process, and tells when it cannot.

mod device;
mod image;
mod mounted;
mod promises;
mod trace;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

pub use device::{Device, Recorder, keep};
pub use image::Image;
pub use mounted::{FileSystem, Mounted};
pub use promises::{Change, Promises, Version, content};
pub use trace::{Cut, Cutter, Event, Trace};

/// Set for a process that has a mount namespace of its own.
const ISOLATED: &str = "CADOLE_TEST_ISOLATED";

/// Why there can be no such devices here, if so.
pub fn unavailable(file_system: FileSystem) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may make devices and mount file systems".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
            return Some(format!("{device}: {error}"));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in ["losetup", "mount", "umount", "unshare", file_system.maker()] {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Some(format!("{program} is not installed"));
        }
    }
    match Command::new("unshare").args(["--mount", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// True in a process that has a mount namespace of its own: the caller goes on there. Elsewhere the test of this name is
/// run in such a process, or is skipped with a sentence on standard error that no harness swallows.
pub fn isolated(test: &str, file_system: FileSystem) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    if let Some(why) = unavailable(file_system) {
        writeln!(std::io::stderr(), "test {test} is SKIPPED: {why}").expect("told");
        return false;
    }
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(ISOLATED, "1")
        .output()
        .expect("a process");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {}: {said}", output.status);
    false
}
