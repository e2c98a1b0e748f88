//! `cadoled ca`: the cluster's own certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use os::ca::Authority;
use proto::{Identity, InvalidInput};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What to do with the CA.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the cluster's own CA: once, on a machine that you keep safe.
    Init {
        /// Directory for ca.crt and ca.key.
        #[arg(long, default_value = "ca")]
        dir: PathBuf,
    },
    /// Issue a certificate: what its holder may do follows from its role.
    Issue(Issue),
}

/// A certificate to issue.
#[derive(Debug, Args)]
pub struct Issue {
    /// Directory of the CA.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// What the holder is.
    #[arg(long)]
    role: RoleName,
    /// Who the holder is: a number for meta and node, a name for tenant and operator.
    #[arg(long)]
    id: String,
    /// Directory for the certificate and its key.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Days until it expires.
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Meta,
    Node,
    Tenant,
    Operator,
}

impl Issue {
    fn identity(&self) -> Result<Identity, InvalidInput> {
        Ok(match self.role {
            RoleName::Meta => Identity::Meta(self.id.parse()?),
            RoleName::Node => Identity::Node(self.id.parse()?),
            RoleName::Tenant => Identity::Tenant(self.id.parse()?),
            RoleName::Operator => Identity::Operator(self.id.parse()?),
        })
    }
}

/// Carries out the command and says what was made.
///
/// # Errors
///
/// When files exist already or cannot be written, or the CA cannot be read.
pub fn run(command: &Command) -> anyhow::Result<String> {
    match command {
        Command::Init { dir } => {
            Authority::init(dir)?;
            Ok(format!(
                "made {}: keep ca.key on a machine that you trust, and back it up\nnext: cadoled ca issue --dir {} --role operator --id YOUR-NAME",
                dir.display(),
                dir.display()
            ))
        }
        Command::Issue(issue) => {
            let identity = issue.identity()?;
            let paths = issue_into(&Authority::open(&issue.dir)?, &identity, issue.days, &issue.out)?;
            Ok(format!("made {} and {}", paths.certificate.display(), paths.key.display()))
        }
    }
}

/// Issues a certificate into a directory.
///
/// # Errors
///
/// When the files exist already or cannot be written.
pub fn issue_into(
    authority: &Authority,
    identity: &Identity,
    days: u32,
    out: &Path,
) -> anyhow::Result<os::CredentialPaths> {
    Ok(authority.issue(identity, DAY * days, &[])?.write(out)?)
}
