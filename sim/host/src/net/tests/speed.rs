//! How many messages a second of real time the network carries. Measures and asserts nothing about it.

use std::time::Duration;

use super::*;

const CALLS: u64 = 200_000;
const AT_ONCE: u64 = 64;

/// Prints the messages of the rpc layer that are carried in a real second: with
/// `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p cadole-sim-host speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, reason = "real time is what it measures")]
fn messages_per_second() {
    for payload_bytes in [0, 4096, 1 << 20] {
        let scene = Scene::new(1);
        scene.serve();
        let caller = scene.caller();
        let calls = if payload_bytes > 4096 { CALLS / 50 } else { CALLS };
        let payload = random(1, payload_bytes);
        let began = std::time::Instant::now();
        scene.run(async {
            let tasks: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    let (caller, target, payload) = (caller.clone(), scene.target.clone(), payload.clone());
                    scene.world.spawn("calls", async move {
                        for _ in 0..calls / AT_ONCE {
                            let pieces = if payload.is_empty() { Vec::new() } else { vec![payload.clone()] };
                            caller.call(&target, write(1), pieces, Duration::from_secs(60)).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                env::Task::join(task).await;
            }
        });
        let seconds = began.elapsed().as_secs_f64();
        let messages = f64::from(u32::try_from(2 * calls).unwrap());
        println!(
            "{payload_bytes} bytes each: {:.0} messages/s ({seconds:.2} s; {:?})",
            messages / seconds,
            scene.world.costs()
        );
    }
}
