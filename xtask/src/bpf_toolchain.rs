//! Finds what compiles the eBPF programs: a Rust compiler with library source, and bpf-linker.
//!
//! Std only, and one file: `xtask` uses it to see what is missing, and the build scripts of the crates
//! that embed the object include it by path, so that there is one opinion of what a toolchain is.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's compiler, from the package rustc-web. Stable, but built from source, and its library
/// source is packaged (rust-web-src), which rustup's stable is not.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The target of the programs.
pub const TARGET: &str = "bpfel-unknown-none";
/// The workspace's profile for them.
pub const PROFILE: &str = "bpf";

/// A compiler and a linker that fit together.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// What is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// No Rust compiler with library source.
    pub compiler: bool,
    /// No bpf-linker.
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

/// The toolchain of this machine. `tools` is where `cargo xtask setup` installs bpf-linker.
///
/// # Errors
/// What is missing.
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

/// A compiler whose sysroot holds library source.
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

/// The clippy of that compiler; another compiler's can't read what this one has built.
pub fn find_clippy() -> Option<PathBuf> {
    let driver = find_compiler()?.with_file_name("clippy-driver");
    driver.exists().then_some(driver)
}

/// bpf-linker, whatever its version; `tools` comes first.
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

/// Compiles the programs of the workspace at `workspace`, with `features`, into `target`, and gives the
/// object's path. Each set of features needs a folder of its own.
///
/// # Errors
/// What the compiler's run came to, in a sentence; its own words went to stderr.
pub fn build(
    toolchain: &Toolchain,
    workspace: &Path,
    target: &Path,
    features: &[&str],
) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What an outer cargo set for a build script speaks of another compiler and another target.
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
        // Nothing in a packet is aligned, and every machine that runs BPF at speed loads unaligned words:
        // without this, headers are taken apart byte by byte.
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
    // A nightly takes it as no news; a stable cargo needs it for -Z itself.
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
