//! The operators' tool of Cadole.

// A tool for people: it reads files and clocks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod config;
mod health;
mod names;
mod object;
mod offline;
mod output;
mod status;
mod task;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use client::{Cluster, Tenant};
use os::{CredentialPaths, Credentials, Host, HostOptions};
use proto::{BucketName, DiskId, ErrorCode, Identity, MetaId, NodeId, ProfileName, TenantName, wire};
use wire::TaskState;

use crate::config::Config;
use crate::health::Verdict;
use crate::output::Format;
use crate::task::{Long, Rate};

#[derive(Debug, Parser)]
#[command(name = "clusterctl", version, about = "Looks at and changes a Cadole cluster.", after_help = EXIT_CODES)]
struct Arguments {
    /// Configuration file; else .cadole/dev/clusterctl.toml, ~/.config/cadole/ or /etc/cadole/.
    #[arg(long, env = "CADOLE_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// The tenant whose buckets and objects are meant; else the configuration's.
    #[arg(long, env = "CADOLE_TENANT", global = true)]
    tenant: Option<TenantName>,
    /// Print JSON for programs.
    #[arg(long, global = true)]
    json: bool,
    /// Seconds that a call may take; for objects, seconds without any progress.
    #[arg(long, default_value_t = 30, global = true, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit status: 0 done; 1 failed, or not all is whole or saved; 2 wrong usage; 3 no such tenant, bucket or object; \
                          4 status or health found a problem";
const EXIT_NOT_FOUND: u8 = 3;
const EXIT_NOT_WHOLE: u8 = 4;

#[derive(Debug, Subcommand)]
enum Command {
    /// Is anything wrong, and what to do; exit status 4 if something is.
    Status {
        /// Wait up to so many seconds until nothing is wrong.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// One line for each problem, with its code and what to type; exit status 4 if there is one.
    Health,
    /// Storage nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Disks.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Even out how full the disks are: shows the plan, asks, and waits.
    #[command(args_conflicts_with_subcommands = true)]
    Rebalance {
        #[command(subcommand)]
        command: Option<RebalanceCommand>,
        #[command(flatten)]
        long: Long,
    },
    /// Drains, replacements and rebalances that are under way, and the last that have ended.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Placement groups.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Metadata servers.
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Erasure-code profiles.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Tenants.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Buckets.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Objects.
    #[command(subcommand)]
    Object(object::Command),
    /// Disks that no daemon serves: what is on them, whether it is whole, and how to save it.
    #[command(subcommand)]
    Offline(offline::Command),
    /// Print the completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// List them.
    Ls,
    /// Move all slots off the node's disks, and wait. It goes on being read and written meanwhile.
    Drain {
        /// Its id.
        node: u32,
        #[command(flatten)]
        long: Long,
    },
    /// Bring its disks back into service.
    Undrain {
        /// Its id.
        node: u32,
    },
    /// Remove a node that is drained and stopped, for good.
    Rm {
        /// Its id.
        node: u32,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum DiskCommand {
    /// List them.
    Ls,
    /// Move all slots off the disk, and wait. It goes on being read and written meanwhile.
    Drain {
        /// Its id.
        disk: u32,
        #[command(flatten)]
        long: Long,
    },
    /// Bring it back into service.
    Undrain {
        /// Its id.
        disk: u32,
    },
    /// Replace it, dead or alive, step by step; typed again it goes on where it was.
    Replace {
        /// Its id.
        disk: u32,
        /// The id of the new disk, if it is there already.
        #[arg(long, value_name = "DISK")]
        new: Option<u32>,
        #[command(flatten)]
        long: Long,
    },
    /// Give it up: its slots go elsewhere first of all, and nothing new is written there.
    Fail {
        /// Its id.
        disk: u32,
        /// Why, for those who come later.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        long: Long,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum RebalanceCommand {
    /// How far it is.
    Status,
    /// Begin no further moves.
    Pause,
    /// Go on.
    Resume,
    /// End it; what has moved stays where it is.
    Cancel,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum TaskCommand {
    /// List them.
    Ls,
    /// One of them in full.
    Show {
        /// Its id.
        id: u32,
    },
    /// Begin no further moves.
    Pause {
        /// Its id.
        id: u32,
    },
    /// Go on.
    Resume {
        /// Its id.
        id: u32,
    },
    /// End it; what has moved stays where it is, and disks are in service again.
    Cancel {
        /// Its id.
        id: u32,
    },
    /// How fast all nodes together may copy for it.
    Limit {
        /// Its id.
        id: u32,
        /// For example 200MB/s; 0 is the cluster's default.
        rate: Rate,
    },
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List them.
    Ls {
        /// Only those that are being filled, or stand below policy.
        #[arg(long)]
        problems: bool,
    },
}

#[derive(Debug, Subcommand)]
enum MetaCommand {
    /// Found the cluster: once, when its metadata servers run for the first time.
    Bootstrap {
        /// All of them, ID=HOST:PORT.
        #[arg(required = true, value_parser = names::parse_member)]
        members: Vec<wire::Member>,
    },
    /// List them.
    Ls,
    /// Add a server that runs with an empty data directory: it learns, then votes.
    Add {
        /// ID=HOST:PORT; an id that was never used before.
        #[arg(value_parser = names::parse_member)]
        member: wire::Member,
    },
    /// Remove a server for good: its id is never used again.
    Rm {
        /// Its id.
        id: u64,
    },
    /// Make a server the leader.
    Lead {
        /// Its id.
        id: u64,
    },
}

#[derive(Debug, Subcommand)]
enum ProfileCommand {
    /// Make a profile and its placement groups.
    Create(names::NewProfile),
    /// List them.
    Ls,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Make a tenant.
    Create {
        /// Its name.
        name: TenantName,
    },
    /// List them.
    Ls,
}

#[derive(Debug, Subcommand)]
enum BucketCommand {
    /// Make a bucket.
    Create {
        /// Its name.
        name: BucketName,
        /// How its objects are coded.
        #[arg(long)]
        profile: ProfileName,
    },
    /// List them.
    Ls,
}

/// What all commands need.
pub(crate) struct Session {
    config: Option<PathBuf>,
    pub(crate) tenant: Option<TenantName>,
    timeout: Duration,
    pub(crate) format: Format,
}

impl Session {
    /// Connects to the cluster.
    ///
    /// # Errors
    ///
    /// When the configuration or certificates cannot be used.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster<Host>> {
        self.connect_as().await.map(|(cluster, _)| cluster)
    }

    /// Connects as the tenant that is meant: the one of the command line, the configuration, or the
    /// certificate.
    ///
    /// # Errors
    ///
    /// When none of them names one.
    pub(crate) async fn tenant(&self) -> anyhow::Result<Tenant<Host>> {
        let (cluster, configured) = self.connect_as().await?;
        let tenant = self.tenant.clone().or(configured);
        let tenant = tenant.ok_or_else(|| {
            anyhow::anyhow!("which tenant? say --tenant NAME, or set tenant in the configuration")
        })?;
        Ok(cluster.tenant(tenant))
    }

    async fn connect_as(&self) -> anyhow::Result<(Cluster<Host>, Option<TenantName>)> {
        let config = Config::read(self.config.as_deref())?;
        let tls = config.tls;
        let paths = CredentialPaths { ca: tls.ca, certificate: tls.certificate, key: tls.key };
        let credentials = Credentials::load(&paths)?;
        let own = match credentials.identity() {
            Identity::Tenant(name) => Some(name.clone()),
            _ => None,
        };
        let host = Host::start(HostOptions::new(credentials))?;
        let mut options = client::Options::new(config.metas);
        options.timeout = self.timeout;
        Ok((Cluster::connect(host, options).await?, config.tenant.or(own)))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = if arguments.json { Format::Json } else { Format::Text };
    let session = Session {
        config: arguments.config,
        tenant: arguments.tenant,
        timeout: Duration::from_secs(arguments.timeout),
        format,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("CADOLE_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&session, &error.into()),
    };
    match runtime.block_on(run(&session, arguments.command)) {
        Ok(code) => code,
        Err(error) => fail(&session, &error),
    }
}

fn fail(session: &Session, error: &anyhow::Error) -> ExitCode {
    if session.format == Format::Json {
        println!(
            "{:#}",
            serde_json::json!({ "error": format!("{error:#}"), "code": code_of(error).map(ErrorCode::name) })
        );
    } else {
        eprintln!("clusterctl: {error:#}");
    }
    match code_of(error) {
        Some(ErrorCode::NoSuchTenant | ErrorCode::NoSuchBucket | ErrorCode::NoSuchObject) => {
            ExitCode::from(EXIT_NOT_FOUND)
        }
        _ => ExitCode::FAILURE,
    }
}

/// The cluster's own code for an error, if it comes from there.
fn code_of(error: &anyhow::Error) -> Option<ErrorCode> {
    error.chain().find_map(|cause| {
        cause
            .downcast_ref::<proto::Failure>()
            .map(|failure| failure.code)
            .or_else(|| cause.downcast_ref::<client::Error>().and_then(client::Error::code))
            .or_else(|| cause.downcast_ref::<client::PutError>().and_then(client::PutError::code))
            .or_else(|| cause.downcast_ref::<client::GetError>().and_then(client::GetError::code))
            .or_else(|| cause.downcast_ref::<client::DeleteError>().and_then(client::DeleteError::code))
    })
}

async fn run(session: &Session, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Status { wait } => {
            let verdict = status::run(session, wait.map(Duration::from_secs)).await?;
            if verdict == Verdict::Problems {
                return Ok(ExitCode::from(EXIT_NOT_WHOLE));
            }
        }
        Command::Health => {
            if health::run(session).await? == Verdict::Problems {
                return Ok(ExitCode::from(EXIT_NOT_WHOLE));
            }
        }
        Command::Node(command) => node(session, command).await?,
        Command::Disk(command) => disk(session, command).await?,
        Command::Rebalance { command: None, long } => task::rebalance(session, &long).await?,
        Command::Rebalance { command: Some(command), .. } => match command {
            RebalanceCommand::Status => task::rebalance_status(session).await?,
            RebalanceCommand::Pause => task::set_rebalance(session, TaskState::Paused).await?,
            RebalanceCommand::Resume => task::set_rebalance(session, TaskState::Running).await?,
            RebalanceCommand::Cancel => task::set_rebalance(session, TaskState::Cancelled).await?,
        },
        Command::Task(command) => match command {
            TaskCommand::Ls => task::list(session).await?,
            TaskCommand::Show { id } => task::show(session, id).await?,
            TaskCommand::Pause { id } => task::set(session, id, TaskState::Paused).await?,
            TaskCommand::Resume { id } => task::set(session, id, TaskState::Running).await?,
            TaskCommand::Cancel { id } => task::set(session, id, TaskState::Cancelled).await?,
            TaskCommand::Limit { id, rate } => task::set_limit(session, id, rate).await?,
        },
        Command::Group(GroupCommand::Ls { problems }) => topology::groups(session, problems).await?,
        Command::Meta(command) => meta(session, command).await?,
        Command::Profile(ProfileCommand::Create(new)) => names::create_profile(session, &new).await?,
        Command::Profile(ProfileCommand::Ls) => names::list_profiles(session).await?,
        Command::Tenant(TenantCommand::Create { name }) => names::create_tenant(session, &name).await?,
        Command::Tenant(TenantCommand::Ls) => names::list_tenants(session).await?,
        Command::Bucket(BucketCommand::Create { name, profile }) => {
            names::create_bucket(session, &name, &profile).await?;
        }
        Command::Bucket(BucketCommand::Ls) => names::list_buckets(session).await?,
        Command::Object(command) => object::run(session, &command).await?,
        Command::Offline(command) => return offline::run(session, &command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "clusterctl", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn node(session: &Session, command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Ls => topology::nodes(session).await,
        NodeCommand::Drain { node, long } => task::drain_node(session, NodeId(node), &long).await,
        NodeCommand::Undrain { node } => task::undrain_node(session, NodeId(node)).await,
        NodeCommand::Rm { node, yes } => task::remove_node(session, NodeId(node), yes).await,
    }
}

async fn disk(session: &Session, command: DiskCommand) -> anyhow::Result<()> {
    match command {
        DiskCommand::Ls => topology::disks(session).await,
        DiskCommand::Drain { disk, long } => task::drain_disk(session, DiskId(disk), &long).await,
        DiskCommand::Undrain { disk } => task::undrain_disk(session, DiskId(disk)).await,
        DiskCommand::Replace { disk, new, long } => {
            task::replace(session, DiskId(disk), new.map(DiskId), &long).await
        }
        DiskCommand::Fail { disk, reason, long } => {
            task::fail_disk(session, DiskId(disk), reason, &long).await
        }
    }
}

async fn meta(session: &Session, command: MetaCommand) -> anyhow::Result<()> {
    match command {
        MetaCommand::Bootstrap { members } => return names::bootstrap(session, members).await,
        MetaCommand::Ls => return names::list_members(session).await,
        MetaCommand::Add { member } => {
            session.connect().await?.admin().add_member(MetaId(member.id), member.address).await?;
        }
        MetaCommand::Rm { id } => session.connect().await?.admin().remove_member(MetaId(id)).await?,
        MetaCommand::Lead { id } => session.connect().await?.admin().transfer_leader(MetaId(id)).await?,
    }
    names::list_members(session).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line has no conflicting or misspelt definitions.
    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
