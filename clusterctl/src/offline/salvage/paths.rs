//! Where objects are written.
//!
//! `TENANT/BUCKET/KEY` for the best version of an object, with `~` and the put's id behind it for the others. A key that
//! is no path, or too long for one, or a directory on the way to another key, goes to `TENANT/BUCKET%odd/` under the
//! put's id: no bucket has a `%` in its name, so that nothing else is there.

use std::path::{Path, PathBuf};

use proto::ExtentId;

use super::plan::Object;

/// Longest part of a path, so that `~` and an id still fit the 255 bytes that file systems take.
const PART_BYTES_MAX: usize = 200;

/// Where a version of an object belongs below `root`.
pub(super) fn place(root: &Path, object: &Object, put: ExtentId, is_best: bool) -> PathBuf {
    let (name, key) = (&object.name, object.name.key.as_str());
    let tenant = root.join(name.tenant.as_str());
    if object.is_directory || !is_path(key) {
        return tenant.join(format!("{}%odd", name.bucket)).join(put.to_string());
    }
    let bucket = tenant.join(name.bucket.as_str());
    if is_best { bucket.join(key) } else { bucket.join(format!("{key}~{put}")) }
}

/// Where a version is written before it is whole: in no object's way.
pub(super) fn unfinished(root: &Path, put: ExtentId) -> PathBuf {
    root.join(format!("%part-{}-{put}", std::process::id()))
}

/// A key is made by whoever may write to the bucket: it must not leave the directory.
fn is_path(key: &str) -> bool {
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.len() > PART_BYTES_MAX;
    !key.split('/').any(odd)
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use super::super::plan::ObjectName;
    use super::*;

    fn object(key: &str, is_directory: bool) -> Object {
        let (tenant, bucket) = ("dijon".parse().unwrap(), "files".parse().unwrap());
        let name = ObjectName { tenant, bucket, key: key.parse().unwrap() };
        Object { name, is_directory, versions: Vec::new(), lost: Vec::new() }
    }

    /// Ordinary keys are paths; other versions are beside them.
    #[test]
    fn keys_are_paths() {
        let root = Path::new("/to");
        let put = ExtentId(0xab);
        let id = "000000000000000000000000000000ab";
        let place = |key, is_best| place(root, &object(key, false), put, is_best).display().to_string();
        assert_eq!(place("a/é b", true), "/to/dijon/files/a/é b");
        assert_eq!(place("a/é b", false), format!("/to/dijon/files/a/é b~{id}"));
        let directory = super::place(root, &object("a", true), put, true);
        assert_eq!(directory.display().to_string(), format!("/to/dijon/files%odd/{id}"));
    }

    /// Whatever the key, the file lies in the directory of its tenant, two levels below or more, and has a name that
    /// a file system takes.
    #[test]
    fn no_key_leaves_the_directory() {
        let long = "x".repeat(201);
        let longest = "y".repeat(200);
        for key in [
            "..",
            ".",
            "/",
            "/etc/passwd",
            "../../x",
            "a/../../../x",
            "a//b",
            "a/",
            "a/.",
            "./a",
            &long,
            &longest,
        ] {
            for is_best in [true, false] {
                let path = place(Path::new("/to"), &object(key, false), ExtentId(1), is_best);
                let below = path.strip_prefix("/to/dijon").expect("below its tenant");
                let parts: Vec<_> = below.components().collect();
                assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{key:?}: {path:?}");
                assert!(parts.len() >= 2, "{key:?}: {path:?}");
                assert!(parts.iter().all(|part| part.as_os_str().len() <= 255), "{key:?}: {path:?}");
                assert!(is_path(key) || below.starts_with("files%odd"), "{key:?}: {path:?}");
            }
        }
    }
}
