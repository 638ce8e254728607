//! `cargo xtask lint`: format, clippy and rustdoc, warnings denied.

use anyhow::Result;

use crate::{
    exec::{cargo, exec},
    setup::{self, Purpose},
};

pub(crate) fn run() -> Result<()> {
    setup::ensure(Purpose::Run)?;
    exec(&mut cargo(["fmt", "--all", "--check"]))?;
    exec(&mut cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "overlay-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    let doc = ["doc", "--workspace", "--exclude", "overlay-ebpf", "--no-deps"];
    exec(cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
}
