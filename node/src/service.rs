//! The shard service: what peers may ask of a node.

use std::sync::Arc;

use bytes::Bytes;
use env::rpc::{Answer, Handler, Incoming};
use env::{Env, Priority};
use proto::identity::Service;
use proto::limits::{BLOCK_BYTES, HINT_BYTES_MAX, LIST_PAGE_MAX};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{
    DiskId, Epoch, ErrorCode, ExtentId, Failure, GroupId, Identity, InvalidInput, ShardName, TenantTag, wire,
};

use crate::disks::StoreOf;
use crate::node::Node;
use crate::store::{Durable, HEADER_BYTES, NewShard, Removed, ShardStat};
use crate::view::WriteVerdict;

/// Answers the calls of the shard service. Clones are the same service.
pub(crate) struct ShardService<E: Env>(Arc<Node<E>>);

impl<E: Env> ShardService<E> {
    pub(crate) fn new(node: Arc<Node<E>>) -> Self {
        Self(node)
    }
}

impl<E: Env> Clone for ShardService<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Env> Handler<E> for ShardService<E> {
    fn service(&self) -> Service {
        Service::Shard
    }

    async fn handle(&self, mut incoming: Incoming<E>) -> Result<Answer, Failure> {
        let call = std::mem::replace(&mut incoming.call, Call::NodeInfo(wire::NodeInfo {}));
        match call {
            Call::WriteShard(call) => self.write(call, incoming).await,
            Call::ReadShard(call) => self.read(call, &incoming.peer).await,
            Call::DeleteExtent(call) => self.delete_extent(call).await,
            Call::ListShards(call) => self.list(call).await,
            Call::NodeInfo(_) => Ok(self.info().await),
            _ => Err(Failure::new(ErrorCode::InvalidRequest, "this is a storage node")),
        }
    }
}

impl<E: Env> ShardService<E> {
    async fn write(&self, call: wire::WriteShard, mut incoming: Incoming<E>) -> Result<Answer, Failure> {
        let name = shard_name(call.shard)?;
        let (disk, epoch) = (DiskId(call.disk), Epoch(call.epoch));
        let tenant_tag = TenantTag(call.tenant_tag);
        check_tenant(&incoming.peer, tenant_tag)?;
        if call.hint.len() > HINT_BYTES_MAX {
            return Err(invalid(format!("a hint of {} bytes", call.hint.len())));
        }
        let announced = incoming.payload.remaining();
        let shard_bytes = usize::try_from(announced).unwrap_or(usize::MAX);
        if call.block_crc32c.len() != shard_bytes.div_ceil(BLOCK_BYTES) {
            let count = call.block_crc32c.len();
            return Err(invalid(format!("{count} checksums for a shard of {announced} bytes")));
        }
        let shard_bytes_max = self.fence(&name, disk, epoch).await?;
        if shard_bytes > shard_bytes_max {
            let text = format!("a shard of {announced} bytes in a group of at most {shard_bytes_max}");
            return Err(invalid(text));
        }
        let store = self.store(disk)?;
        let spent = self.0.writes.spend(shard_bytes).await?;
        let mut shard = NewShard::new(name, epoch, tenant_tag, shard_bytes)?.with_hint(call.hint)?;
        while let Some(bytes) = incoming.payload.next().await? {
            shard.push(&bytes)?;
        }
        let shard = shard.check(&call.block_crc32c)?;
        let work = async move {
            let written = store.put(shard, Priority::Client).await;
            drop(spent);
            written
        };
        let written = self.0.finish("write-shard", work).await??;
        Ok(Answer::new(Outcome::WriteShard(acknowledge(&written))))
    }

    /// The largest shard that may be written, if any.
    async fn fence(&self, name: &ShardName, disk: DiskId, epoch: Epoch) -> Result<usize, Failure> {
        match self.0.map().judge_write(name, disk, epoch) {
            WriteVerdict::Accept { shard_bytes_max } => return Ok(shard_bytes_max),
            WriteVerdict::Refuse(failure) => return Err(failure),
            WriteVerdict::AskFirst(_) => self.0.refresh_map().await?,
        }
        match self.0.map().judge_write(name, disk, epoch) {
            WriteVerdict::Accept { shard_bytes_max } => Ok(shard_bytes_max),
            WriteVerdict::Refuse(failure) | WriteVerdict::AskFirst(failure) => Err(failure),
        }
    }

