//! Ends a cluster's processes when the test process itself is killed and can no longer do so.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, which is the end of the test process; then kills what the pid
/// files name. Unlike the test process it has nothing to lose.
const SCRIPT: &str = r#"cat >/dev/null; for f in "$1"/*/pid; do
  if read -r pid rest <"$f"; then kill -9 "$pid"; fi
done 2>/dev/null"#;

/// A shell that outlives the test process by a moment.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Watches over the cluster in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Self(child)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // The cluster has ended by now: there is nothing to watch.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
