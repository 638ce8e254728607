//! A program in the background. It never outlives its lab.

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

/// A program in the background, its output in a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it writes is appended to `log`.
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
            // Ctrl-C is for us alone: we end it when its turn comes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{what}`"))?;
        Ok(Self { child: Some(child), what, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        Some(Pid::from_raw(i32::try_from(self.child.as_ref()?.id()).ok()?))
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the process was let go")?;
        kill(pid, signal).with_context(|| format!("cannot send {signal} to `{}`", self.what))
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("`{}` ends", self.what);
        let child = self.child.as_mut().context("the process was let go")?;
        eventually(&what, patience, || child.try_wait()?.context("it still runs"))
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill9(mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lets it live on when we are gone.
    pub fn detach(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; there is nobody to tell.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
