//! `cargo xtask setup`: what building, running and testing need.
//!
//! On Debian as root it installs what is missing and says what and why before it does; anywhere else
//! it prints one list and touches nothing. Where all is there, it takes milliseconds.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    bpf_toolchain,
    exec::{capture, cargo, command_line, exec, find_program, tools_dir},
    vm::VIRTIOFSD,
};

/// The bpf-linker whose LLVM fits Debian's rustc-web.
const BPF_LINKER_VERSION: &str = "0.13.0";
/// Where Debian keeps that LLVM. Without it, bpf-linker's build looks in /usr/lib64 and fails to link.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const BPFFS: &str = "/sys/fs/bpf";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what building and running need; leave out the tools of test, demo and bench
    #[arg(long)]
    run_only: bool,
}

/// How much is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building the binary and running a node.
    Run,
    /// That, and the tools that test, demo and bench drive.
    Everything,
    /// That, and what boots other kernels.
    Machines,
}

/// Something that may be missing.
struct Need {
    what: &'static str,
    why: &'static str,
    /// Debian packages that bring it.
    packages: &'static [&'static str],
    /// How to come by it where those packages don't exist.
    elsewhere: &'static str,
    present: fn() -> bool,
}

const TO_BUILD: &[Need] = &[
    Need {
        what: "an eBPF compiler (rustc with the library's source)",
        why: "builds the kernel half for bpfel-unknown-none",
        packages: &["rustc-web", "rust-web-src"],
        elsewhere: "rustup toolchain install nightly --component rust-src",
        present: ebpf_compiler_present,
    },
    Need {
        what: "LLVM 22's libraries",
        why: "bpf-linker is built against the LLVM of that compiler",
        packages: &["llvm-22-dev", "libpolly-22-dev"],
        elsewhere: "cargo install bpf-linker@0.13.0 --locked",
        present: || bpf_linker_present() || llvm_present(),
    },
    Need {
        what: "protoc",
        why: "the raft crate compiles its messages with it",
        packages: &["protobuf-compiler"],
        elsewhere: "package protobuf-compiler (Ubuntu, Fedora) or protobuf (Arch), or set PROTOC",
        present: || std::env::var_os("PROTOC").is_some() || find_program("protoc").is_some(),
    },
    Need {
        what: "ip",
        why: "makes the namespaces of the commands that a node suggests",
        packages: &["iproute2"],
        elsewhere: "package iproute2",
        present: || find_program("ip").is_some(),
    },
    Need {
        what: "nft",
        why: "a node masquerades and publishes ports with it",
        packages: &["nftables"],
        elsewhere: "package nftables",
        present: || find_program("nft").is_some(),
    },
];

macro_rules! tool {
    ($program:literal, $package:literal, $why:literal) => {
        Need {
            what: $program,
            why: $why,
            packages: &[$package],
            elsewhere: concat!("package ", $package),
            present: || find_program($program).is_some(),
        }
    };
}

const TO_TEST: &[Need] = &[
    tool!("bpftool", "bpftool", "prints the pinned maps"),
    tool!("ping", "iputils-ping", "counts packets one by one"),
    tool!("arping", "iputils-arping", "asks for addresses that nobody has"),
    tool!("curl", "curl", "talks to the demo's web servers"),
    tool!("dig", "bind9-dnsutils", "an independent reader of DNS answers"),
    tool!("dnsmasq", "dnsmasq-base", "the outside world's name server"),
    tool!("dig", "bind9-dnsutils", "asks the endpoints' resolvers"),
    tool!("dnsmasq", "dnsmasq-base", "is the outside's name server"),
    tool!("ethtool", "ethtool", "switches offloads off"),
    tool!("iperf3", "iperf3", "full-speed TCP and counted UDP"),
    tool!("iptables", "iptables", "writes Docker's rules, to measure ours beside them"),
    tool!("qperf", "qperf", "latency and small packets"),
    tool!("tcpdump", "tcpdump", "captures the underlay"),
    tool!("tshark", "tshark", "an independent reader of our packets"),
    tool!("wrk", "wrk", "HTTP requests as fast as they are answered"),
];

