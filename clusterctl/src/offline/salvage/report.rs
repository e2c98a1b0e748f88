//! What was saved, what was not, and why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::limits::INLINE_BYTES_MAX;
use proto::{ByteSize, ClusterId, ExtentId};
use serde_json::{Value, json};

use super::collect::Found;
use super::plan::{End, Filter, Missing, Object, Plan, Version};
use super::write::Fate;
use crate::offline::disks::{OfflineDisk, Unusable};
use crate::offline::shown;
use crate::output::{Format, count, size, table};

/// Stripes that are named for a version that cannot be saved, in a text.
const MISSING_SHOWN: usize = 3;

/// Collects what happened, for people and programs.
pub(super) struct Report {
    cluster: Option<ClusterId>,
    disks: usize,
    unusable: Vec<Unusable>,
    filter: Filter,
    to: Option<PathBuf>,
    is_dry: bool,
    nameless: u64,
    unreadable: u64,
    refused: BTreeMap<String, u64>,
    saved: Vec<Saved>,
    lost: Vec<Lost>,
}

struct Saved {
    object: [String; 3],
    put: ExtentId,
    bytes: u64,
    end: End,
    /// The file is not only another version of the object.
    is_best: bool,
    is_same: bool,
    file: Option<PathBuf>,
}

struct Lost {
    object: [String; 3],
    put: ExtentId,
    bytes: u64,
    why: Why,
    /// A newer version was saved.
    is_superseded: bool,
}

enum Why {
    Missing(Vec<Missing>),
    Other(String),
}

