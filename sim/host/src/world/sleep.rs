//! One wait in virtual time, with a timer that is set once for each task that polls it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{World, lock};

/// Waits in virtual time.
pub struct Sleep {
    world: World,
    deadline: Duration,
    set: Option<Set>,
    polled: bool,
}

/// A timer that was set.
struct Set {
    key: (Duration, u64),
    /// Whom it wakes: where the task lies in memory. The timer's own waker keeps it there.
    whom: usize,
}

impl Sleep {
    pub(super) fn new(world: World, deadline: Duration) -> Self {
        Self { world, deadline, set: None, polled: false }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut *self;
        let mut timers = lock(&sleep.world.0.timers);
        if timers.now >= sleep.deadline {
            drop(timers);
            if sleep.polled {
                return Poll::Ready(());
            }
            sleep.polled = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        sleep.polled = true;
        let whom = context.waker().data().addr();
        let key = match &sleep.set {
            // Polled again for another reason, as most are that guard something: it is set already.
            Some(set) if set.whom == whom => return Poll::Pending,
            Some(set) => set.key,
            None => {
                timers.next += 1;
                (sleep.deadline, timers.next)
            }
        };
        let before = timers.waiting.insert(key, context.waker().clone());
        drop(timers);
        drop(before);
        sleep.set = Some(Set { key, whom });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(set) = &self.set {
            let waker = lock(&self.world.0.timers).waiting.remove(&set.key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::world::WorldOptions;

    /// A wait that was polled in one task and goes on in another wakes the other, and ends in time.
    #[test]
    fn wakes_who_polled_last() {
        let world = World::new(WorldOptions::new(1));
        let ended: Arc<Mutex<Option<Duration>>> = Arc::default();
        let (inner, told) = (world.clone(), ended.clone());
        let test = async {
            let mut sleep = world.sleep(Duration::from_secs(3));
            let both = async {
                tokio::select! {
                    biased;
                    () = &mut sleep => panic!("three seconds have not passed"),
                    () = world.sleep(Duration::from_secs(1)) => {}
                }
            };
            both.await;
            world.spawn("other", async move {
                sleep.await;
                *lock(&told) = Some(inner.now());
            });
            world.sleep(Duration::from_secs(9)).await;
        };
        world.run(Duration::from_secs(60), test).unwrap();
        assert_eq!(*lock(&ended), Some(Duration::from_secs(3)));
    }
}
