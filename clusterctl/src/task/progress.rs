//! How far a task is, in words.

use proto::wire;
use wire::TaskState;

use crate::output::{duration, size};

/// `12 of 80 slots, 1.5 GiB of 10 GiB, 64 MiB/s, 2 min 16 s left`.
pub(super) fn progress(task: &wire::Task, bytes_per_s: Option<u64>) -> String {
    let mut text = format!(
        "{} of {} slots, {} of {}",
        task.slots_done,
        task.slots_total,
        size(task.bytes_done),
        size(task.bytes_total)
    );
    match (task.state(), bytes_per_s) {
        (TaskState::Paused, _) => text += &format!(", paused: clusterctl task resume {}", task.id),
        (TaskState::Running, Some(rate)) => {
            text += &format!(", {}/s", size(rate));
            if let Some(seconds) = left_s(task, rate) {
                text += &format!(", about {} left", duration(seconds));
            }
        }
        _ => {}
    }
    text
}

/// Seconds that the rest takes at this rate; none when nothing moves.
pub(super) fn left_s(task: &wire::Task, bytes_per_s: u64) -> Option<u64> {
    let left = task.bytes_total.saturating_sub(task.bytes_done);
    (bytes_per_s > 0).then(|| left.div_ceil(bytes_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Progress tells what is done, how fast it goes and how long it takes; none of what is not known.
    #[test]
    fn says_what_is_known() {
        let mut task = wire::Task {
            id: 4,
            state: TaskState::Running.into(),
            slots_total: 80,
            slots_done: 12,
            bytes_total: 10 << 30,
            bytes_done: 3 << 29,
            ..Default::default()
        };
        let done = "12 of 80 slots, 1.5 GiB of 10 GiB";
        assert_eq!(progress(&task, None), done);
        assert_eq!(progress(&task, Some(0)), format!("{done}, 0 B/s"));
        assert_eq!(progress(&task, Some(64 << 20)), format!("{done}, 64 MiB/s, about 2 min 16 s left"));
        task.set_state(TaskState::Paused);
        assert_eq!(progress(&task, Some(64 << 20)), format!("{done}, paused: clusterctl task resume 4"));
        task.set_state(TaskState::Done);
        assert_eq!(progress(&task, Some(1)), done);
    }
}
