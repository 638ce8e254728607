//! The requirements of building, linting, testing and booting, and the Debian packages that contain them.

use std::path::Path;

use super::LLVM_PREFIX;
use crate::{bpf_toolchain, exec::find_program, setup::cargo_tools, vm::VIRTIOFSD};

/// A requirement that a machine may lack.
pub(super) struct Need {
    pub(super) what: &'static str,
    pub(super) why: &'static str,
    /// The Debian packages that contain it.
    pub(super) packages: &'static [&'static str],
    /// The way to install it on other systems.
    pub(super) elsewhere: &'static str,
    pub(super) present: fn() -> bool,
}

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

pub(super) const TO_BUILD: &[Need] = &[
    Need {
        what: "an eBPF compiler (rustc with the library's source)",
        why: "builds the kernel half for bpfel-unknown-none",
        packages: &["rustc-web", "rust-web-src"],
        elsewhere: "rustup toolchain install nightly --component rust-src",
        present: || bpf_toolchain::find_compiler().is_some(),
    },
    Need {
        what: "LLVM 22's libraries",
        why: "bpf-linker is built against the LLVM of that compiler",
        packages: &["llvm-22-dev", "libpolly-22-dev"],
        elsewhere: "cargo install bpf-linker@0.13.0 --locked",
        present: || cargo_tools::BPF_LINKER.is_present() || llvm_present(),
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

pub(super) const TO_LINT: &[Need] = &[Need {
    what: "clippy of the eBPF compiler",
    why: "checks the eBPF programs; rustup's clippy belongs to another compiler",
    packages: &["rust-web-clippy"],
    elsewhere: "rustup component add clippy --toolchain nightly",
    present: || bpf_toolchain::find_clippy().is_some(),
}];

pub(super) const TO_DRIVE: &[Need] = &[
    tool!("bpftool", "bpftool", "prints the pinned maps"),
    tool!("ping", "iputils-ping", "counts packets one by one"),
    tool!("arping", "iputils-arping", "asks for addresses that nobody has"),
    tool!("curl", "curl", "talks to the demo's web servers"),
    tool!("dig", "bind9-dnsutils", "an independent reader of DNS answers"),
    tool!("dnsmasq", "dnsmasq-base", "the outside world's name server"),
    tool!("ethtool", "ethtool", "switches offloads off"),
    tool!("iperf3", "iperf3", "full-speed TCP and counted UDP"),
    tool!("iptables", "iptables", "writes Docker's rules, to measure ours beside them"),
    tool!("qperf", "qperf", "latency and small packets"),
    tool!("tcpdump", "tcpdump", "captures the underlay"),
    tool!("tshark", "tshark", "an independent reader of our packets"),
    tool!("wrk", "wrk", "HTTP requests as fast as they are answered"),
];

pub(super) const TO_BOOT: &[Need] = &[
    Need {
        what: "qemu-system-x86_64 and virtiofsd",
        why: "boot other kernels on this machine's files",
        packages: &["qemu-system-x86", "qemu-system-common"],
        elsewhere: "package qemu-system-x86, with virtiofsd in /usr/lib/qemu",
        present: || find_program("qemu-system-x86_64").is_some() && Path::new(VIRTIOFSD).exists(),
    },
    tool!("busybox", "busybox-static", "is a guest's first file system"),
    tool!("modprobe", "kmod", "loads a guest's modules"),
    tool!("wg", "wireguard-tools", "gives a tunnel inside an endpoint its keys"),
];

pub(super) const TO_COVER: &[Need] = &[Need {
    what: "llvm-profdata and llvm-cov of LLVM 22",
    why: "turn the counts of an instrumented run into a report",
    packages: &["llvm-22"],
    elsewhere: "rustup component add llvm-tools",
    present: || Path::new(LLVM_PREFIX).join("bin/llvm-profdata").exists(),
}];

fn llvm_present() -> bool {
    Path::new(LLVM_PREFIX).join("bin/llvm-config").exists()
        && Path::new(LLVM_PREFIX).join("lib/libPolly.a").exists()
}
