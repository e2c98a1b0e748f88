//! Rare situations: they count when they are reached, and the report of a campaign lists those that no
//! seed reached. A situation that is never reached is one that was never tested.

use std::collections::BTreeMap;

use simhost::World;

/// Each rare situation with what it means.
pub const ALL: &[(&str, &str)] = &[
    (
        "died just before a seam operation",
        "a process ended before a transfer, flush, write or message took effect",
    ),
    ("died just after a seam operation", "… and just after, before it could know"),
    ("a metadata server could not go on", "openraft ended by an error of its stores"),
    ("a lost disk was replaced", "an operator put an empty one in its place"),
    ("a lost node was replaced", "an operator put a new one in its rack"),
    ("a metadata server was replaced", "an operator removed one and added another under a new id"),
    ("more was destroyed than is promised to be harmless", "a plan that goes beyond the promises did"),
    ("a receipt was compared with the places of its shards", "the checker of receipts had something to do"),
    ("a leader was elected", "the log says: this metadata server leads"),
    (
        "a leader lost its place in the middle of a round",
        "the log says: a round of the leader broke off; the next one begins anew",
    ),
    ("a disk stayed away and its slots moved", "the log says: disk is out: its slots move to other disks"),
    (
        "an outage was not taken for a loss",
        "the log says: too many disks are down at once for a loss: none is out, no slot moves",
    ),
    (
        "a leader ended without a successor",
        "the log says: leadership could not be handed over: there will be an election",
    ),
    ("a snapshot was sent", "the log says: receiving a snapshot"),
    ("a snapshot was installed", "the log says: snapshot installed"),
    ("a snapshot was dropped", "the log says: snapshot dropped: it cannot be read"),
    (
        "a snapshot could not be made",
        "the log says: no snapshot could be made: the log keeps growing; look at the disk",
    ),
    ("a node was told to register again", "the log says: the metadata service does not know this process"),
    ("a superblock was healed from its copy", "the log says: superblock healed from its other copy"),
    ("damage was found by a reader", "the log says: damaged shard"),
    ("a disk went read-only", "the log says: disk failed: it takes no more writes"),
    ("a disk could not be opened", "the log says: disk cannot be opened, will be tried again"),
    ("a disk was refused", "the log says: disk refused"),
    ("orphans were dropped", "the log says: shards that were never committed are dropped"),
    ("shards were absent and noted", "the log says: shards are absent"),
    ("lost shards were reported", "the log says: lost shards reported"),
    ("a slot was rebuilt", "the log says: rebuild begins"),
    ("a rebuild ended", "the log says: rebuild is whole"),
    ("a rebuild left out what had no room", "the log says: rebuild leaves out what the disk has no room for"),
    ("a slot left a full disk", "the log says: slot leaves a disk without room for its repair"),
    ("a rebuild decoded because its source had gone", "the log says: shard not copied, decoding"),
    ("a rebuild asked a disk without the shard", "the log says: donor has no shard"),
    ("work failed several times in a row", "the log says: work keeps failing"),
    ("a report of work was lost", "the log says: report not delivered: the work will be offered again"),
    ("a put went on in another group", "the log says: put goes on in another group"),
    ("a get looked for moved shards", "the log says: stripe did not come: asking where it lies"),
    ("a metadata call was repeated", "the log says: metadata call repeated"),
    ("deleted shards were dropped", "the log says: shards dropped"),
    ("a segment was freed", "the log says: segment freed"),
    ("what was left of a segment's shards was damaged", "the log says: damaged shard is not copied"),
    ("compaction had to wait", "the log says: compaction waits for the next request"),
    ("a log went on in another segment", "a node wrote a seal"),
    ("a log was cut at its end", "the log says: torn records at the end of the log are left out"),
    ("a log was found damaged", "the log says: damaged log"),
    ("a segment's header was damaged", "the log says: damaged segment header, written again"),
    ("an index did not fit its disk", "the log says: the index is made anew"),
    ("an index was rebuilt", "the log says: the index is rebuilt from the segments"),
    ("a free segment was not what its index says", "the log says: a free segment is not as the index has it"),
    (
        "damage put shards in danger that it did not hit",
        "they were behind it, at the end of the log, or stale",
    ),
    ("a request ran out of time", "code 4, DeadlineExceeded"),
    ("a request was refused for overload", "code 5, Overloaded"),
    ("a request came to a server that does not lead", "code 20, NotLeader"),
    ("a command came after its end", "code 23, CommandExpired"),
    ("a change of membership was refused", "code 24, MembershipRefused"),
    ("an object was not there", "code 32, NoSuchObject"),
    ("a condition did not hold", "code 35, PreconditionFailed"),
    ("there was no legal place", "code 36, NoLegalPlace"),
    ("an earlier life of a node was refused", "code 37, StaleNode"),
    ("a write or commit was refused for its epoch", "code 50, StaleEpoch"),
    (
        "something was asked for that must be refused",
        "an old process or a rude client sent what is over, or wrong",
    ),
    ("a write came again under an old epoch", "an old process sent it"),
    ("a report of work came again under an old epoch", "an old process sent it"),
    ("a command came again", "an old process sent a commit or delete of before, under its old id"),
    ("work was claimed under an old epoch", "filled, rebuilt or dropped, by a former place of the slot"),
    ("a move came too late", "it was decided in an older epoch of its group, and refused for that"),
    ("a commit came after a slot had moved", "of a rude client, which knew"),
    ("a node was asked to drop what it needs", "by work that was out of date"),
    ("a node was asked for a slot that is not its own", "code 51, NotMine"),
    ("a shard was not there", "code 52, NoSuchShard"),
    ("a damaged shard was not given out", "code 53, DamagedShard"),
    ("other bytes came under the same name", "code 54, ShardConflict"),
    ("a disk was full", "code 55, DiskFull"),
    ("a disk had failed", "code 56, DiskFailed"),
    ("a checksum did not match", "code 57, ChecksumMismatch"),
    ("everything was read without a rack", "the promise of racks was put to the test"),
    ("everything was read without as many disks as may be lost", "the promise of disks was put to the test"),
    ("an object was lost beyond what was promised", "the mode beyond the promises lost something"),
    ("the condition of a put did not hold", "a client was told so"),
    ("the commit of a put was not answered", "whether it is visible is open"),
    ("a put became too old", "its command or grant was over at the commit"),
    ("a put failed: its source did", "on purpose"),
    ("a put failed: too few disks took its shards", "in every group that was tried"),
    ("a put failed: its places kept changing", "groups changed under it more than can be mended"),
    ("a put failed: nothing moved", "for the whole idle limit"),
    ("a put was given up before its commit", "a client lost patience: nothing may be visible"),
    ("a put was given up during its commit", "a client lost patience: it may be visible or not"),
    ("a put was acknowledged with slots still to be filled", "with less redundancy than the profile gives"),
    ("a put was acknowledged below policy", "in a substitute group"),
    ("the condition of a delete did not hold", "a client was told so"),
    ("a delete was not answered", "whether it was carried out is open"),
    ("a get asked for a range behind the end", "and was told so"),
    ("a get failed: too few shards in reach", "during faults that may be"),
    ("a get failed: another version took the key's place", "after its first bytes were given out"),
    ("a get failed: a stripe did not come in time", "during faults that may be"),
    ("a get was given up half-way", "a client had seen enough"),
    ("an operation failed: the metadata service was not available", "during faults that may be"),
    ("a history was too hard to judge", "the linearizability of a key was not decided within its limits"),
];

