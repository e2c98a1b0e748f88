//! Tenants, buckets, profiles and metadata servers.

use proto::{BucketName, ByteSize, ProfileName, TenantName, wire};
use serde_json::{Value, json};

use crate::Session;
use crate::output::{count, domain, size, table};
use crate::status::time;

/// Makes a tenant; nothing happens when it exists.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn create_tenant(session: &Session, name: &TenantName) -> anyhow::Result<()> {
    let tenant = session.connect().await?.admin().create_tenant(name).await?;
    session.format.print(&tenant_json(&tenant), || {
        format!(
            "tenant {name} is there; its services need a certificate: cadoled ca issue --role tenant --id {name}"
        )
    });
    Ok(())
}

/// Prints the tenants.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn list_tenants(session: &Session) -> anyhow::Result<()> {
    let tenants = session.connect().await?.admin().tenants().await?;
    session.format.print(&tenants.iter().map(tenant_json).collect::<Value>(), || {
        let row = |t: &wire::Tenant| {
            vec![
                t.name.clone(),
                t.buckets.to_string(),
                t.objects.to_string(),
                size(t.bytes),
                time(t.created_ms),
            ]
        };
        table(
            &["tenant", "buckets", "objects", "bytes", "created"],
            &[1, 2, 3],
            tenants.iter().map(row).collect(),
        )
    });
    Ok(())
}

fn tenant_json(t: &wire::Tenant) -> Value {
    json!({ "id": t.id, "name": t.name, "buckets": t.buckets, "objects": t.objects, "bytes": t.bytes, "created_ms": t.created_ms })
}

/// Makes a bucket; nothing happens when it exists with the same profile.
///
/// # Errors
///
/// When the tenant or profile does not exist, or the bucket has another profile.
pub(crate) async fn create_bucket(
    session: &Session,
    name: &BucketName,
    profile: &ProfileName,
) -> anyhow::Result<()> {
    let bucket = session.tenant().await?.create_bucket(name, profile).await?;
    session.format.print(&bucket_json(&bucket), || format!("bucket {name} is there, with profile {profile}"));
    Ok(())
}

/// Prints the tenant's buckets.
///
/// # Errors
///
/// When the tenant does not exist.
pub(crate) async fn list_buckets(session: &Session) -> anyhow::Result<()> {
    let buckets = session.tenant().await?.buckets().await?;
    session.format.print(&buckets.iter().map(bucket_json).collect::<Value>(), || {
        let row = |b: &wire::Bucket| {
            vec![b.name.clone(), b.profile.clone(), b.objects.to_string(), size(b.bytes), time(b.created_ms)]
        };
        table(
            &["bucket", "profile", "objects", "bytes", "created"],
            &[2, 3],
            buckets.iter().map(row).collect(),
        )
    });
    Ok(())
}

fn bucket_json(b: &wire::Bucket) -> Value {
    json!({ "id": b.id, "name": b.name, "profile": b.profile, "objects": b.objects, "bytes": b.bytes, "created_ms": b.created_ms })
}

/// What `profile create` was told.
#[derive(Debug, clap::Args)]
pub(crate) struct NewProfile {
    /// Its name, for example rs-8-4.
    name: ProfileName,
    /// Data shards of a stripe.
    #[arg(long)]
    k: u32,
    /// Parity shards of a stripe: how many may be lost.
    #[arg(long)]
    m: u32,
    /// Bytes of a shard: a multiple of 64KiB.
    #[arg(long, default_value = "1MiB")]
    shard: ByteSize,
    /// What may be lost as a whole: at most m slots of a group lie in one.
    #[arg(long, default_value = "rack")]
    failure_domain: DomainName,
    /// Refuse puts rather than store below policy while a domain is gone.
    #[arg(long)]
    refuse_below_policy: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DomainName {
    Disk,
    Node,
    Rack,
    Site,
}

impl From<DomainName> for wire::Domain {
    fn from(name: DomainName) -> Self {
        match name {
            DomainName::Disk => Self::Disk,
            DomainName::Node => Self::Node,
            DomainName::Rack => Self::Rack,
            DomainName::Site => Self::Site,
        }
    }
}

/// Makes a profile with its groups; nothing happens when it exists with the same settings.
///
/// # Errors
///
/// When the topology cannot keep its promise: the error names what is missing.
pub(crate) async fn create_profile(session: &Session, new: &NewProfile) -> anyhow::Result<()> {
    let request = wire::CreateProfile {
        name: new.name.to_string(),
        k: new.k,
        m: new.m,
        shard_bytes: u32::try_from(new.shard.0)?,
        failure_domain: wire::Domain::from(new.failure_domain).into(),
        refuse_below_policy: new.refuse_below_policy,
        ..Default::default()
    };
    let made = session.connect().await?.admin().create_profile(request).await?;
    let profile = made.profile.unwrap_or_default();
    session.format.print(&profile_json(&profile), || {
        format!("profile {} is there, with {}", profile.name, count(made.groups.into(), "group"))
    });
    Ok(())
}

/// Prints the profiles.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn list_profiles(session: &Session) -> anyhow::Result<()> {
    let map = session.connect().await?.admin().map().await?;
    session.format.print(&map.profiles.iter().map(profile_json).collect::<Value>(), || {
        let groups = |id: u32| map.groups.iter().filter(|group| group.profile == id).count();
        let row = |p: &wire::Profile| {
            vec![
                p.name.clone(),
                p.k.to_string(),
                p.m.to_string(),
                size(p.shard_bytes.into()),
                domain(p.failure_domain).to_owned(),
                p.min_durable.to_string(),
                groups(p.id).to_string(),
            ]
        };
        let header = ["profile", "k", "m", "shard", "failure domain", "durable at least", "groups"];
        table(&header, &[1, 2, 3, 5, 6], map.profiles.iter().map(row).collect())
    });
    Ok(())
}

