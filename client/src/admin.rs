//! Operators' calls.

use std::fmt;

use bytes::Bytes;
use env::rpc::Target;
use env::{Env, Expect};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{
    ClusterId, DiskId, ExtentId, GroupId, Identity, InvalidInput, MetaId, NodeId, Role, ShardName,
    TenantName, identity, wire,
};

use crate::cluster::{Cluster, ask};
use crate::error::Error;

/// Operators' calls, each with the answer as it came. The certificate must be an operator's.
///
/// Every call fails with [`Error`]: refused with the reason, or nobody answered within the cluster's
/// timeout. Dropping one that changes something leaves open whether it was done; all of them may be
/// repeated.
#[derive(Clone)]
pub struct Admin<E: Env> {
    cluster: Cluster<E>,
}

impl<E: Env> fmt::Debug for Admin<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// Asks the leader, within the cluster's timeout.
macro_rules! lead {
    ($self:ident, $name:ident($message:expr)) => {{
        let shared = &$self.cluster.shared;
        ask!(shared, shared.limit(None), $name($message))
    }};
}

impl<E: Env> Admin<E> {
    pub(crate) fn new(cluster: Cluster<E>) -> Self {
        Self { cluster }
    }

    /// Founds the cluster on these servers; sent to the first of them, once.
    ///
    /// # Errors
    ///
    /// When a server has a cluster already, or the first one does not answer.
    pub async fn bootstrap(&self, members: Vec<wire::Member>) -> Result<ClusterId, Error> {
        let first = members.first().ok_or_else(|| InvalidInput::new("no member is given"))?;
        let target = Target {
            address: first.address.clone(),
            expect: Expect::Exactly(Identity::Meta(MetaId(first.id))),
        };
        let call = Call::Bootstrap(wire::Bootstrap { members });
        let reply = self.direct(target, call, |outcome| match outcome {
            Outcome::Bootstrap(reply) => Some(reply),
            _ => None,
        });
        let cluster = ClusterId::from_wire(&reply.await?.cluster_id)?;
        self.cluster.shared.local.join(cluster).map_err(Error::Refused)?;
        Ok(cluster)
    }

