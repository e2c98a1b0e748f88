//! Who a peer is, as its certificate says, and what it may ask for.

use std::fmt;

use crate::error::{ErrorCode, Failure, InvalidInput};
use crate::id::{MetaId, NodeId};
use crate::name::{OperatorName, TenantName};
use crate::wire::request::Call;

/// The holder of a certificate.
///
/// Text form, as in the certificate's URI: `meta/1`, `node/3`, `tenant/dijon`, `operator/alice`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A metadata server.
    Meta(MetaId),
    /// A storage node.
    Node(NodeId),
    /// A service that works for a tenant.
    Tenant(TenantName),
    /// A person who operates the cluster.
    Operator(OperatorName),
}

/// What kind of holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A metadata server.
    Meta,
    /// A storage node.
    Node,
    /// A service that works for a tenant.
    Tenant,
    /// A person who operates the cluster.
    Operator,
}

impl Identity {
    /// The kind of holder.
    pub fn role(&self) -> Role {
        match self {
            Self::Meta(_) => Role::Meta,
            Self::Node(_) => Role::Node,
            Self::Tenant(_) => Role::Tenant,
            Self::Operator(_) => Role::Operator,
        }
    }

    /// May this holder send `call` at all?
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Forbidden`], with who asked for what.
    pub fn authorize(&self, call: &Call) -> Result<(), Failure> {
        let rule = rule(call);
        if !rule.roles.contains(&self.role()) {
            return Err(self.forbidden(rule.name));
        }
        let impersonates = match self {
            Self::Tenant(own) => tenant_of(call).is_some_and(|asked| asked != own.as_str()),
            Self::Node(own) => node_of(call).is_some_and(|asked| asked != own.0),
            Self::Meta(_) | Self::Operator(_) => false,
        };
        if impersonates {
            return Err(self.forbidden(rule.name));
        }
        Ok(())
    }

    fn forbidden(&self, call: &str) -> Failure {
        Failure::new(ErrorCode::Forbidden, format!("the certificate of {self} does not allow this {call}"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(id) => write!(f, "meta/{id}"),
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Tenant(name) => write!(f, "tenant/{name}"),
            Self::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

impl std::str::FromStr for Identity {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        match text.split_once('/') {
            Some(("meta", id)) => id.parse().map(Self::Meta),
            Some(("node", id)) => id.parse().map(Self::Node),
            Some(("tenant", name)) => name.parse().map(Self::Tenant),
            Some(("operator", name)) => name.parse().map(Self::Operator),
            _ => Err(InvalidInput::new(format!(
                "{text:?} names no holder: expected meta/ID, node/ID, tenant/NAME or operator/NAME"
            ))),
        }
    }
}

/// Who may send a call, and its name in logs.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name in logs and messages.
    pub name: &'static str,
    /// Roles that may send it.
    pub roles: &'static [Role],
    /// Which service answers it.
    pub service: Service,
}

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A storage node.
    Shard,
    /// A metadata server.
    Meta,
}

/// The table of rights: one line a call; a call without a line does not compile.
pub fn rule(call: &Call) -> Rule {
    use Role::{Meta, Node, Operator, Tenant};
    let (name, service, roles): (_, _, &'static [Role]) = match call {
        Call::WriteShard(_) => ("write-shard", Service::Shard, &[Tenant, Operator]),
        Call::ReadShard(_) => ("read-shard", Service::Shard, &[Tenant, Operator, Node]),
        Call::DeleteExtent(_) => ("delete-extent", Service::Shard, &[Meta]),
        Call::ListShards(_) => ("list-shards", Service::Shard, &[Meta, Node, Operator]),
        Call::NodeInfo(_) => ("node-info", Service::Shard, &[Meta, Node, Operator]),

        Call::ClusterInfo(_) => ("cluster-info", Service::Meta, &[Tenant, Operator, Node, Meta]),
        Call::OpenPut(_) => ("open-put", Service::Meta, &[Tenant, Operator]),
        Call::CommitObject(_) => ("commit-object", Service::Meta, &[Tenant, Operator]),
        Call::GetObject(_) => ("get-object", Service::Meta, &[Tenant, Operator]),
        Call::DeleteObject(_) => ("delete-object", Service::Meta, &[Tenant, Operator]),
        Call::ListObjects(_) => ("list-objects", Service::Meta, &[Tenant, Operator]),
        Call::CreateBucket(_) => ("create-bucket", Service::Meta, &[Tenant, Operator]),
        Call::ListBuckets(_) => ("list-buckets", Service::Meta, &[Tenant, Operator]),
        Call::GetPlacement(_) => ("get-placement", Service::Meta, &[Tenant, Operator]),

        Call::RegisterNode(_) => ("register-node", Service::Meta, &[Node]),
        Call::Heartbeat(_) => ("heartbeat", Service::Meta, &[Node]),
        Call::GetNodeMap(_) => ("get-node-map", Service::Meta, &[Node]),
        Call::TakeWork(_) => ("take-work", Service::Meta, &[Node]),
        Call::ReportWork(_) => ("report-work", Service::Meta, &[Node]),
        Call::ListGroupExtents(_) => ("list-group-extents", Service::Meta, &[Node, Operator]),

        Call::Bootstrap(_) => ("bootstrap", Service::Meta, &[Operator]),
        Call::CreateTenant(_) => ("create-tenant", Service::Meta, &[Operator]),
        Call::ListTenants(_) => ("list-tenants", Service::Meta, &[Operator]),
        Call::CreateProfile(_) => ("create-profile", Service::Meta, &[Operator]),
        Call::GetMap(_) => ("get-map", Service::Meta, &[Operator]),
        Call::GetStatus(_) => ("get-status", Service::Meta, &[Operator]),
        Call::AddMember(_) => ("add-member", Service::Meta, &[Operator]),
        Call::RemoveMember(_) => ("remove-member", Service::Meta, &[Operator]),
        Call::TransferLeader(_) => ("transfer-leader", Service::Meta, &[Operator]),
        Call::BeginTask(_) => ("begin-task", Service::Meta, &[Operator]),
        Call::ListTasks(_) => ("list-tasks", Service::Meta, &[Operator]),
        Call::SetTask(_) => ("set-task", Service::Meta, &[Operator]),
        Call::Undrain(_) => ("undrain", Service::Meta, &[Operator]),
        Call::ForgetNode(_) => ("forget-node", Service::Meta, &[Operator]),

        Call::RaftVote(_) => ("raft-vote", Service::Meta, &[Meta]),
        Call::RaftAppend(_) => ("raft-append", Service::Meta, &[Meta]),
        Call::RaftSnapshot(_) => ("raft-snapshot", Service::Meta, &[Meta]),
        Call::RaftHandOver(_) => ("raft-hand-over", Service::Meta, &[Meta]),
        Call::RaftJoin(_) => ("raft-join", Service::Meta, &[Meta]),
    };
    Rule { name, roles, service }
}

/// The tenant that a call speaks for, when it names one.
fn tenant_of(call: &Call) -> Option<&str> {
    match call {
        Call::OpenPut(c) => Some(&c.tenant),
        Call::CommitObject(c) => Some(&c.tenant),
        Call::GetObject(c) => Some(&c.tenant),
        Call::DeleteObject(c) => Some(&c.tenant),
        Call::ListObjects(c) => Some(&c.tenant),
        Call::CreateBucket(c) => Some(&c.tenant),
        Call::ListBuckets(c) => Some(&c.tenant),
        _ => None,
    }
}

/// The node that a call speaks for, when it names one.
fn node_of(call: &Call) -> Option<u32> {
    match call {
        Call::RegisterNode(c) => Some(c.node),
        Call::Heartbeat(c) => Some(c.node),
        Call::GetNodeMap(c) => Some(c.node),
        Call::TakeWork(c) => Some(c.node),
        Call::ReportWork(c) => Some(c.node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn identity(text: &str) -> Identity {
        text.parse().expect(text)
    }

    /// The refusals that the security of the cluster rests on.
    #[test]
    fn roles_are_kept_apart() {
        let raft = Call::RaftAppend(wire::RaftAppend::default());
        let beat = Call::Heartbeat(wire::Heartbeat { node: 3, ..Default::default() });
        let admin = Call::CreateTenant(wire::CreateTenant::default());
        let list = |tenant: &str| {
            Call::ListObjects(wire::ListObjects { tenant: tenant.into(), ..Default::default() })
        };
        for (who, call, allowed) in [
            ("tenant/dijon", &raft, false),
            ("tenant/dijon", &beat, false),
            ("tenant/dijon", &admin, false),
            ("tenant/dijon", &list("dijon"), true),
            ("tenant/dijon", &list("beaune"), false),
            ("operator/alice", &list("beaune"), true),
            ("operator/alice", &raft, false),
            ("node/3", &beat, true),
            ("node/4", &beat, false),
            ("node/3", &list("dijon"), false),
            ("node/3", &raft, false),
            ("meta/1", &raft, true),
            ("meta/1", &list("dijon"), false),
        ] {
            assert_eq!(identity(who).authorize(call).is_ok(), allowed, "{who} {}", rule(call).name);
        }
    }

    /// Text forms parse back.
    #[test]
    fn identities_round_trip() {
        for text in ["meta/1", "node/3", "tenant/dijon", "operator/alice"] {
            assert_eq!(identity(text).to_string(), text);
        }
        for bad in ["", "meta", "meta/x", "root/1", "tenant/A"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?} was taken");
        }
    }
}
