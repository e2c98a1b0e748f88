//! Reading: objects, listings, names, maps, status.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::{Error, list, query, status};

fn get(cluster: &Cluster, key: &str, head: bool) -> Result<wire::GetObjectReply, Error> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let get = wire::GetObject { tenant: "t".into(), bucket: "b".into(), key, head };
    query::get_object(&cluster.machine, &cluster.pending.over(&cluster.kv), &get)
}

/// An object reads back with what was committed, its places, and what it withstands now.
#[test]
fn objects_read_back() {
    let mut cluster = Cluster::with_racks(3);
    let mut put = cluster.extents("k", &[100_000, 70_000]).unwrap();
    put.user_metadata.insert("a".into(), "b".into());
    put.content_type = "text/plain".into();
    let version = cluster.commit(put.clone()).version;
    let small = cluster.inline("s", b"abc");
    cluster.commit(small);

    let reply = get(&cluster, "k", false).unwrap();
    let object = reply.object.clone().unwrap();
    assert_eq!((object.version, object.size, &object.content_type[..]), (version, 170_000, "text/plain"));
    assert_eq!((reply.extents, reply.tolerance.unwrap().racks), (put.extents, 1));
    assert!((1..=2).contains(&reply.placements.len()));
    cluster.set_node(1, Health::Down);
    assert_eq!(get(&cluster, "k", false).unwrap().tolerance.unwrap().racks, 0);
    let head = get(&cluster, "k", true).unwrap();
    assert_eq!(head, wire::GetObjectReply { object: Some(object), ..Default::default() });
    let inline = get(&cluster, "s", false).unwrap();
    assert_eq!((&inline.inline[..], inline.tolerance), (&b"abc"[..], None));
    assert!(matches!(get(&cluster, "x", false), Err(Error::Refused(f)) if f.code == ErrorCode::NoSuchObject));
    assert!(
        matches!(get(&cluster, "", false), Err(Error::Refused(f)) if f.code == ErrorCode::InvalidRequest)
    );
}

/// Counters of buckets and tenants, a group's extents by pages, a node's map, the status: all agree.
#[test]
fn numbers_agree() {
    let mut cluster = Cluster::with_racks(3);
    for key in ["a", "b", "c"] {
        let put = cluster.extents(key, &[100_000, 70_000]).unwrap();
        cluster.commit(put);
    }
    let view = cluster.pending.over(&cluster.kv);
    let tenants = query::list_tenants(&cluster.machine).unwrap().tenants;
    assert_eq!((tenants[0].buckets, tenants[0].objects, tenants[0].bytes), (1, 3, 510_000));
    let list = wire::ListBuckets { tenant: "t".into() };
    let bucket = &query::list_buckets(&cluster.machine, &list).unwrap().buckets[0];
    assert_eq!((bucket.objects, bucket.bytes, &bucket.profile[..]), (3, 510_000, "rs-2-1"));
    let mut found = 0;
    for group in cluster.machine.map().groups().keys() {
        let mut after = Bytes::new();
        loop {
            let list = wire::ListGroupExtents { group: group.0, after, limit: 1, not_before_ms: 0 };
            let page = query::list_group_extents(&cluster.machine, &view, &list).unwrap();
            assert_eq!(page.cluster_time_ms, cluster.machine.cluster_time().as_millis());
            found += page.extents.len();
            let Some(last) = page.extents.last().filter(|_| page.more) else { break };
            after = last.id.clone();
        }
    }
    let status = status::get_status(&cluster.machine, &cluster.pending.over(&cluster.kv)).unwrap();
    assert_eq!((found, status.extents, status.objects), (6, 6, 3));
    assert_eq!(status.groups_by_disks_tolerated, [0, status.groups]);
    let placements =
        (1..=3).map(|node| query::get_node_map(&cluster.machine, NodeId(node)).unwrap().placements.len());
    // One disk a node is in each group.
    let slots = cluster.machine.map().groups().values().map(|group| group.slots.len());
    assert_eq!(placements.sum::<usize>(), slots.sum::<usize>());
    assert!(query::get_node_map(&cluster.machine, NodeId(9)).is_err());
    assert_eq!(query::get_map(&cluster.machine).map.unwrap().nodes.len(), 3);
}

