//! Requests and replies, with peers that die.

use std::time::Duration;

use env::rpc::{CallError, Reply};
use env::{Env, NetError, Spawn};

use super::*;
use crate::host::Death;

const SECONDS: Duration = Duration::from_secs(60);

fn is_lost(result: &Result<Reply, CallError>) -> bool {
    matches!(result, Err(CallError::Net { error: NetError::Lost(_), .. }))
}

/// Payloads of all sizes go there and come back, many at once on one connection, in any weather.
#[test]
fn payloads_go_both_ways() {
    for seed in 0..6 {
        for schedule in SCHEDULES {
            let scene = Scene::on(seed, schedule);
            scene.world.network().configure(if seed % 2 == 0 { rough() } else { NetFaults::default() });
            scene.serve();
            let caller = scene.caller();
            let calls = async {
                let mut tasks = Vec::new();
                for number in 0..40_u64 {
                    let (caller, target) = (caller.clone(), scene.target.clone());
                    let length = [0, 1, 100, 65_536, 1_000_003][usize::try_from(number % 5).unwrap()];
                    let payload = random(number, length);
                    let call = async move {
                        let pieces = vec![payload.slice(..length / 3), payload.slice(length / 3..)];
                        let reply = caller.call(&target, write(1), pieces, SECONDS).await.unwrap();
                        assert!(reply.payload.iter().rev().eq(payload.iter()), "{length} bytes changed");
                    };
                    tasks.push(scene.world.spawn("call", call));
                }
                for task in tasks {
                    env::Task::join(task).await;
                }
            };
            scene.run(calls);
        }
    }
}

/// A caller whose server dies learns of it after 5 s of silence, and reaches the next one by itself.
#[test]
fn servers_die() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        scene.serve();
        let caller = scene.caller();
        scene.run(async {
            assert!(caller.call(&scene.target, write(1), Vec::new(), SECONDS).await.is_ok());
            let stuck = caller.call(&scene.target, write(STUCK), Vec::new(), SECONDS);
            let death = async {
                scene.sleep_ms(100).await;
                assert_eq!(scene.echo.under_way(), 1);
                scene.node.kill(Death::Process);
                scene.sleep_ms(1).await;
                assert_eq!(scene.echo.under_way(), 0, "its work died with it");
            };
            let ((result, took), ()) = tokio::join!(scene.timed(stuck), death);
            assert!(is_lost(&result), "{result:?}");
            assert!((5100..6200).contains(&took.as_millis()), "{took:?}");

            let (result, took) = scene.timed(caller.call(&scene.target, write(1), Vec::new(), SECONDS)).await;
            assert!(
                matches!(result, Err(CallError::Net { error: NetError::Unreachable { .. }, .. })),
                "{result:?}"
            );
            assert_eq!(took.as_millis(), 2500);
            scene.serve();
            assert!(caller.call(&scene.target, write(1), Vec::new(), SECONDS).await.is_ok());
        });
    }
}

/// Mostly a server that restarts at once tells its callers so; otherwise they wait for the time-out.
#[test]
fn servers_restart() {
    let (mut told, mut waited) = (0, 0);
    for seed in 0..40 {
        let scene = Scene::new(seed);
        scene.serve();
        let caller = scene.caller();
        scene.run(async {
            let stuck = caller.call(&scene.target, write(STUCK), Vec::new(), SECONDS);
            let restart = async {
                scene.sleep_ms(1000).await;
                scene.node.kill(Death::Power);
                scene.serve();
            };
            let ((result, took), ()) = tokio::join!(scene.timed(stuck), restart);
            assert!(is_lost(&result), "{result:?}");
            match took.as_millis() {
                1000..2100 => told += 1,
                6000..7100 => waited += 1,
                other => panic!("{other} ms"),
            }
            assert!(caller.call(&scene.target, write(1), Vec::new(), SECONDS).await.is_ok());
        });
    }
    println!("{told} told, {waited} waited");
    assert!(told > 20 && waited > 2);
}

/// Work for a caller that died goes on until its silence is noticed; that of one that hangs up, or stops
/// as a whole, ends a moment later.
#[test]
fn callers_die() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        scene.serve();
        let caller = scene.caller();
        let (env, target) = (caller.env().clone(), scene.target.clone());
        let work = async move { drop(caller.call(&target, write(STUCK), Vec::new(), SECONDS).await) };
        let task = env.spawn().spawn("call", work);
        scene.run(async {
            scene.sleep_ms(1000).await;
            assert_eq!(scene.echo.under_way(), 1);
            if seed % 2 == 0 {
                env::Task::abort(&task);
                scene.sleep_ms(1000).await;
                assert_eq!(scene.echo.under_way(), 0, "who hangs up is noticed");
            } else {
                scene.tenant.kill(Death::Process);
                scene.sleep_ms(4999).await;
                assert_eq!(scene.echo.under_way(), 1, "nobody can know yet");
                scene.sleep_ms(1100).await;
                assert_eq!(scene.echo.under_way(), 0, "silence is noticed");
            }
        });
    }
}

/// A host that dies just after a write has sent it, and one that dies just before has not.
#[test]
fn deaths_at_an_operation() {
    for seed in 0..20 {
        for after in [false, true] {
            let scene = Scene::new(seed);
            let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
            scene.run(async {
                let (ours, theirs) = scene.pair(&tenant, &node).await;
                let sending = async move {
                    let (mut send, _recv) = ours.open().await.unwrap();
                    drop(send.write(Bytes::from_static(b"first")).await);
                    drop(send.write(Bytes::from_static(b"second")).await);
                    unreachable!("it died");
                };
                scene.world.network().configure(NetFaults {
                    latency_us: (1, 1),
                    spike_ppm: 0,
                    split_ppm: 0,
                    ..NetFaults::default()
                });
                tenant.spawn().spawn("send", sending);
                scene.tenant.doom(1, Death::Process, after);
                let (_send, mut recv) = theirs.accept().await.unwrap();
                let (bytes, error) = read_all(&mut recv, 100).await;
                assert!(!scene.tenant.is_alive());
                assert!(matches!(error, Err(NetError::Lost(_))), "{error:?}");
                let expected: &[u8] = if after { b"firstsecond" } else { b"first" };
                assert_eq!(bytes, expected, "after {after}");
            });
        }
    }
}

/// The same seed gives the same trace, another seed another.
#[test]
fn traces_repeat() {
    let trace = |seed| {
        let scene = Scene::new(seed);
        scene.world.network().configure(NetFaults { reset_ppm: 30_000, ..rough() });
        scene.serve();
        let caller = scene.caller();
        scene.run(async {
            for number in 0..100 {
                drop(caller.call(&scene.target, write(1), vec![random(number, 3000)], SECONDS).await);
            }
        });
        scene.world.trace_hash()
    };
    let hashes: Vec<_> = (0..10).map(|seed| (trace(seed), trace(seed))).collect();
    for (seed, (one, other)) in hashes.iter().enumerate() {
        assert_eq!(one, other, "seed {seed}");
        assert!(one.1 > 200, "seed {seed}: {} events", one.1);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]));
}
