//! What a build needs from Debian's packages.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::bail;
use rustix::process::geteuid;

use crate::run;

/// A thing that the build needs, how to see whether it is there, and the packages that bring it.
struct Need {
    what: &'static str,
    present: fn() -> bool,
    packages: &'static [&'static str],
}

const NEEDS: [Need; 3] = [
    Need { what: "a C compiler", present: || runs("cc"), packages: &["gcc", "libc6-dev"] },
    Need { what: "a C++ compiler", present: || runs("g++"), packages: &["g++"] },
    Need {
        what: "libclang, with which the bindings of RocksDB are made",
        present: has_libclang,
        packages: &["libclang1-14", "libclang-common-14-dev"],
    },
];

/// Installs what is missing, as root or through sudo.
///
/// # Errors
///
/// When something is missing and cannot be installed: the error is the command to type.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let install = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    let by_hand = format!("missing: {}\ntype: sudo apt-get update && sudo {install}", what.join("; "));
    let prefix: &[&str] = if geteuid().is_root() {
        &[]
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n"]
    } else {
        bail!("{by_hand}");
    };
    eprintln!("installing {}", packages.join(" "));
    for line in ["apt-get update", &install] {
        let words: Vec<&str> = prefix.iter().copied().chain(line.split(' ')).collect();
        let command = &mut Command::new(words[0]);
        if run::check(command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive")).is_err() {
            bail!("the packages could not be installed\n{by_hand}");
        }
    }
    Ok(())
}

fn runs(program: &str) -> bool {
    succeeds(Command::new(program).arg("--version"))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Looks where Debian puts it, and at `LIBCLANG_PATH`, as bindgen does. The compiler's own headers
/// have to be there too.
fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let library = |name: &String| name.starts_with("libclang.so") || name.starts_with("libclang-");
    names("/usr/lib").iter().filter(|name| name.starts_with("llvm-")).any(|version| {
        let lib = format!("/usr/lib/{version}/lib");
        names(&lib).iter().any(library) && !names(&format!("{lib}/clang")).is_empty()
    })
}