    async fn read(&self, call: wire::ReadShard, peer: &Identity) -> Result<Answer, Failure> {
        let name = shard_name(call.shard)?;
        let disk = DiskId(call.disk);
        let store = self.store(disk)?;
        // What the answer can take at most: the record, or the blocks asked for.
        let asked = usize::try_from(call.blocks).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES);
        let record = store.record_bytes(name)?.and_then(|bytes| usize::try_from(bytes).ok());
        let record = record.unwrap_or(HEADER_BYTES);
        let spent = self.0.reads.spend(if asked == 0 { record } else { record.min(asked) }).await?;
        let priority = if matches!(peer, Identity::Node(_)) { Priority::Repair } else { Priority::Client };
        let read = match store.read(name, call.first_block, call.blocks, priority).await {
            Ok(read) => read,
            Err(error) => {
                self.0.note_lost(disk, &name, &error);
                return Err(error.into());
            }
        };
        check_tenant(peer, read.tenant_tag)?;
        let reply = wire::ReadShardReply {
            shard_bytes: read.shard_bytes,
            block_crc32c: read.block_crcs,
            tenant_tag: read.tenant_tag.0,
            hint: hint_for(peer, read.hint),
        };
        Ok(Answer { payload: vec![spent.attach(read.bytes)], ..Answer::new(Outcome::ReadShard(reply)) })
    }

    async fn delete_extent(&self, call: wire::DeleteExtent) -> Result<Answer, Failure> {
        let extent = ExtentId::from_wire(&call.extent)?;
        let (group, slot) = (GroupId(call.group), wire::slot_index(call.slot)?);
        let store = self.store(DiskId(call.disk))?;
        let node = self.0.clone();
        let work = async move {
            let _alone = node.groups.lock(group).await;
            store.delete_extent(group, extent, slot).await
        };
        let removed = self.0.finish("delete-extent", work).await??;
        Ok(Answer::new(Outcome::DeleteExtent(acknowledge_removal(&removed))))
    }

    async fn list(&self, call: wire::ListShards) -> Result<Answer, Failure> {
        let after = call.after.map(ShardName::try_from).transpose()?;
        let limit = match usize::try_from(call.limit).unwrap_or(usize::MAX) {
            0 => LIST_PAGE_MAX,
            limit => limit.min(LIST_PAGE_MAX),
        };
        let page = self.store(DiskId(call.disk))?.list(GroupId(call.group), after, limit).await?;
        let stat = |stat: ShardStat| wire::ShardStat {
            shard: Some(stat.name.into()),
            shard_bytes: stat.shard_bytes,
            epoch: stat.epoch.0,
        };
        let shards = page.shards.into_iter().map(stat).collect();
        Ok(Answer::new(Outcome::ListShards(wire::ListShardsReply { shards, more: page.more })))
    }

    async fn info(&self) -> Answer {
        Answer::new(Outcome::NodeInfo(wire::NodeInfoReply {
            node: self.0.options.id.0,
            incarnation: self.0.incarnation().0,
            map_version: self.0.map().version,
            disks: self.0.disks.reports().await,
        }))
    }

    fn store(&self, disk: DiskId) -> Result<StoreOf<E>, Failure> {
        self.0.disks.store(disk).ok_or_else(|| {
            Failure::new(
                ErrorCode::NotMine,
                format!("disk {disk} does not serve on node {}", self.0.options.id),
            )
        })
    }
}

/// Cannot be called too early: the shard is on stable storage.
fn acknowledge(_: &Durable<ShardStat>) -> wire::WriteShardReply {
    wire::WriteShardReply {}
}

/// Cannot be called too early: the shards stay deleted.
fn acknowledge_removal(removed: &Durable<Removed>) -> wire::DeleteExtentReply {
    let Removed { shards, bytes } = *removed.get();
    wire::DeleteExtentReply { shards, bytes }
}

/// Tenants write and read only what is theirs.
fn check_tenant(peer: &Identity, tag: TenantTag) -> Result<(), Failure> {
    match peer {
        Identity::Tenant(name) if TenantTag::of(name) != tag => {
            Err(Failure::new(ErrorCode::Forbidden, format!("the shard is not one of {peer}")))
        }
        _ => Ok(()),
    }
}

/// It names a tenant's object: only nodes get it, which make shards again.
fn hint_for(peer: &Identity, hint: Bytes) -> Bytes {
    if matches!(peer, Identity::Node(_)) { hint } else { Bytes::new() }
}

fn shard_name(name: Option<wire::ShardName>) -> Result<ShardName, InvalidInput> {
    name.ok_or_else(|| InvalidInput::new("the request names no shard"))?.try_into()
}

fn invalid(text: String) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenant passes with its own tag only; nodes and operators pass with any.
    #[test]
    fn tenants_are_apart() {
        let tag = TenantTag::of(&"dijon".parse().unwrap());
        for (peer, allowed) in
            [("tenant/dijon", true), ("tenant/beaune", false), ("node/1", true), ("operator/alice", true)]
        {
            assert_eq!(check_tenant(&peer.parse().unwrap(), tag).is_ok(), allowed, "{peer}");
        }
    }

    /// What is kept with a shard names an object: nodes get it and nobody else.
    #[test]
    fn hints_are_for_nodes() {
        for (peer, told) in
            [("node/1", true), ("tenant/dijon", false), ("operator/alice", false), ("meta/1", false)]
        {
            let hint = hint_for(&peer.parse().unwrap(), Bytes::from("x"));
            assert_eq!(!hint.is_empty(), told, "{peer}");
        }
    }
}
