//! Randomness, from the kernel.

use env::Rng;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::fatal;

/// The kernel's generator, which waits at boot until it is seeded and cannot run dry.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl OsRng {
    /// The kernel's generator.
    pub fn new() -> Self {
        Self
    }
}

impl Rng for OsRng {
    /// Ends the process if the kernel has no randomness to give: identifiers that can be guessed or
    /// repeat would be worse.
    fn fill(&self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(more) => filled += more,
                Err(Errno::INTR) => {}
                Err(error) => fatal::end(&format!("the kernel gives no randomness: {error}")),
            }
        }
    }
}
