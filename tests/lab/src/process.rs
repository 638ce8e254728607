//! A program in the background, which never outlives its lab.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{command, wait::eventually};

/// A program in the background, with its output in a file. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output is appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let what = command::line(command);
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // A process group of its own, so that Ctrl-C does not reach the program: the lab ends it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{what}`"))?;
        Ok(Self { child: Some(child), what, log: log.to_owned() })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        Some(Pid::from_raw(i32::try_from(self.child.as_ref()?.id()).ok()?))
    }

    /// The program's output so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns true if the program still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the process was let go")?;
        kill(pid, signal).with_context(|| format!("cannot send {signal} to `{}`", self.what))
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("`{}` ends", self.what);
        let child = self.child.as_mut().context("the process was let go")?;
        eventually(&what, patience, || child.try_wait()?.context("it still runs"))
    }

    /// Kills the program, as in a crash, and waits until it is gone.
    pub fn kill9(mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lets the program run on after the end of this process.
    pub fn detach(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that the program has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