/// Constant messages of the production code's log, and the situations that they tell of.
const LOGS: &[(&str, &str)] = &[
    ("this metadata server leads", "a leader was elected"),
    (
        "a round of the leader broke off; the next one begins anew",
        "a leader lost its place in the middle of a round",
    ),
    ("disk is out: its slots move to other disks", "a disk stayed away and its slots moved"),
    (
        "too many disks are down at once for a loss: none is out, no slot moves",
        "an outage was not taken for a loss",
    ),
    ("leadership could not be handed over: there will be an election", "a leader ended without a successor"),
    ("receiving a snapshot", "a snapshot was sent"),
    ("snapshot installed", "a snapshot was installed"),
    ("snapshot dropped: it cannot be read", "a snapshot was dropped"),
    ("no snapshot could be made: the log keeps growing; look at the disk", "a snapshot could not be made"),
    ("the metadata service does not know this process", "a node was told to register again"),
    ("superblock healed from its other copy", "a superblock was healed from its copy"),
    ("damaged shard", "damage was found by a reader"),
    ("disk failed: it takes no more writes", "a disk went read-only"),
    ("disk cannot be opened, will be tried again", "a disk could not be opened"),
    ("disk refused", "a disk was refused"),
    ("shards that were never committed are dropped", "orphans were dropped"),
    ("shards are absent", "shards were absent and noted"),
    ("lost shards reported", "lost shards were reported"),
    ("rebuild begins", "a slot was rebuilt"),
    ("rebuild leaves out what the disk has no room for", "a rebuild left out what had no room"),
    ("slot leaves a disk without room for its repair", "a slot left a full disk"),
    ("rebuild is whole", "a rebuild ended"),
    ("shard not copied, decoding", "a rebuild decoded because its source had gone"),
    ("donor has no shard", "a rebuild asked a disk without the shard"),
    ("work keeps failing", "work failed several times in a row"),
    ("report not delivered: the work will be offered again", "a report of work was lost"),
    ("put goes on in another group", "a put went on in another group"),
    ("stripe did not come: asking where it lies", "a get looked for moved shards"),
    ("metadata call repeated", "a metadata call was repeated"),
    ("shards dropped", "deleted shards were dropped"),
    ("segment freed", "a segment was freed"),
    ("damaged shard is not copied", "what was left of a segment's shards was damaged"),
    ("compaction waits for the next request", "compaction had to wait"),
    ("torn records at the end of the log are left out", "a log was cut at its end"),
    ("damaged log", "a log was found damaged"),
    ("damaged segment header, written again", "a segment's header was damaged"),
    ("the index is made anew", "an index did not fit its disk"),
    ("the index is rebuilt from the segments", "an index was rebuilt"),
    ("a free segment is not as the index has it", "a free segment was not what its index says"),
];