fn profile_json(p: &wire::Profile) -> Value {
    json!({
        "id": p.id, "name": p.name, "k": p.k, "m": p.m, "shard_bytes": p.shard_bytes,
        "failure_domain": domain(p.failure_domain), "min_durable": p.min_durable,
        "small_bytes_max": p.small_bytes_max, "refuse_below_policy": p.refuse_below_policy,
    })
}

/// Parses `1=10.0.0.1:7101`.
///
/// # Errors
///
/// A sentence with the right form.
pub(crate) fn parse_member(text: &str) -> Result<wire::Member, String> {
    let wrong = || format!("{text:?} is no metadata server: write ID=HOST:PORT, for example 1=10.0.0.1:7101");
    let (id, address) = text.split_once('=').ok_or_else(wrong)?;
    let id = id.parse().map_err(|_| wrong())?;
    if !address.contains(':') {
        return Err(wrong());
    }
    Ok(wire::Member { id, address: address.to_owned(), voter: true })
}

/// Founds the cluster.
///
/// # Errors
///
/// When it has been founded, or not all members answer.
pub(crate) async fn bootstrap(session: &Session, members: Vec<wire::Member>) -> anyhow::Result<()> {
    let id = session.connect().await?.admin().bootstrap(members).await?;
    session.format.print(&json!({ "cluster_id": id.to_string() }), || {
        format!("founded cluster {id}\nnext: start the storage nodes, then clusterctl profile create")
    });
    Ok(())
}

/// Prints the metadata servers.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn list_members(session: &Session) -> anyhow::Result<()> {
    let status = session.connect().await?.admin().status().await?;
    let members: Vec<(wire::Member, &wire::MemberStatus)> =
        status.members.iter().filter_map(|status| Some((status.member.clone()?, status))).collect();
    let to_json = |(member, status): &(wire::Member, &wire::MemberStatus)| {
        json!({
            "id": member.id, "address": member.address, "voter": member.voter, "leader": status.is_leader,
            "matched_index": status.matched_index, "answered_ms_ago": status.answered_ms_ago,
        })
    };
    session.format.print(&members.iter().map(to_json).collect::<Value>(), || {
        let row = |(member, status): &(wire::Member, &wire::MemberStatus)| {
            let role = match (status.is_leader, member.voter) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            };
            let answered = status.answered_ms_ago.map_or_else(String::new, |ms| format!("{ms} ms ago"));
            vec![
                member.id.to_string(),
                member.address.clone(),
                role.to_owned(),
                status.matched_index.to_string(),
                answered,
            ]
        };
        let table = table(
            &["meta", "address", "role", "log", "answered"],
            &[0, 3],
            members.iter().map(row).collect(),
        );
        format!(
            "as metadata server {} sees it, the leader of term {}\n{table}",
            status.leader_id, status.term
        )
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members are written ID=HOST:PORT; anything else is refused with the right form.
    #[test]
    fn members_parse() {
        let member = parse_member("2=[::1]:7102").expect("good");
        assert_eq!((member.id, member.address.as_str()), (2, "[::1]:7102"));
        for bad in ["", "2", "x=h:1", "2=h"] {
            assert!(parse_member(bad).expect_err(bad).contains("ID=HOST:PORT"));
        }
    }
}
