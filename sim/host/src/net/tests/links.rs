//! Links that are cut, and hosts that stand still.

use std::time::Duration;

use env::{Connection, Env, Expect, Net, NetError, RecvStream, SendStream, Spawn};
use proto::Role;

use super::*;
use crate::net::Link;

/// Which directions are cut: out of the tenant, out of the node.
const CUTS: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

fn set(scene: &Scene, (out_of_tenant, out_of_node): (bool, bool), link: Link) {
    let (tenant, node, network) = (scene.tenant.id(), scene.node.id(), scene.world.network());
    if out_of_tenant {
        network.set_link(tenant, node, link);
    }
    if out_of_node {
        network.set_link(node, tenant, link);
    }
}

/// When an end learns that its connection is lost.
async fn end_of(scene: &Scene, connection: &SimConnection) -> Duration {
    let error = connection.accept().await.err();
    assert!(matches!(error, Some(NetError::Lost(_))), "{error:?}");
    assert!(connection.is_closed());
    scene.world.now()
}

/// A cut that is healed within 5 s delays what was sent, whole and in order, and nothing more.
#[test]
fn short_cuts_delay() {
    for seed in 0..12 {
        for cut in CUTS {
            let scene = Scene::new(seed);
            scene.world.network().configure(rough());
            scene.serve();
            let caller = scene.caller();
            scene.run(async {
                let call = |length| {
                    caller.call(&scene.target, write(1), vec![random(seed, length)], Duration::from_secs(60))
                };
                assert!(call(10).await.is_ok());
                set(&scene, cut, Link::Cut);
                let heal = async {
                    scene.sleep_ms(4500).await;
                    scene.world.network().heal();
                };
                // Both the window and the credits run into the cut.
                let ((reply, took), ()) = tokio::join!(scene.timed(call(3_000_000)), heal);
                assert!(reply.unwrap().payload.iter().rev().eq(random(seed, 3_000_000).iter()));
                assert!(took.as_millis() >= 4500, "{took:?}");
                assert!(call(10).await.is_ok());
            });
        }
    }
}

/// A cut of more than 5 s ends the connection, at each side at its own moment: who hears nothing gives up
/// first. Meanwhile nobody connects; afterwards everybody does.
#[test]
fn long_cuts_end_connections() {
    let mut half_open = 0;
    for seed in 0..20 {
        for cut in CUTS {
            let scene = Scene::new(seed);
            let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
            scene.run(async {
                let (ours, theirs) = scene.pair(&tenant, &node).await;
                let address = ours.peer_address();
                let (mut send, _recv) = ours.open().await.unwrap();
                send.write(Bytes::from_static(b"x")).await.unwrap();
                let (_send, mut recv) = theirs.accept().await.unwrap();
                assert_eq!(recv.read(9).await, Ok(Some(Bytes::from_static(b"x"))));
                let began = scene.world.now();
                set(&scene, cut, Link::Cut);
                send.write(Bytes::from_static(b"y")).await.unwrap();
                let (tenant_knows, node_knows) = tokio::join!(end_of(&scene, &ours), end_of(&scene, &theirs));
                for (deaf, knows) in [(cut.1, tenant_knows), (cut.0, node_knows)] {
                    let limit = if deaf { 6000 } else { 10_000 };
                    let ms = (knows - began).as_millis();
                    assert!((5000..=limit).contains(&ms), "{cut:?}: {ms} ms");
                }
                half_open += u32::from(tenant_knows.abs_diff(node_knows) > Duration::from_secs(1));
                let (read, written) = (recv.read(9).await, send.write(Bytes::from_static(b"z")).await);
                match read {
                    Ok(Some(bytes)) => assert!(!cut.0 && bytes == b"y"[..]),
                    other => assert!(cut.0 && matches!(other, Err(NetError::Lost(_))), "{other:?}"),
                }
                assert!(matches!(written, Err(NetError::Lost(_))));

                let expect = Expect::Role(Role::Node);
                let _listener = node.net().listen(&address).await.unwrap();
                let (result, took) = scene.timed(tenant.net().connect(&address, &expect)).await;
                assert!(matches!(result, Err(NetError::Unreachable { .. })));
                assert_eq!(took.as_millis(), 2500);
                scene.world.network().heal();
                assert!(tenant.net().connect(&address, &expect).await.is_ok());
            });
        }
    }
    assert!(half_open > 10, "{half_open}");
}