/// The situation that a log message tells of.
pub fn of_log(message: &str) -> Option<&'static str> {
    LOGS.iter().find(|(known, _)| *known == message).map(|(_, probe)| *probe)
}

/// The situation that a refusal tells of, by its code.
pub fn of_code(code: u32) -> Option<&'static str> {
    Some(match code {
        4 => "a request ran out of time",
        5 => "a request was refused for overload",
        20 => "a request came to a server that does not lead",
        23 => "a command came after its end",
        24 => "a change of membership was refused",
        32 => "an object was not there",
        35 => "a condition did not hold",
        36 => "there was no legal place",
        37 => "an earlier life of a node was refused",
        50 => "a write or commit was refused for its epoch",
        51 => "a node was asked for a slot that is not its own",
        52 => "a shard was not there",
        53 => "a damaged shard was not given out",
        54 => "other bytes came under the same name",
        55 => "a disk was full",
        56 => "a disk had failed",
        57 => "a checksum did not match",
        _ => return None,
    })
}

/// How often each situation was reached, those that were not included.
pub fn reached(world: &World) -> BTreeMap<String, u64> {
    let counted = world.probes();
    let known = ALL.iter().map(|(name, _)| (*name, 0));
    let mut reached: BTreeMap<String, u64> = known.map(|(name, count)| (name.to_owned(), count)).collect();
    reached.extend(counted.into_iter().map(|(name, count)| (name.to_owned(), count)));
    reached
}
