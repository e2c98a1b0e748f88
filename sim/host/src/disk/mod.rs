//! Disks: what is durable, what only seems to be, and everything that breaks.
//!
//! A [`DiskDevice`] is the hardware and the kernel's view of it. It has two images of names and content,
//! the one that processes see and the one that survives a power loss, and it survives the processes. A
//! [`SimDisk`] is one process's hold of it; every operation waits in virtual time, may fail, and may be
//! the one at which the process dies.
//!
//! What a death leaves:
//!
//! - [`Death::Process`](crate::host::Death::Process): what was done is there, and still not flushed. Of
//!   what was under way, anything.
//! - [`Death::Power`](crate::host::Death::Power): what was flushed, always. Of other content any set of
//!   512-byte sectors, drawn in one of several styles; of a file's new length, all or nothing; of other
//!   changes of names any set, each as one step, and no file vanishes that nobody removed or replaced.
//!
//! A change whose future is dropped takes place, or not, or later. Which faults a disk has is decided by who
//! holds the device; nothing here fails of itself.
//!
//! Left out: priorities and bandwidth. A batch takes as long as a transfer, however many are under way.

mod content;
mod device;
mod faults;
mod forensic;
mod handles;
mod names;
mod session;
mod state;

#[cfg(test)]
mod tests;

pub use device::DiskDevice;
pub use faults::{Damage, DiskBugs, DiskCounters, DiskFaults, DiskFilter, DiskWitness};
pub use forensic::{ForensicDisk, ForensicFile};
pub use handles::{SimDisk, SimDisks, SimFile};
