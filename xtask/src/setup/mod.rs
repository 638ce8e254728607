//! `cargo xtask setup`: installs the tools for building, running, linting and testing.
//!
//! On Debian as root it installs everything that is missing, and prints before what it installs and why. On
//! any other system it prints one list and changes nothing. If nothing is missing, it takes milliseconds.

mod cargo_tools;
mod needs;

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use self::{
    cargo_tools::{BPF_LINKER, CargoTool, DENY, LLVM_COV, NEXTEST},
    needs::{Need, TO_BOOT, TO_BUILD, TO_COVER, TO_DRIVE, TO_LINT},
};
use crate::exec::{capture, exec};

/// The folder of the LLVM of Debian's rustc-web, which rustc uses as well.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const BPFFS: &str = "/sys/fs/bpf";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install only what building and running need, and leave out the tools for test, lint, demo and bench
    #[arg(long)]
    run_only: bool,
}

/// The task for which the tools are needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building the binary and running a node.
    Run,
    /// Checking the code without running it.
    Lint,
    /// Running nodes in demo and bench.
    Drive,
    /// Running nodes under other kernels.
    Boot,
    /// Running the tests.
    Test,
    /// Running the tests, under other kernels too.
    TestMachines,
    /// Measuring which code the tests execute.
    Cover,
    /// Linting, running nodes and testing.
    Everything,
}

impl Purpose {
    fn needs(self) -> (&'static [&'static [Need]], &'static [&'static CargoTool]) {
        match self {
            Self::Run => (&[TO_BUILD], &[&BPF_LINKER]),
            Self::Lint => (&[TO_BUILD, TO_LINT], &[&BPF_LINKER, &DENY]),
            Self::Drive => (&[TO_BUILD, TO_DRIVE], &[&BPF_LINKER]),
            Self::Boot => (&[TO_BUILD, TO_DRIVE, TO_BOOT], &[&BPF_LINKER]),
            Self::Test => (&[TO_BUILD, TO_DRIVE], &[&BPF_LINKER, &NEXTEST]),
            Self::TestMachines => (&[TO_BUILD, TO_DRIVE, TO_BOOT], &[&BPF_LINKER, &NEXTEST]),
            Self::Cover => (&[TO_BUILD, TO_COVER], &[&BPF_LINKER, &NEXTEST, &LLVM_COV]),
            Self::Everything => (&[TO_BUILD, TO_LINT, TO_DRIVE], &[&BPF_LINKER, &DENY, &NEXTEST]),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure(if options.run_only { Purpose::Run } else { Purpose::Everything })?;
    println!("setup: everything needed is here");
    Ok(())
}

/// Installs everything that is missing. Prints nothing if nothing is.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let (needs, tools) = purpose.needs();
    let missing: Vec<&Need> =
        needs.iter().copied().flatten().filter(|need| !(need.present)()).collect();
    let tools: Vec<&CargoTool> = tools.iter().copied().filter(|tool| !tool.is_present()).collect();
    let bpffs_missing = !is_bpffs(Path::new(BPFFS));
    if missing.is_empty() && tools.is_empty() && !bpffs_missing {
        return Ok(());
    }
    if !(nix::unistd::geteuid().is_root() && (missing.is_empty() || has_packages(&missing))) {
        bail!(instructions(&missing, &tools, bpffs_missing));
    }
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    for tool in &tools {
        tool.install()?;
    }
    if !tools.is_empty() {
        // The folder has a gigabyte, which only a build of a newer version would use again.
        fs::remove_dir_all(cargo_tools::build_dir())?;
    }
    if bpffs_missing {
        println!("setup: mounting bpffs on {BPFFS}: maps, programs and links are pinned there");
        exec(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    }
    Ok(())
}

/// Returns true if Debian's archive, as this machine knows it, has the missing packages.
fn has_packages(missing: &[&Need]) -> bool {
    let debian = fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"));
    if !debian {
        return false;
    }
    if known_to_apt(missing) {
        return true;
    }
    println!("setup: apt-get update (the package lists are empty or old)");
    exec(Command::new("apt-get").args(["update", "-q"])).is_ok() && known_to_apt(missing)
}

fn known_to_apt(missing: &[&Need]) -> bool {
    let packages = missing.iter().flat_map(|need| need.packages);
    capture(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages)).is_ok()
}

fn install_packages(missing: &[&Need]) -> Result<()> {
    println!("setup: installing Debian packages:");
    for need in missing {
        println!("  {:40} {}: {}", need.packages.join(" "), need.what, need.why);
    }
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-q", "--no-install-recommends"])
        .args(missing.iter().flat_map(|need| need.packages))
        // tshark's package asks a question during its installation, and a machine under test has no terminal.
        .env("DEBIAN_FRONTEND", "noninteractive");
    if exec(&mut apt).is_ok() {
        return Ok(());
    }
    // If the package lists are older than the archive, they name versions that do not exist any more.
    println!("setup: apt-get update, then once more");
    exec(Command::new("apt-get").args(["update", "-q"]))?;
    exec(&mut apt)
}

fn instructions(missing: &[&Need], tools: &[&CargoTool], bpffs_missing: bool) -> String {
    let mut text = String::from(
        "this machine lacks what is needed, and only on Debian as root is it installed by itself.\n\
         Install:\n",
    );
    for need in missing {
        text += &format!(
            "  {}: {}\n      Debian:    apt-get install {}\n      elsewhere: {}\n",
            need.what,
            need.why,
            need.packages.join(" "),
            need.elsewhere
        );
    }
    for tool in tools {
        text += &format!("  {}: {}\n      {}\n", tool.package, tool.why, tool.by_hand());
    }
    if bpffs_missing {
        text += &format!("  bpffs: pins live there\n      mount -t bpf bpf {BPFFS}\n");
    }
    text + "Then run the same command again; nothing was changed."
}

fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}
