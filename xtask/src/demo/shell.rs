//! Shows commands as in a terminal: prompt, command line, and their real output.

use std::{
    env,
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use overlay_lab::{
    Host, Netns, check_interrupted,
    command::{self, Output},
    overlay_binary,
};

/// Longest time of a command of the demo.
const PATIENCE: Duration = Duration::from_secs(40);

/// A prompt in a namespace. On a host, `overlay` connects to the host's node.
pub(super) struct Shell {
    prompt: String,
    netns: Netns,
    socket: Option<PathBuf>,
    /// True if commands run by `ip netns exec`, which mounts the files of /etc/netns/NAME over those of /etc.
    own_etc: bool,
}

impl Shell {
    pub(super) fn on_host(host: &Host) -> Self {
        let (netns, socket) = (host.netns.clone(), Some(host.socket()));
        Self { prompt: host.name.clone(), netns, socket, own_etc: false }
    }

    pub(super) fn in_namespace(name: &str, netns: &Netns) -> Self {
        Self { prompt: name.to_owned(), netns: netns.clone(), socket: None, own_etc: false }
    }

    /// A prompt in a container, where names are resolved according to its own resolv.conf.
    pub(super) fn in_container(name: &str, netns: &Netns) -> Self {
        Self { own_etc: true, ..Self::in_namespace(name, netns) }
    }

    /// Shows and runs a command that must succeed; returns its stdout.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let output = self.show(line)?;
        if !output.status.success() {
            bail!("{}# {line}: {}", self.prompt, output.status);
        }
        Ok(output.stdout)
    }

    /// Shows and runs a command that must be refused; returns its stderr.
    pub(super) fn refused(&self, line: &str) -> Result<String> {
        let output = self.show(line)?;
        if output.status.success() {
            bail!("{}# {line}: was not refused", self.prompt);
        }
        Ok(output.stderr)
    }

    /// Shows a command that the caller runs itself.
    pub(super) fn print(&self, line: &str) {
        let prompt = &self.prompt;
        if std::io::stdout().is_terminal() {
            println!("\x1b[1;32m{prompt}#\x1b[0m \x1b[1m{line}\x1b[0m");
        } else {
            println!("{prompt}# {line}");
        }
    }

    fn show(&self, line: &str) -> Result<Output> {
        check_interrupted()?;
        self.print(line);
        let exec = ["ip", "netns", "exec", self.netns.name()];
        let before = exec.into_iter().filter(|_| self.own_etc);
        let words: Vec<&str> = before.chain(line.split_whitespace()).collect();
        let mut command = self.netns.command(&words);
        command.env("PATH", path());
        if let Some(socket) = &self.socket {
            command.env("OVERLAY_SOCKET", socket);
        }
        let output = command::output(&mut command, PATIENCE)?;
        print!("{}{}", output.stdout, output.stderr);
        Ok(output)
    }
}

/// A heading.
pub(super) fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1;36m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

/// The folder of the release binary.
pub(super) fn binary_folder() -> PathBuf {
    let binary = overlay_binary();
    let folder = binary.parent().unwrap_or(Path::new("/"));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [binary_folder()].into_iter().chain(env::split_paths(&path));
    // Only a folder with a colon in its name cannot be joined; then PATH stays as it is.
    env::join_paths(folders).unwrap_or(path)
}
