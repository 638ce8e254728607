//! `cargo xtask lint`: checks the format, the repository's own rules, and the dependencies, and runs clippy
//! and rustdoc. Warnings are errors.

mod arrows;
mod circles;
mod claims;
mod files;
mod house;
mod reader;
mod source;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{
    bpf_toolchain,
    exec::{cargo, exec, target_dir, tools_dir},
    setup::{self, Purpose},
};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Check only the format and the repository's own rules, which takes seconds and compiles nothing
    #[arg(long)]
    house: bool,
    /// Print the table of rooms and arrows that matches the code, for ARCHITECTURE.md
    #[arg(long)]
    rooms: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.rooms {
        return house::print_rooms();
    }
    exec(&mut cargo(["fmt", "--all", "--check"]))?;
    house::check()?;
    if options.house {
        return Ok(());
    }
    setup::ensure(Purpose::Lint)?;
    dependencies()?;
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
    programs()?;
    let doc = ["doc", "--workspace", "--exclude", "overlay-ebpf", "--no-deps"];
    exec(cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The files of a crate's code without those of its tests: paths below `folder`, without the extension.
pub(crate) fn files_of_code(name: &str, folder: &Path) -> Result<Vec<String>> {
    Ok(source::Source::read(name, folder)?.files)
}

/// Checks licences, sources and bans by deny.toml. Advisories are not checked, because CI cannot reach their
/// database.
fn dependencies() -> Result<()> {
    exec(&mut cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]))
}

/// Checks the eBPF programs with the clippy of their own compiler, because rustup's has another version.
fn programs() -> Result<()> {
    let toolchain = match bpf_toolchain::find(&tools_dir()) {
        Ok(toolchain) => toolchain,
        Err(missing) => bail!("{missing}"),
    };
    let driver = bpf_toolchain::find_clippy().context(
        "the eBPF programs are not checked: their compiler has no clippy-driver beside it; on Debian, \
         run as root: apt-get install rust-web-clippy",
    )?;
    let mut check = cargo(["check", "--locked", "--package", "overlay-ebpf", "--profile"]);
    check
        .args([bpf_toolchain::PROFILE, "--target", bpf_toolchain::TARGET, "-Zbuild-std=core"])
        // The log of debug builds is included, because it makes no other program.
        .arg("--all-features")
        .arg("--target-dir")
        .arg(target_dir().join("ebpf-lint"))
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_WORKSPACE_WRAPPER", driver)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings");
    exec(&mut check)
}
