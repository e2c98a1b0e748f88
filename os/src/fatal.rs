//! The end of the process, where going on would be worse.

use std::any::Any;
use std::io::Write;

/// Ends the process at once, with a sentence on the log and on standard error. No destructor runs:
/// what is on the disks is what a crash leaves, which everything here must survive anyway.
pub(crate) fn end(why: &str) -> ! {
    tracing::error!(why, "the process ends");
    // The log may be buffered or lead nowhere.
    let _ = writeln!(std::io::stderr(), "cadole: {why}");
    std::process::abort()
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
