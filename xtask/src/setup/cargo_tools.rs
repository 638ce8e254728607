//! Programs from crates.io that the workspace uses and Debian does not have. Each is built once, at a version
//! that is known to work, into a folder of the workspace.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::LLVM_PREFIX;
use crate::exec::{capture, cargo, command_line, exec, tools_dir};

/// A program, and the package of the same name from which it is built.
pub(super) struct CargoTool {
    pub(super) package: &'static str,
    /// The version that is built.
    version: &'static str,
    /// The oldest version that is accepted if one is installed already.
    at_least: &'static str,
    pub(super) why: &'static str,
    /// The arguments with which it prints its version.
    asked: &'static [&'static str],
    args: &'static [&'static str],
    envs: &'static [(&'static str, &'static str)],
}

/// bpf-linker. Its LLVM must be that of Debian's rustc-web, so no other version is accepted. Without
/// LLVM_PREFIX the build would search /usr/lib64 and fail to link.
pub(super) const BPF_LINKER: CargoTool = CargoTool {
    package: "bpf-linker",
    version: "0.13.0",
    at_least: "0.13.0",
    why: "links the eBPF programs and writes their type information",
    asked: &["--version"],
    args: &["--no-default-features", "--features", "llvm-22"],
    envs: &[("LLVM_PREFIX", LLVM_PREFIX)],
};

/// cargo-nextest, built without optimisation, because it mostly waits for tests, and is built on each new
/// machine.
pub(super) const NEXTEST: CargoTool = CargoTool {
    package: "cargo-nextest",
    version: "0.9.151",
    at_least: "0.9.143",
    why: "runs the tests, a process each",
    asked: &["--version"],
    args: &["--debug", "--no-default-features"],
    envs: &[],
};

pub(super) const DENY: CargoTool = CargoTool {
    package: "cargo-deny",
    version: "0.20.2",
    at_least: "0.20.2",
    why: "checks licences, sources and bans of what is depended on",
    asked: &["--version"],
    args: &["--debug"],
    envs: &[],
};

pub(super) const LLVM_COV: CargoTool = CargoTool {
    package: "cargo-llvm-cov",
    version: "0.9.1",
    at_least: "0.9.1",
    why: "runs tests with counters of what is executed",
    // It takes an option only as the subcommand of cargo that it is.
    asked: &["llvm-cov", "--version"],
    args: &["--debug"],
    envs: &[],
};

impl CargoTool {
    /// Returns true if the program is installed in an accepted version. The program is run to find out,
    /// because bpf-linker loads LLVM dynamically, and a file that cannot start is useless.
    pub(super) fn is_present(&self) -> bool {
        candidates(self.package).any(|file| {
            capture(Command::new(file).args(self.asked)).is_ok_and(|text| self.will_do(&text))
        })
    }

    fn will_do(&self, printed: &str) -> bool {
        let Some(found) = printed.split_whitespace().find_map(numbers) else { return false };
        let bounds = numbers(self.at_least).zip(numbers(self.version));
        bounds.is_some_and(|(least, _)| {
            if self.at_least == self.version { found == least } else { found >= least }
        })
    }

    pub(super) fn install(&self) -> Result<()> {
        let root = tools_dir();
        println!(
            "setup: building {} {} into {} (some minutes, once): it {}",
            self.package,
            self.version,
            root.display(),
            self.why
        );
        let mut command = cargo(["install"]);
        command.arg(self.spec()).arg("--locked").args(self.args);
        // The tools share a folder, because they have many dependencies in common.
        command.arg("--root").arg(&root).arg("--target-dir").arg(build_dir());
        command.envs(self.envs.iter().copied());
        // The workspace's own settings must not apply to the tool.
        command.env_remove("RUSTC").env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
        exec(&mut command)?;
        if !self.is_present() {
            bail!("`{}` ended well but left no usable {}", command_line(&command), self.package);
        }
        Ok(())
    }

    /// The command that a person would type.
    pub(super) fn by_hand(&self) -> String {
        let envs = self.envs.iter().map(|(name, value)| format!("{name}={value} "));
        let words = ["cargo", "install"].map(str::to_owned);
        let rest = ["--locked"].iter().chain(self.args).map(|&word| word.to_owned());
        let line: Vec<String> = words.into_iter().chain([self.spec()]).chain(rest).collect();
        envs.collect::<String>() + &line.join(" ")
    }

    fn spec(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }
}

/// The folder in which the tools are built.
pub(super) fn build_dir() -> PathBuf {
    tools_dir().join("build")
}

/// The numbers of a version such as `0.9.151`, or `None` for any other word.
fn numbers(word: &str) -> Option<[u32; 3]> {
    let mut parts = word.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// The files with this name: first the workspace's, then those on PATH, then cargo's own.
fn candidates(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let folders: Vec<PathBuf> = [tools_dir().join("bin")]
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(home.map(|home| home.join("bin")))
        .collect();
    let program = program.to_owned();
    folders.into_iter().map(move |folder| folder.join(&program)).filter(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_will_do_is_new_enough() {
        assert!(NEXTEST.will_do("cargo-nextest 0.9.151 (2c2b9d2 2026-10-01)\nrelease: 0.9.151"));
        assert!(NEXTEST.will_do("cargo-nextest 0.10.0"));
        assert!(!NEXTEST.will_do("cargo-nextest 0.9.99"));
        assert!(!NEXTEST.will_do("error: no such command"));
    }

    #[test]
    fn no_other_linker_will_do() {
        assert!(BPF_LINKER.will_do("bpf-linker 0.13.0"));
        assert!(!BPF_LINKER.will_do("bpf-linker 0.14.0"));
    }
}
