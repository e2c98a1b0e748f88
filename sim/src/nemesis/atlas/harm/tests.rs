//! Damage costs what it hits, and at the end of a log what lies behind it as well.

use std::time::Duration;

use futures_util::future::join_all;
use simhost::{World, WorldOptions};

use super::*;
use crate::testing::{PATH, Store, name, shard, store};

const PAGE: u64 = 4096;

/// What damage would cost that begins `pages` after the record of a shard.
async fn weighed(host: &Host, store: &Store, stripe: u32, pages: u64, stale: bool) -> Harm {
    let device = host.disk(PATH).unwrap();
    let mut whole = Found::new();
    for stripe in 0..9 {
        whole.extend(store.place(name(stripe)).unwrap().map(|place| (name(stripe), place)));
    }
    let RecordPlace { file, offset, .. } = whole[&name(stripe)].clone();
    let (offset, bytes) = (offset + pages * PAGE, PAGE);
    let damage = if stale { Damage::StaleOnce { offset, bytes } } else { Damage::Zero { offset, bytes } };
    weigh(host, &device, &whole, (&file, &damage)).await.unwrap()
}

fn names(stripes: &[u32]) -> BTreeSet<ShardName> {
    stripes.iter().map(|stripe| name(*stripe)).collect()
}

/// A record in the middle is lost alone; of the last ones, written together, those behind it may be lost with it;
/// a deletion that is lost may bring back what was deleted; and what is read stale is in danger, no more.
#[test]
fn what_damage_costs() {
    let world = World::new(WorldOptions::new(1));
    let host = world.add_host("a", "node/1".parse().unwrap());
    host.insert_disk(PATH, 64 << 20);
    let test = async {
        let store = store(&host).await;
        store.put(shard(0), Priority::Client).await.unwrap();
        store.put(shard(1), Priority::Client).await.unwrap();
        store.delete(name(1)).await.unwrap();
        store.put(shard(2), Priority::Client).await.unwrap();
        join_all((3..6).map(|stripe| store.put(shard(stripe), Priority::Client))).await;

        let middle = weighed(&host, &store, 0, 0, false).await;
        assert_eq!((middle.now, middle.later, middle.forgets), (names(&[0]), names(&[0]), false));
        let payload = weighed(&host, &store, 0, 1, false).await;
        assert_eq!((payload.now, payload.later, payload.forgets), (names(&[0]), names(&[]), false));
        // Shard 1 lies behind shard 0, and its deletion behind it.
        let deletion = weighed(&host, &store, 0, 4, false).await;
        assert_eq!((deletion.now, deletion.later, deletion.forgets), (names(&[]), names(&[]), true));
        let end = weighed(&host, &store, 3, 1, false).await;
        assert_eq!((end.now, end.later), (names(&[3]), names(&[3, 4, 5])));
        let stale = weighed(&host, &store, 3, 1, true).await;
        assert_eq!((stale.now, stale.later), (names(&[]), names(&[3, 4, 5])));
    };
    world.run(Duration::from_secs(100), test).unwrap();
}
