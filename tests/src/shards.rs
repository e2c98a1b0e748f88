//! Behind a node's back: the files of its shards.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a shard file before the shard itself; docs/formats.md.
pub const HEADER_BYTES: u64 = 4096;

/// The file of one shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardFile {
    /// `node-3`.
    pub node: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
}

impl ShardFile {
    /// Its name, which says group, extent, stripe and slot.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Inverts one byte in place. What the node holds open sees it too.
    pub fn damage(&self, offset: u64) {
        let file = File::options().read(true).write(true).open(&self.path).expect("the shard's file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte to damage");
        file.write_all_at(&[!byte[0]], offset).expect("damaged");
        file.sync_all().expect("on the disk");
    }

    /// Cuts the file off.
    pub fn truncate(&self, bytes: u64) {
        let file = File::options().write(true).open(&self.path).expect("the shard's file");
        file.set_len(bytes).expect("cut");
        file.sync_all().expect("on the disk");
    }

    /// Removes the file.
    pub fn remove(&self) {
        fs::remove_file(&self.path).expect("removed");
    }

    /// All its bytes.
    pub fn read(&self) -> Vec<u8> {
        fs::read(&self.path).expect("read")
    }
}

/// All shards on the disks of the cluster in `dir`, in a stable order.
pub fn all(dir: &Path) -> Vec<ShardFile> {
    let mut found = Vec::new();
    for home in entries(dir) {
        let node = home.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if node.starts_with("node-") {
            collect(&home, &node, &mut found);
        }
    }
    found.sort();
    found
}

/// True when `file` holds a whole header that matches its checksum: the CRC-32C of the block, with the
/// checksum's own bytes as zeros.
pub fn is_header_whole(file: &[u8]) -> bool {
    let Some(header) = usize::try_from(HEADER_BYTES).ok().and_then(|bytes| file.get(..bytes)) else {
        return false;
    };
    let mut crc = codec::Crc32c::new();
    crc.update(&header[..12]);
    crc.update(&[0; 4]);
    crc.update(&header[16..]);
    header.starts_with(b"CADOLEsh") && header[12..16] == crc.finish().to_le_bytes()
}

fn collect(dir: &Path, node: &str, found: &mut Vec<ShardFile>) {
    for path in entries(dir) {
        if path.is_dir() {
            collect(&path, node, found);
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(is_shard) {
            // A file that vanishes meanwhile was no longer a shard.
            if let Ok(about) = path.metadata() {
                found.push(ShardFile { node: node.to_owned(), path, bytes: about.len() });
            }
        }
    }
}

/// `g<group>-<extent>-<stripe>-<slot>`, hexadecimal.
fn is_shard(name: &str) -> bool {
    let Some(parts) = name.strip_prefix('g') else { return false };
    let parts: Vec<&str> = parts.split('-').collect();
    parts.len() == 4 && parts.iter().all(|part| u128::from_str_radix(part, 16).is_ok())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