/// A slow link delays what goes over it, one way.
#[test]
fn slow_links() {
    for seed in 0..10 {
        let scene = Scene::new(seed);
        scene.world.network().configure(NetFaults { spike_ppm: 0, ..NetFaults::default() });
        scene.serve();
        let caller = scene.caller();
        scene.run(async {
            let call = || caller.call(&scene.target, write(1), Vec::new(), Duration::from_secs(60));
            assert!(call().await.is_ok());
            for cut in CUTS {
                set(&scene, cut, Link::Slow { extra_us: 400_000 });
                let (result, took) = scene.timed(call()).await;
                assert!(result.is_ok());
                let expected = 400 * (u128::from(cut.0) + u128::from(cut.1));
                assert!((expected..expected + 10).contains(&took.as_millis()), "{cut:?}: {took:?}");
                set(&scene, (true, true), Link::Up);
            }
        });
    }
}

/// Broken connections are lost for both, at moments of their own, and others are not harmed.
#[test]
fn broken_connections() {
    let mut apart = 0;
    for seed in 0..30 {
        let scene = Scene::new(seed);
        let third = scene.world.add_host("third", "operator/alice".parse().unwrap());
        let (tenant, node, third_env) = (scene.tenant.boot(), scene.node.boot(), third.boot());
        scene.run(async {
            let (ours, theirs) = scene.pair(&tenant, &node).await;
            let (other, others) = scene.pair(&third_env, &node).await;
            let began = scene.world.now();
            scene.world.network().break_connections(scene.node.id(), scene.tenant.id());
            let (one, two) = tokio::join!(end_of(&scene, &ours), end_of(&scene, &theirs));
            assert!(one.max(two) - began <= Duration::from_secs(5));
            apart += u32::from(one.abs_diff(two) > Duration::from_secs(1));
            pass(&other, &others, &random(1, 1000)).await;
            pass(&others, &other, &random(2, 1000)).await;
        });
    }
    assert!((5..30).contains(&apart), "{apart}");
}

/// A host that stands still for a while answers later; nobody connects to it meanwhile.
#[test]
fn short_pauses_delay() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        scene.serve();
        let caller = scene.caller();
        scene.run(async {
            let call =
                || caller.call(&scene.target, write(1), vec![random(1, 3_000_000)], Duration::from_secs(60));
            assert!(call().await.is_ok());
            scene.node.pause();
            let resume = async {
                let attempt = caller.env().net().connect(&scene.target.address, &scene.target.expect);
                assert!(matches!(attempt.await, Err(NetError::Unreachable { .. })));
                scene.sleep_ms(2400).await;
                scene.node.resume();
            };
            let ((reply, took), ()) = tokio::join!(scene.timed(call()), resume);
            assert!(reply.is_ok(), "{reply:?}");
            assert!((4900..6000).contains(&took.as_millis()), "{took:?}");
        });
    }
}

/// A host that stands still for longer loses its connections, and finds out when it goes on.
#[test]
fn long_pauses_end_connections() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
        scene.run(async {
            let (ours, theirs) = scene.pair(&tenant, &node).await;
            let began = scene.world.now();
            scene.node.pause();
            let knows = end_of(&scene, &ours).await - began;
            assert!((5000..=6000).contains(&knows.as_millis()), "{knows:?}");
            scene.sleep_ms(20_000).await;
            assert!(!theirs.is_closed(), "it stands still");
            scene.node.resume();
            let began = scene.world.now();
            let knows = end_of(&scene, &theirs).await - began;
            assert!(knows <= Duration::from_secs(5), "{knows:?}");
        });
    }
}