impl Report {
    pub(super) fn new(
        disks: &[OfflineDisk],
        unusable: Vec<Unusable>,
        (found, plan): (&Found, &Plan),
        filter: Filter,
        to: Option<PathBuf>,
        is_dry: bool,
    ) -> Self {
        Self {
            cluster: disks.first().map(|disk| disk.store.superblock().cluster),
            disks: disks.len(),
            unusable,
            filter,
            to,
            is_dry,
            nameless: plan.nameless,
            unreadable: found.unreadable,
            refused: plan.refused.clone(),
            saved: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// An object has been dealt with; `fates` are those of its versions.
    pub(super) fn add(&mut self, object: Object, fates: Vec<Fate>) {
        let Object { name, versions, lost, .. } = object;
        let name = [name.tenant.to_string(), name.bucket.to_string(), name.key.to_string()];
        let mut newest_saved = None;
        let mut failed = Vec::new();
        for (version, fate) in versions.into_iter().zip(fates) {
            let (file, is_same) = match fate {
                Fate::Planned(file) => (file, false),
                Fate::Saved(file) => (Some(file), false),
                Fate::Same(file) => (Some(file), true),
                Fate::Exists(file) => {
                    let text = format!("{} is there already and is something else", file.display());
                    failed.push((version, Why::Other(text)));
                    continue;
                }
                Fate::Failed(problem) => {
                    failed.push((version, Why::Other(problem)));
                    continue;
                }
            };
            let Version { put, bytes, end, .. } = version;
            let is_best = newest_saved.is_none();
            newest_saved = newest_saved.max(Some(put));
            self.saved.push(Saved { object: name.clone(), put, bytes, end, is_best, is_same, file });
        }
        let missing = lost.into_iter().map(|mut version| {
            let why = Why::Missing(std::mem::take(&mut version.missing));
            (version, why)
        });
        self.lost.extend(failed.into_iter().chain(missing).map(|(version, why)| Lost {
            object: name.clone(),
            put: version.put,
            bytes: version.bytes,
            is_superseded: newest_saved.is_some_and(|saved| saved > version.put),
            why,
        }));
    }

    /// All that was found is saved, but for what was written anew since.
    pub(super) fn is_whole(&self) -> bool {
        self.unusable.is_empty()
            && self.refused.is_empty()
            && (self.nameless, self.unreadable) == (0, 0)
            && self.lost.iter().all(|lost| lost.is_superseded)
    }

    pub(super) fn print(&self, format: Format) {
        format.print(&self.to_json(), || self.to_text());
    }

    fn to_text(&self) -> String {
        let bytes = self.saved.iter().map(|saved| saved.bytes).sum();
        let cluster = self.cluster.map(|cluster| format!(" of cluster {cluster}")).unwrap_or_default();
        let disks = format!("{}{cluster}", count(self.disks as u64, "disk"));
        let total = format!("{}, {}", count(self.saved.len() as u64, "version"), size(bytes));
        let mut lines = vec![match (&self.to, self.is_dry) {
            (Some(to), false) => format!("saved {total}, from {disks}, into {}", to.display()),
            _ => format!("could save {total}, from {disks}, if their bytes are whole"),
        }];
        lines.extend(self.filter.to_text());
        if !self.saved.is_empty() {
            let rows = self.saved.iter().map(|saved| saved.row(self.to.as_deref())).collect();
            lines.push(table(&["object", "put begun", "bytes", "end", "file"], &[2], rows));
        }
        let (superseded, lost): (Vec<_>, Vec<_>) = self.lost.iter().partition(|lost| lost.is_superseded);
        if !lost.is_empty() {
            lines.push(format!("\nnot saved: {}", count(lost.len() as u64, "version")));
            lines.push(table(&["object", "put begun", "why"], &[], lost.iter().map(|l| l.row()).collect()));
        }
        lines.push(String::new());
        lines.extend(self.notes(superseded.len() as u64));
        lines.join("\n")
    }

    fn notes(&self, superseded: u64) -> Vec<String> {
        let stripes = |number: u64| count(number, "stripe");
        let mut notes: Vec<String> = self
            .refused
            .iter()
            .map(|(why, number)| format!("{} left out: {}", stripes(*number), shown(why)))
            .collect();
        if superseded > 0 {
            let versions = count(superseded, "older version");
            notes.push(format!(
                "{versions} of objects that are saved cannot be: mostly what was being dropped"
            ));
        }
        if self.nameless > 0 {
            let nameless = stripes(self.nameless);
            notes.push(format!(
                "{nameless} do not say of which object they are; `offline extract` copies their shards"
            ));
        }
        if self.unreadable > 0 {
            let shards = count(self.unreadable, "shard");
            notes.push(format!("{shards} cannot be read; `offline check` says where they lie"));
        }
        if self.saved.iter().any(|saved| saved.end == End::Open) {
            notes.push(
                "open: the last stripe found is full, and nothing says that the object ends there".to_owned(),
            );
        }
        notes.push(format!(
            "objects of up to {} lay in the metadata whole: no disk has them, or knows of them",
            ByteSize(INLINE_BYTES_MAX as u64)
        ));
        notes.push(
            "which versions were committed, and which deleted, only the metadata knew: look through what is saved"
                .to_owned(),
        );
        notes
    }

    fn to_json(&self) -> Value {
        json!({
            "cluster": self.cluster, "disks": self.disks, "dry_run": self.is_dry, "to": self.to,
            "whole": self.is_whole(),
            "unusable": self.unusable.iter().map(Unusable::to_json).collect::<Vec<_>>(),
            "saved": self.saved.iter().map(Saved::to_json).collect::<Vec<_>>(),
            "lost": self.lost.iter().map(Lost::to_json).collect::<Vec<_>>(),
            "stripes_without_hint": self.nameless,
            "shards_unreadable": self.unreadable,
            "stripes_refused": self.refused,
            "inline_bytes_max": INLINE_BYTES_MAX,
        })
    }
}

impl Filter {
    fn to_text(&self) -> Option<String> {
        let parts = [
            self.tenant.as_ref().map(|tenant| format!("tenant {tenant}")),
            self.bucket.as_ref().map(|bucket| format!("bucket {bucket}")),
            (!self.prefix.is_empty()).then(|| format!("keys that begin with {:?}", self.prefix)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("only {}", parts.join(", ")))
    }
}

impl Saved {
    fn row(&self, root: Option<&Path>) -> Vec<String> {
        let below = |file: &PathBuf| {
            let below = root.and_then(|root| file.strip_prefix(root).ok()).unwrap_or(file);
            shown(&below.display().to_string())
        };
        let file = self.file.as_ref().map(below).unwrap_or_default();
        let file = if self.is_same { format!("{file} (was there)") } else { file };
        let put = self.put.granted().to_string();
        vec![shown(&self.object.join("/")), put, self.bytes.to_string(), self.end.name().to_owned(), file]
    }

    fn to_json(&self) -> Value {
        let [tenant, bucket, key] = &self.object;
        json!({
            "tenant": tenant, "bucket": bucket, "key": key, "put": self.put,
            "begun_ms": self.put.granted().as_millis(), "bytes": self.bytes, "end": self.end.name(),
            "best": self.is_best, "file": self.file, "was_there": self.is_same,
        })
    }
}

impl Lost {
    fn row(&self) -> Vec<String> {
        let why = match &self.why {
            Why::Other(problem) => shown(problem),
            Why::Missing(missing) => {
                let mut parts: Vec<String> =
                    missing.iter().take(MISSING_SHOWN).map(Missing::to_text).collect();
                if missing.len() > MISSING_SHOWN {
                    parts.push(format!("and {} more, see --json", missing.len() - MISSING_SHOWN));
                }
                parts.join("; ")
            }
        };
        vec![shown(&self.object.join("/")), self.put.granted().to_string(), why]
    }

    fn to_json(&self) -> Value {
        let [tenant, bucket, key] = &self.object;
        let (missing, problem): (Vec<_>, _) = match &self.why {
            Why::Missing(missing) => (missing.iter().map(Missing::to_json).collect(), None),
            Why::Other(problem) => (Vec::new(), Some(problem)),
        };
        json!({
            "tenant": tenant, "bucket": bucket, "key": key, "put": self.put,
            "begun_ms": self.put.granted().as_millis(), "bytes": self.bytes, "superseded": self.is_superseded,
            "missing": missing, "problem": problem,
        })
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Told => "as told",
            Self::Open => "open",
        }
    }
}

impl Missing {
    fn to_text(&self) -> String {
        match self {
            Self::Shards { offset, stripe, found, needed, .. } => format!(
                "stripe {}/{}/{} at byte {offset} has {found} of {needed} shards",
                stripe.group, stripe.extent, stripe.stripe
            ),
            Self::Bytes { from, to } => format!("nothing is there of bytes {from} to {to}"),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Shards { offset, bytes, stripe, found, needed } => json!({
                "from": offset, "to": offset + u64::from(*bytes), "group": stripe.group, "extent": stripe.extent,
                "stripe": stripe.stripe, "shards": found, "needed": needed,
            }),
            Self::Bytes { from, to } => json!({ "from": from, "to": to, "shards": 0 }),
        }
    }
}
