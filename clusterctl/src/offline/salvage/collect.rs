//! What all shards of all disks say.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use node::store::{ShardAbout, ShardStat};
use proto::hint::MATRIX;
use proto::{ExtentId, GroupId, ObjectHint, SlotIndex, StripeIndex, TenantTag};

use crate::offline::PRIORITY;
use crate::offline::disks::{OfflineDisk, counter};

/// Records that are read at the same time.
const IN_FLIGHT: usize = 16;

/// One stripe of one tenant. The tag is part of it: what one tenant writes never mixes with what another wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StripeName {
    pub(super) group: GroupId,
    pub(super) extent: ExtentId,
    pub(super) stripe: StripeIndex,
    pub(super) tag: TenantTag,
}

/// One shard on one disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    pub(super) slot: SlotIndex,
    /// Which of the disks.
    pub(super) disk: usize,
    pub(super) shard_bytes: u32,
    /// Which of the hints; none when it carries none.
    pub(super) hint: Option<usize>,
}

/// All that was found, without any byte of a shard.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every hint once, or what is wrong with it.
    pub(super) hints: Vec<Result<Arc<ObjectHint>, String>>,
    numbers: BTreeMap<(TenantTag, Bytes), usize>,
    pub(super) stripes: BTreeMap<StripeName, Vec<Shard>>,
    /// Shards that the log has and whose record cannot be read.
    pub(super) unreadable: u64,
}

/// Lists the shards of all disks, with what each says of its object.
///
/// # Errors
///
/// When a disk fails.
pub(super) async fn collect(disks: &[OfflineDisk]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for (number, disk) in disks.iter().enumerate() {
        let shards = disk.store.report().await.shards;
        let bar = counter(&format!("shards of {}", disk.path.display()), shards);
        let done = disk
            .for_each_page(None, async |page: Vec<ShardStat>| {
                let mut reads = stream::iter(page)
                    .map(async |stat| disk.store.about(stat.name, PRIORITY).await)
                    .buffered(IN_FLIGHT);
                while let Some(about) = reads.next().await {
                    bar.inc(1);
                    match about? {
                        Some(about) => found.add(number, &about),
                        None => found.unreadable += 1,
                    }
                }
                Ok(())
            })
            .await;
        bar.finish_and_clear();
        done?;
    }
    Ok(found)
}

impl Found {
    /// A shard is on that disk.
    pub(super) fn add(&mut self, disk: usize, about: &ShardAbout) {
        let (name, tag) = (about.stat.name, about.tenant_tag);
        let hint = (!about.hint.is_empty()).then(|| self.number(tag, &about.hint));
        let shard = Shard { slot: name.slot, disk, shard_bytes: about.stat.shard_bytes, hint };
        let stripe = StripeName { group: name.group, extent: name.extent, stripe: name.stripe, tag };
        self.stripes.entry(stripe).or_default().push(shard);
    }

    fn number(&mut self, tag: TenantTag, hint: &Bytes) -> usize {
        let key = (tag, hint.clone());
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        self.hints.push(parse(tag, hint));
        let number = self.hints.len() - 1;
        self.numbers.insert(key, number);
        number
    }
}

/// A hint is as true as its writer: who may write as one tenant may not name another.
fn parse(tag: TenantTag, hint: &Bytes) -> Result<Arc<ObjectHint>, String> {
    let hint = ObjectHint::decode(hint.clone()).map_err(|error| error.to_string())?;
    if TenantTag::of(&hint.tenant) != tag {
        return Err(format!("it names tenant {}, and another one wrote it", hint.tenant));
    }
    if hint.matrix != MATRIX {
        return Err(format!("it names matrix {} of the code, which this version does not know", hint.matrix));
    }
    Ok(Arc::new(hint))
}