/// Connections survive two short pauses whose sum is long, and a death ends a pause.
#[test]
fn pauses_do_not_add_up() {
    for seed in 0..10 {
        let scene = Scene::new(seed);
        let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
        scene.run(async {
            let (ours, theirs) = scene.pair(&tenant, &node).await;
            for _ in 0..3 {
                scene.node.pause();
                scene.sleep_ms(4000).await;
                scene.node.resume();
                scene.sleep_ms(10).await;
            }
            scene.sleep_ms(10_000).await;
            pass(&ours, &theirs, &random(1, 10)).await;
            scene.node.pause();
            scene.node.kill(crate::host::Death::Process);
            let again = scene.node.boot();
            let (ours, theirs) = scene.pair(&tenant, &again).await;
            scene.sleep_ms(10_000).await;
            pass(&ours, &theirs, &random(1, 10)).await;
        });
    }
}

/// Only own addresses can be listened on, one listener each; a port is free again after its listener or
/// its process. A process that is no more accepts nothing.
#[test]
fn addresses() {
    let scene = Scene::new(1);
    let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
    scene.run(async {
        for wrong in
            ["h1", "h1:x", "x1:1", "h1:70000", ":", "127.0.0.1:1", &format!("{}:5", scene.tenant.address())]
        {
            let error = node.net().listen(wrong).await.err();
            assert!(matches!(error, Some(NetError::CannotListen { .. })), "{wrong}");
        }
        let expect = Expect::Role(Role::Node);
        let error = tenant.net().connect("h1:70000", &expect).await.err();
        assert!(matches!(error, Some(NetError::Unreachable { .. })));

        let address = scene.target.address.clone();
        let first = node.net().listen(&address).await.unwrap();
        let any = node.net().listen(&format!("{}:0", scene.node.address())).await.unwrap();
        assert_ne!(any.address(), first.address());
        assert!(matches!(node.net().listen(&address).await.err(), Some(NetError::CannotListen { .. })));
        drop(first);
        let mut second = node.net().listen(&address).await.unwrap();
        scene.node.kill(crate::host::Death::Process);
        let successor = scene.node.boot();
        let mut third = successor.net().listen(&address).await.unwrap();
        let accepted = async {
            tokio::select! {
                biased;
                _ = second.accept() => panic!("the dead accept nothing"),
                connection = third.accept() => connection.unwrap(),
            }
        };
        let (connected, accepted) = tokio::join!(tenant.net().connect(&address, &expect), accepted);
        assert_eq!(accepted.peer(), scene.tenant.identity());
        drop(second);
        pass(&connected.unwrap(), &accepted, &random(1, 10)).await;
        // The dead one's drop has not taken its successor's port.
        assert!(tenant.net().connect(&address, &expect).await.is_ok());
    });
}

/// A process that dies while it connects leaves a listener with a connection that ends.
#[test]
fn deaths_while_connecting() {
    for seed in 0..20 {
        let scene = Scene::new(seed);
        let (tenant, node) = (scene.tenant.boot(), scene.node.boot());
        let (address, spawner) = (scene.target.address.clone(), tenant.spawn().clone());
        scene.tenant.doom(0, crate::host::Death::Process, true);
        scene.run(async {
            let mut listener = node.net().listen(&address).await.unwrap();
            let connecting = async move {
                drop(tenant.net().connect(&address, &Expect::Role(Role::Node)).await);
                unreachable!("it died");
            };
            spawner.spawn("connect", connecting);
            let accepted = listener.accept().await.unwrap();
            assert!(matches!(accepted.accept().await.err(), Some(NetError::Lost(_))));
            assert!(!scene.tenant.is_alive());
        });
    }
}