/// A full or avoided disk is avoided while there are others; small and inline objects get what they need.
#[test]
fn grants() {
    let cluster = Cluster::with_racks(3);
    let open = |bytes_hint, size_unknown, avoid_groups: Vec<u32>| {
        let open = wire::OpenPut {
            tenant: "t".into(),
            bucket: "b".into(),
            bytes_hint,
            size_unknown,
            avoid_groups,
            ..Default::default()
        };
        let full_disks = BTreeSet::from([proto::DiskId(1)]);
        let now = Timestamp::from_millis(START_MS + 5);
        let options = OpenOptions { spread: 3, now, tried: &BTreeSet::new(), full_disks: &full_disks };
        match open_put(&cluster.machine, &open, options) {
            Ok(Opened::Granted(reply)) => *reply,
            other => panic!("{other:?}"),
        }
    };
    let count = |reply: &wire::OpenPutReply| (reply.small_groups.is_empty(), reply.groups.is_empty());
    assert_eq!(count(&open(4096, false, vec![])), (true, true));
    assert_eq!(count(&open(4097, false, vec![])), (false, true));
    assert_eq!(count(&open(65_537, false, vec![])), (true, false));
    let both = open(0, true, vec![]);
    assert_eq!(count(&both), (false, false));
    assert_eq!((both.granted_ms, both.expires_ms), (START_MS + 5, START_MS + 5 + 60 * MINUTE_MS));
    let on = |reply: &wire::OpenPutReply, disk| {
        reply.groups.iter().flat_map(|group| &group.places).any(|place| place.disk == disk)
    };
    assert!(!on(&both, 1));
    let first = both.groups[0].group;
    let others = open(1 << 20, false, vec![first]);
    assert!(!on(&others, 1) && others.groups.iter().all(|group| group.group != first));
    assert!(!open(1 << 20, false, (1..=100).collect()).groups.is_empty());
}

/// Full disks are avoided; when every group has some, those serve that have few enough; when none has, the put is
/// refused and told what to do.
#[test]
fn a_full_cluster_refuses_puts() {
    let cluster = Cluster::with_racks(3);
    let open = |full: &[u32]| {
        let open = wire::OpenPut {
            tenant: "t".into(),
            bucket: "b".into(),
            bytes_hint: 1 << 20,
            ..Default::default()
        };
        let full_disks: BTreeSet<_> = full.iter().copied().map(proto::DiskId).collect();
        let now = Timestamp::from_millis(START_MS + 5);
        let options = OpenOptions { spread: 3, now, tried: &BTreeSet::new(), full_disks: &full_disks };
        match open_put(&cluster.machine, &open, options) {
            Ok(Opened::Granted(reply)) => Ok(reply.groups.len()),
            Err(Error::Refused(failure)) => Err((failure.code, failure.message)),
            other => panic!("{other:?}"),
        }
    };
    let disks: Vec<u32> = cluster.machine.map().disks().keys().map(|disk| disk.0).collect();
    assert!(open(&disks[..1]).is_ok());
    let (code, message) = open(&disks).unwrap_err();
    assert_eq!(code, proto::ErrorCode::ClusterFull);
    assert!(message.contains("add disks") && message.contains(&disks.len().to_string()), "{message}");
}

fn reference(keys: &BTreeSet<String>, prefix: &str, delimiter: &str) -> Vec<(bool, String)> {
    let mut entries = BTreeMap::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => entries.insert(format!("{prefix}{}{delimiter}", &rest[..at]), true),
            None => entries.insert(key.clone(), false),
        };
    }
    entries.into_iter().map(|(name, folded)| (folded, name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Pages of any size, with any prefix and delimiter, join to the listing of a simple model.
    #[test]
    fn listings(
        keys in prop::collection::btree_set("[ab/é]{1,5}", 0..40),
        prefix in "[ab/]{0,2}",
        delimiter in prop_oneof![Just(""), Just("/"), Just("b/"), Just("é")],
        limit in 1..6u32,
    ) {
        let mut cluster = Cluster::with_racks(3);
        for key in &keys {
            let put = cluster.inline(key, b"x");
            cluster.commit(put);
        }
        let (mut found, mut token) = (Vec::new(), Bytes::new());
        loop {
            let list = wire::ListObjects {
                tenant: "t".into(),
                bucket: "b".into(),
                prefix: Bytes::copy_from_slice(prefix.as_bytes()),
                delimiter: Bytes::from_static(delimiter.as_bytes()),
                token,
                limit,
            };
            let page = list::list_objects(&cluster.machine, &cluster.pending.over(&cluster.kv), &list).unwrap();
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            let mut entries: Vec<_> = page.objects.iter().map(|object| (false, text(&object.key))).collect();
            entries.extend(page.prefixes.iter().map(|prefix| (true, text(prefix))));
            entries.sort_by(|left, right| left.1.cmp(&right.1));
            prop_assert!(entries.len() <= limit as usize);
            found.extend(entries);
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, reference(&keys, &prefix, delimiter));
    }
}
