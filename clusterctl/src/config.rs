//! How `clusterctl` reaches its cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use proto::TenantName;
use serde::Deserialize;

/// `clusterctl.toml`. An unknown key is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `host:port` of metadata servers; one that answers is enough.
    pub(crate) metas: Vec<String>,
    /// The tenant whose objects are meant when the command line does not say.
    pub(crate) tenant: Option<TenantName>,
    /// Certificates; paths are relative to the file.
    pub(crate) tls: Tls,
}

/// Where the certificates are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The cluster's CA certificate.
    pub(crate) ca: PathBuf,
    /// Our certificate.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Where a configuration is looked for when none is given.
const PLACES: [&str; 2] = [".cadole/dev/clusterctl.toml", "/etc/cadole/clusterctl.toml"];

impl Config {
    /// Reads `file`, or the first that exists of the usual places.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be used.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => usual_place()?,
        };
        let text =
            fs::read_to_string(&file).with_context(|| format!("{}: cannot be read", file.display()))?;
        let mut config: Self = match toml::from_str(&text) {
            Ok(config) => config,
            Err(error) => bail!("{}: {error}", file.display()),
        };
        if config.metas.is_empty() {
            bail!("{}: metas is empty: name at least one metadata server, host:port", file.display());
        }
        let base = file.parent().unwrap_or(Path::new("."));
        for path in [&mut config.tls.ca, &mut config.tls.certificate, &mut config.tls.key] {
            *path = base.join(&*path);
        }
        Ok(config)
    }
}

fn usual_place() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/cadole/clusterctl.toml"));
    let places = PLACES.iter().map(PathBuf::from);
    let mut places: Vec<PathBuf> = places.chain(home).collect();
    places.sort_by_key(|place| place.is_absolute());
    match places.iter().find(|place| place.exists()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "no configuration: give one with --config or CADOLE_CONFIG, or put it at one of {}",
            places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths are relative to the file; typos and empty lists are refused by name.
    #[test]
    fn configuration_is_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("clusterctl.toml");
        let good =
            "metas = [\"h:1\"]\ntenant = \"demo\"\n[tls]\nca = \"ca\"\ncertificate = \"c\"\nkey = \"k\"\n";
        let read = |text: &str| {
            fs::write(&file, text).expect("written");
            Config::read(Some(&file))
        };
        assert_eq!(read(good).expect("good").tls.ca, dir.path().join("ca"));
        for (right, wrong, part) in [
            ("metas", "meta", "unknown field `meta`"),
            ("[\"h:1\"]", "[]", "metas is empty"),
            ("demo", "DEMO", "allowed are"),
        ] {
            let error = format!("{:#}", read(&good.replace(right, wrong)).expect_err(wrong));
            assert!(error.contains(part), "{error}");
        }
    }
}
