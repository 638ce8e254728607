//! Finds the tools that compile the eBPF programs: a Rust compiler with library source, and bpf-linker.
//!
//! The file uses the standard library alone. `xtask` uses it to find out what is missing, and the build
//! scripts of the crates that embed the object include it by its path, so that all have the same definition
//! of a toolchain.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's compiler, from the package rustc-web. It is stable and built from source, and a package has its
/// library source (rust-web-src), which stable Rust from rustup does not include.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The target of the programs.
pub const TARGET: &str = "bpfel-unknown-none";
/// The workspace's profile for the programs.
pub const PROFILE: &str = "bpf";

/// A compiler and a linker that fit together.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The Rust compiler.
    pub rustc: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// The missing parts of a toolchain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// True if there is no Rust compiler with library source.
    pub compiler: bool,
    /// True if there is no bpf-linker.
    pub linker: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.compiler, self.linker) {
            (true, true) => "a Rust compiler with library source, and bpf-linker",
            (true, false) => "a Rust compiler with library source",
            (false, _) => "bpf-linker",
        };
        write!(
            f,
            "The eBPF programs can't be built: {what} is missing. The programs run in the kernel, on \
             no standard library, so `core` is compiled with them, and LLVM bitcode must be linked \
             into one BPF object. To install it, run as root: cargo xtask setup"
        )
    }
}

/// The toolchain of this machine. `tools` is the folder in which `cargo xtask setup` installs bpf-linker.
///
/// # Errors
/// Returns the missing parts.
pub fn find(tools: &Path) -> Result<Toolchain, Missing> {
    let compiler = find_compiler();
    let linker = find_linker(tools);
    match (compiler, linker) {
        (Some(rustc), Some(linker)) => Ok(Toolchain { rustc, linker }),
        (compiler, linker) => {
            Err(Missing { compiler: compiler.is_none(), linker: linker.is_none() })
        }
    }
}

/// Finds a compiler whose sysroot contains library source.
pub fn find_compiler() -> Option<PathBuf> {
    let debian = PathBuf::from(DEBIAN_RUSTC);
    if has_source(&debian) {
        return Some(debian);
    }
    let rustup = Command::new("rustup").args(["toolchain", "list"]).output().ok()?;
    let list = String::from_utf8(rustup.stdout).ok()?;
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|toolchain| toolchain.starts_with("nightly"))
        .filter_map(|toolchain| {
            let which = ["which", "rustc", "--toolchain", toolchain];
            let which = Command::new("rustup").args(which).output().ok()?;
            Some(PathBuf::from(String::from_utf8(which.stdout).ok()?.trim()))
        })
        .find(|rustc| has_source(rustc))
}

fn has_source(rustc: &Path) -> bool {
    let Ok(sysroot) = Command::new(rustc).args(["--print", "sysroot"]).output() else {
        return false;
    };
    let Ok(sysroot) = String::from_utf8(sysroot.stdout) else { return false };
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// Finds that compiler's clippy. Another compiler's clippy cannot read what this compiler has built.
pub fn find_clippy() -> Option<PathBuf> {
    let driver = find_compiler()?.with_file_name("clippy-driver");
    driver.exists().then_some(driver)
}

/// Finds bpf-linker of any version. `tools` is searched first.
pub fn find_linker(tools: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    [tools.join("bin")]
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

/// Compiles the programs of the workspace at `workspace`, with `features`, into `target`, and returns the
/// object's path. Each set of features needs a folder of its own.
///
/// # Errors
/// Returns a sentence about the failed run. The compiler's own messages are on stderr.
pub fn build(
    toolchain: &Toolchain,
    workspace: &Path,
    target: &Path,
    features: &[&str],
) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // These variables were set by an outer cargo for a build script, and are meant for another compiler and
    // another target.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_") && name_text != "CARGO_HOME"
            || name_text.starts_with("RUST") && name_text != "RUSTUP_HOME"
            || name_text == "TARGET"
            || name_text == "HOST"
        {
            cargo.env_remove(&name);
        }
    }
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Fields of a packet are not aligned, and every machine that runs BPF fast can load unaligned words.
        // Without this option headers are read byte by byte.
        "-Ctarget-cpu=v3".to_owned(),
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
    ];
    cargo
        .current_dir(workspace)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--locked", "--package", "overlay-ebpf", "--profile", PROFILE])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(target)
        .args(["--features", &features.join(",")]);
    // A stable cargo needs this for -Z. A nightly ignores it.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    let status = cargo.status().map_err(|error| format!("cargo can't be run: {error}"))?;
    if !status.success() {
        return Err(format!("the eBPF programs do not compile ({status}); see the errors above"));
    }
    let object = target.join(TARGET).join(PROFILE).join("overlay-ebpf");
    match fs::metadata(&object) {
        Ok(_) => Ok(object),
        Err(error) => Err(format!("the object {} is missing: {error}", object.display())),
    }
}
