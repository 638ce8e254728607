//! Runs other programs. Every error contains the whole command line.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use anyhow::{Context as _, Result, bail};

/// The repository's root.
///
/// It is asked of `cargo run`, which sets the variable, and not of the compiler alone: cargo takes an executable that
/// was built in another checkout for up to date, when a target folder is copied or shared.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .filter(|package| package.ends_with("xtask"))
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        package.parent().map(Path::to_path_buf).unwrap_or_else(|| {
            unreachable!("xtask is a folder of the workspace");
        })
    });
    &ROOT
}

/// The folder in which cargo puts its builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The folder in which `setup` puts tools for this workspace alone.
pub(crate) fn tools_dir() -> PathBuf {
    target_dir().join("tools")
}

/// Path of the release binary.
pub(crate) fn overlay_binary() -> PathBuf {
    target_dir().join("release/overlay")
}

/// The same `cargo` that runs this program, at the repository's root.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    if let Some(path) = path_with_tools() {
        command.env("PATH", path);
    }
    command
}

fn path_with_tools() -> Option<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [tools_dir().join("bin")].into_iter().chain(env::split_paths(&path));
    env::join_paths(dirs).ok()
}

/// Runs a command with this process's terminal.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns its stdout.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}\n{}", output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as a person would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let envs = command
        .get_envs()
        .filter(|(key, _)| *key != "PATH")
        .filter_map(|(key, value)| Some(format!("{}={}", key.display(), value?.display())));
    let words = [command.get_program()].into_iter().chain(command.get_args());
    envs.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// Searches for a program on PATH, and in the folders where Debian keeps an administrator's programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