const TO_BOOT: &[Need] = &[
    Need {
        what: "qemu-system-x86_64 and virtiofsd",
        why: "boot other kernels on this machine's files",
        packages: &["qemu-system-x86", "qemu-system-common"],
        elsewhere: "package qemu-system-x86, with virtiofsd in /usr/lib/qemu",
        present: || find_program("qemu-system-x86_64").is_some() && Path::new(VIRTIOFSD).exists(),
    },
    tool!("busybox", "busybox-static", "is a guest's first file system"),
    tool!("modprobe", "kmod", "loads a guest's modules"),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure(if options.run_only { Purpose::Run } else { Purpose::Everything })?;
    println!("setup: everything needed is here");
    Ok(())
}

/// Sees to it that everything needed is there; silent where it is.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let needs: &[&[Need]] = match purpose {
        Purpose::Run => &[TO_BUILD],
        Purpose::Everything => &[TO_BUILD, TO_TEST],
        Purpose::Machines => &[TO_BUILD, TO_TEST, TO_BOOT],
    };
    let missing: Vec<&Need> =
        needs.iter().copied().flatten().filter(|need| !(need.present)()).collect();
    let linker_missing = !bpf_linker_present();
    let bpffs_missing = !is_bpffs(Path::new(BPFFS));
    if missing.is_empty() && !linker_missing && !bpffs_missing {
        return Ok(());
    }
    if !(nix::unistd::geteuid().is_root() && (missing.is_empty() || has_packages(&missing))) {
        bail!(instructions(&missing, linker_missing, bpffs_missing));
    }
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    if linker_missing {
        install_bpf_linker()?;
    }
    if bpffs_missing {
        println!("setup: mounting bpffs on {BPFFS}: maps, programs and links are pinned there");
        exec(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    }
    Ok(())
}

/// Whether Debian's archive, as this machine knows it, has what is missing.
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
        // tshark's package asks whether others may capture; a machine under test has no terminal.
        .env("DEBIAN_FRONTEND", "noninteractive");
    if exec(&mut apt).is_ok() {
        return Ok(());
    }
    // Lists older than the archive name versions that are gone.
    println!("setup: apt-get update, then once more");
    exec(Command::new("apt-get").args(["update", "-q"]))?;
    exec(&mut apt)
}

fn install_bpf_linker() -> Result<()> {
    let root = tools_dir();
    println!(
        "setup: building bpf-linker {BPF_LINKER_VERSION} into {} (about a minute, once): it links \
         the eBPF programs and writes their type information",
        root.display()
    );
    let package = format!("bpf-linker@{BPF_LINKER_VERSION}");
    let mut command =
        cargo(["install", &package, "--locked", "--no-default-features", "--features", "llvm-22"]);
    command.arg("--root").arg(&root).env("LLVM_PREFIX", LLVM_PREFIX);
    // The workspace's own settings are not the linker's.
    command.env_remove("RUSTC").env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    exec(&mut command)?;
    if !bpf_linker_present() {
        bail!("`{}` ended well but left no usable bpf-linker", command_line(&command));
    }
    Ok(())
}

fn instructions(missing: &[&Need], linker_missing: bool, bpffs_missing: bool) -> String {
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
    if linker_missing {
        text += &format!(
            "  bpf-linker {BPF_LINKER_VERSION}: links the eBPF programs\n      Debian:    \
             LLVM_PREFIX={LLVM_PREFIX} cargo install bpf-linker@{BPF_LINKER_VERSION} --locked \
             --no-default-features --features llvm-22\n      elsewhere: cargo install \
             bpf-linker@{BPF_LINKER_VERSION} --locked\n"
        );
    }
    if bpffs_missing {
        text += &format!("  bpffs: pins live there\n      mount -t bpf bpf {BPFFS}\n");
    }
    text + "Then run the same command again; nothing was changed."
}

fn ebpf_compiler_present() -> bool {
    !bpf_toolchain::find(&tools_dir()).is_err_and(|missing| missing.compiler)
}

fn llvm_present() -> bool {
    Path::new(LLVM_PREFIX).join("bin/llvm-config").exists()
        && Path::new(LLVM_PREFIX).join("lib/libPolly.a").exists()
}

fn bpf_linker_present() -> bool {
    // Run it: it links LLVM dynamically, and a file that can't start is as good as none.
    bpf_toolchain::find_linker(&tools_dir()).is_some_and(|linker| {
        capture(Command::new(linker).arg("--version"))
            .is_ok_and(|text| text.trim().ends_with(BPF_LINKER_VERSION))
    })
}

fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}
