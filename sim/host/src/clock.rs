//! Clocks: virtual, one a host, drifting and jumping.

use std::time::Duration;

use env::{Clock, Monotonic};
use proto::Timestamp;

use crate::host::Life;
use crate::rng::Stream;
use crate::world::lock;

/// What wall clocks show when the world begins: 2030-01-01.
const EPOCH_MS: u64 = 1_893_456_000_000;
const MILLION: i128 = 1_000_000;

/// A host's clocks, as a line through virtual time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockState {
    /// Virtual time, and the time since the process began, at the last change.
    since: Duration,
    shown: Duration,
    rate_ppm: i32,
    /// The wall clock at `since`.
    wall: Duration,
}

impl Default for ClockState {
    fn default() -> Self {
        Self {
            since: Duration::ZERO,
            shown: Duration::ZERO,
            rate_ppm: 0,
            wall: Duration::from_millis(EPOCH_MS),
        }
    }
}

fn scaled(duration: Duration, numerator: i128, denominator: i128) -> Duration {
    if numerator == denominator {
        return duration;
    }
    let nanos = i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / MILLION);
    let scaled = (nanos * numerator + denominator - 1) / denominator;
    Duration::from_nanos(u64::try_from(scaled.max(0)).unwrap_or(u64::MAX))
}

impl ClockState {
    fn factor(&self) -> i128 {
        MILLION + i128::from(self.rate_ppm)
    }

    fn rebase(&mut self, now: Duration) {
        let elapsed = self.elapsed(now);
        *self = Self { since: now, shown: self.shown + elapsed, wall: self.wall + elapsed, ..*self };
    }

    fn elapsed(&self, now: Duration) -> Duration {
        scaled(now.saturating_sub(self.since), self.factor(), MILLION)
    }

    /// A process begins: its monotonic clock starts anywhere.
    pub(crate) fn boot(&mut self, now: Duration, stream: &Stream) {
        self.rebase(now);
        self.shown = Duration::from_millis(stream.below(1_000_000_000));
    }

    pub(crate) fn drift(&mut self, now: Duration, ppm: i32) {
        self.rebase(now);
        self.rate_ppm = ppm.clamp(-900_000, 9_000_000);
    }

    pub(crate) fn jump(&mut self, by_ms: i64) {
        let by = Duration::from_millis(by_ms.unsigned_abs());
        self.wall = if by_ms < 0 { self.wall.saturating_sub(by) } else { self.wall.saturating_add(by) };
    }

    fn shown(&self, now: Duration) -> Duration {
        self.shown + self.elapsed(now)
    }

    pub(crate) fn wall_ms(&self, now: Duration) -> u64 {
        u64::try_from((self.wall + self.elapsed(now)).as_millis()).unwrap_or(u64::MAX)
    }

    /// Virtual time until the monotonic clock shows `point`.
    fn until(&self, now: Duration, point: Duration) -> Duration {
        scaled(point.saturating_sub(self.shown(now)), MILLION, self.factor())
    }
}

/// The clocks of one process.
#[derive(Clone)]
pub struct SimClock(Life);

impl SimClock {
    pub(crate) fn new(life: Life) -> Self {
        Self(life)
    }

    fn until(&self, point: Monotonic) -> Duration {
        let now = self.0.world().now();
        lock(&self.0.host.clock).until(now, point.since_start())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Monotonic {
        let now = self.0.world().now();
        Monotonic::new(lock(&self.0.host.clock).shown(now))
    }

    fn wall(&self) -> Timestamp {
        let now = self.0.world().now();
        Timestamp::from_millis(lock(&self.0.host.clock).wall_ms(now))
    }

    async fn sleep(&self, duration: Duration) {
        let deadline = self.now().after(duration);
        self.0.sleep(self.until(deadline)).await;
        // The clock may have been slowed meanwhile.
        while self.now() < deadline {
            self.0.sleep(self.until(deadline).max(Duration::from_nanos(1))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::Identity;

    use super::*;
    use crate::world::{World, WorldOptions};

    fn host(seed: u64) -> crate::host::Host {
        let identity: Identity = "operator/alice".parse().unwrap();
        World::new(WorldOptions::new(seed)).add_host("a", identity)
    }

    /// The contract of clocks holds, whether they drift or not.
    #[test]
    fn conformance() {
        for ppm in [0, 300, -300, 200_000] {
            let host = host(1);
            let env = host.boot();
            host.drift(ppm);
            let clock = env::Env::clock(&env).clone();
            let suite = async move { env::conformance::clock(&clock).await };
            host.world().run(Duration::from_secs(10_000), suite).unwrap();
        }
    }

    /// A fast clock's sleep is short, a slow one's long; a jump moves the wall clock alone.
    #[test]
    fn drift_and_jumps() {
        let host = host(2);
        let env = host.boot();
        let clock = env::Env::clock(&env).clone();
        let world = host.world().clone();
        let test = async {
            for (ppm, expected_ms) in [(0, 1000), (1_000_000, 500), (-500_000, 2000)] {
                host.drift(ppm);
                let began = world.now();
                clock.sleep(Duration::from_secs(1)).await;
                let took = (world.now() - began).as_micros();
                assert!(took.abs_diff(expected_ms * 1000) < 10, "{ppm} ppm: {took} us");
            }
            host.drift(0);
            let (wall, shown) = (clock.wall(), clock.now());
            host.jump_wall(-5000);
            assert_eq!(clock.wall().as_millis() + 5000, wall.as_millis());
            assert_eq!(clock.now(), shown);
        };
        world.run(Duration::from_secs(60), test).unwrap();
    }
}
