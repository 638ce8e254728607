//! Compiles the eBPF programs, which the crate embeds.

use std::{
    env,
    path::{Path, PathBuf},
};

#[path = "../../xtask/src/bpf_toolchain.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with xtask, which uses more of it")]
mod bpf_toolchain;

/// A variant of the programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// The programs as they are released.
    Release,
    /// The same programs, which also write their decisions to the log.
    #[allow(dead_code, reason = "the tests of the programs run the released variant")]
    WithLog,
}

/// Builds the object and stores its path in OVERLAY_EBPF_OBJECT, which the crate reads at compile time.
pub(crate) fn compile(object: Object) -> anyhow::Result<()> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().unwrap_or(Path::new(".")).to_owned();
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |dir| workspace.join(dir));
    for part in ["overlay-ebpf", "overlay-common", "xtask/src/bpf_toolchain.rs", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(part).display());
    }
    let tools = target.join("tools");
    println!("cargo:rerun-if-changed={}", tools.join("bin/bpf-linker").display());
    let toolchain = match bpf_toolchain::find(&tools) {
        Ok(toolchain) => toolchain,
        // The message says how to set up the compiler; a panic's backtrace would hide it.
        Err(missing) => fail(&missing.to_string()),
    };
    let (folder, features): (_, &[&str]) = match object {
        Object::Release => ("ebpf", &[]),
        Object::WithLog => ("ebpf-log", &["log"]),
    };
    match bpf_toolchain::build(&toolchain, &workspace, &target.join(folder), features) {
        Ok(object) => println!("cargo:rustc-env=OVERLAY_EBPF_OBJECT={}", object.display()),
        Err(error) => fail(&error),
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "cargo shows what was printed; nothing is held")]
fn fail(message: &str) -> ! {
    println!("cargo:error={message}");
    std::process::exit(1)
}
