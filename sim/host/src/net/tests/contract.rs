//! The contract of networks.

use std::time::Duration;

use env::conformance::{self, NetCase};

use crate::net::NetFaults;
use crate::world::{Schedule, World, WorldOptions};

/// The contract holds on all schedules, with short latencies and long ones.
#[test]
fn contract() {
    let lame = NetFaults {
        latency_us: (1_000, 40_000),
        spike_ppm: 20_000,
        spike_us: (1_000, 100_000),
        split_ppm: 500_000,
        ..NetFaults::default()
    };
    for seed in 0..4 {
        for schedule in [Schedule::Random, Schedule::Fifo, Schedule::Starving] {
            for faults in [NetFaults::default(), lame] {
                println!("seed {seed}, {schedule:?}, {faults:?}");
                let world = World::new(WorldOptions { schedule, ..WorldOptions::new(seed) });
                world.network().configure(faults);
                let node = world.add_host("node", "node/3".parse().unwrap());
                let meta = world.add_host("meta", "meta/1".parse().unwrap());
                let (a, b) = (node.boot(), meta.boot());
                let case = NetCase {
                    listening: node.identity().clone(),
                    connecting: meta.identity().clone(),
                    address: format!("{}:0", node.address()),
                    nobody: format!("{}:1", node.address()),
                };
                world.run(Duration::from_secs(3600), conformance::net(&a, &b, &case)).unwrap();
                world.end_of_days();
            }
        }
    }
}