    /// Which cluster it is, who leads, and which servers belong to it.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn cluster_info(&self) -> Result<wire::ClusterInfoReply, Error> {
        self.cluster.shared.cluster_info().await
    }

    /// The same, as one server sees it.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn cluster_info_of(&self, address: &str) -> Result<wire::ClusterInfoReply, Error> {
        let target = Target { address: address.to_owned(), expect: Expect::Role(Role::Meta) };
        let call = Call::ClusterInfo(wire::ClusterInfo {});
        let pick = |outcome| match outcome {
            Outcome::ClusterInfo(reply) => Some(reply),
            _ => None,
        };
        self.direct(target, call, pick).await
    }

    /// Creates a tenant; one that exists is a success.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn create_tenant(&self, name: &TenantName) -> Result<wire::Tenant, Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        let call = wire::CreateTenant { tenant: name.to_string(), command_id };
        lead!(self, CreateTenant(call))?.tenant.ok_or_else(|| Error::odd_reply("create-tenant"))
    }

    /// All tenants.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn tenants(&self) -> Result<Vec<wire::Tenant>, Error> {
        Ok(lead!(self, ListTenants(wire::ListTenants {}))?.tenants)
    }

    /// Creates a profile and its groups; `profile.command_id` is filled in here.
    ///
    /// # Errors
    ///
    /// See [`Admin`]; when the topology cannot keep the profile's promise, the reason names what is
    /// missing.
    pub async fn create_profile(
        &self,
        profile: wire::CreateProfile,
    ) -> Result<wire::CreateProfileReply, Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        lead!(self, CreateProfile(wire::CreateProfile { command_id, ..profile }))
    }

    /// The cluster map.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn map(&self) -> Result<wire::Map, Error> {
        lead!(self, GetMap(wire::GetMap {}))?.map.ok_or_else(|| Error::odd_reply("get-map"))
    }

    /// How the cluster does, in the eyes of the leader.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn status(&self) -> Result<wire::GetStatusReply, Error> {
        lead!(self, GetStatus(wire::GetStatus {}))
    }

    /// The slots of a group, as they are now.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn placement(&self, group: GroupId) -> Result<wire::Placement, Error> {
        let reply = lead!(self, GetPlacement(wire::GetPlacement { group: group.0 }))?;
        reply.placement.ok_or_else(|| Error::odd_reply("get-placement"))
    }

    /// Committed extents of a group, in order, after `after`; at most `limit`.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn group_extents(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        limit: u32,
    ) -> Result<wire::ListGroupExtentsReply, Error> {
        let after = after.map_or_else(Bytes::new, ExtentId::to_wire);
        let list = wire::ListGroupExtents { group: group.0, after, limit, not_before_ms: 0 };
        lead!(self, ListGroupExtents(list))
    }

    /// Adds a metadata server that waits to join.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn add_member(&self, id: MetaId, address: String) -> Result<(), Error> {
        lead!(self, AddMember(wire::AddMember { id: id.0, address })).map(drop)
    }

    /// Removes a metadata server for good: its id never comes back.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn remove_member(&self, id: MetaId) -> Result<(), Error> {
        lead!(self, RemoveMember(wire::RemoveMember { id: id.0 })).map(drop)
    }

    /// Asks the leader to hand over to another server.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn transfer_leader(&self, to: MetaId) -> Result<(), Error> {
        lead!(self, TransferLeader(wire::TransferLeader { to: to.0 })).map(drop)
    }

    /// Begins a task, or finds the one that does the same already; `begin.command_id` is filled in here.
    ///
    /// # Errors
    ///
    /// See [`Admin`]; when the cluster cannot do it, the reason names what is missing or in the way.
    pub async fn begin_task(&self, begin: wire::BeginTask) -> Result<wire::BeginTaskReply, Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        lead!(self, BeginTask(wire::BeginTask { command_id, ..begin }))
    }

    /// Tasks that are under way, and the last that have ended.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn tasks(&self) -> Result<wire::ListTasksReply, Error> {
        lead!(self, ListTasks(wire::ListTasks {}))
    }

    /// Pauses, resumes or cancels a task, or sets its limit; `set.command_id` is filled in here.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn set_task(&self, set: wire::SetTask) -> Result<wire::Task, Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        let reply = lead!(self, SetTask(wire::SetTask { command_id, ..set }))?;
        reply.task.ok_or_else(|| Error::odd_reply("set-task"))
    }

    /// Brings the disks of a node back into service that are drained, or being drained.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn undrain_node(&self, node: NodeId) -> Result<(), Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        lead!(self, Undrain(wire::Undrain { node: node.0, disk: 0, command_id })).map(drop)
    }

    /// Brings a disk back into service that is drained, being drained, or has failed.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn undrain_disk(&self, disk: DiskId) -> Result<(), Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        lead!(self, Undrain(wire::Undrain { node: 0, disk: disk.0, command_id })).map(drop)
    }

    /// Retires the disks of a node that is gone and has no slot any more.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn forget_node(&self, node: NodeId) -> Result<(), Error> {
        let command_id = self.cluster.shared.command_id().to_wire();
        lead!(self, ForgetNode(wire::ForgetNode { node: node.0, command_id })).map(drop)
    }

    /// What a storage node says of itself and its disks.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn node_info(&self, address: &str, id: NodeId) -> Result<wire::NodeInfoReply, Error> {
        let call = Call::NodeInfo(wire::NodeInfo {});
        let pick = |outcome| match outcome {
            Outcome::NodeInfo(reply) => Some(reply),
            _ => None,
        };
        self.direct(node(address, id), call, pick).await
    }

    /// Shards of one group that a disk has, in order, after `after`; at most `limit`, or as many as
    /// fit one reply when that is 0.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn list_shards(
        &self,
        address: &str,
        id: NodeId,
        disk: DiskId,
        group: GroupId,
        after: Option<ShardName>,
        limit: u32,
    ) -> Result<wire::ListShardsReply, Error> {
        let after = after.map(wire::ShardName::from);
        let call = Call::ListShards(wire::ListShards { disk: disk.0, group: group.0, after, limit });
        let pick = |outcome| match outcome {
            Outcome::ListShards(reply) => Some(reply),
            _ => None,
        };
        self.direct(node(address, id), call, pick).await
    }

    async fn direct<T>(
        &self,
        target: Target,
        call: Call,
        pick: fn(Outcome) -> Option<T>,
    ) -> Result<T, Error> {
        let shared = &self.cluster.shared;
        let name = identity::rule(&call).name;
        let reply = shared.leader.caller().call(&target, call, Vec::new(), shared.limit(None)).await?;
        pick(reply.result).ok_or_else(|| Error::odd_reply(name))
    }
}

fn node(address: &str, id: NodeId) -> Target {
    Target { address: address.to_owned(), expect: Expect::Exactly(Identity::Node(id)) }
}
