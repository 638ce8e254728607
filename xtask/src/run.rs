//! `cargo xtask run`: builds and starts a node, also from a fresh clone.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build,
    exec::{command_line, overlay_binary},
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments of `overlay node run`
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    build::release()?;
    let mut command = Command::new(overlay_binary());
    command.args(["node", "run"]).args(&options.args);
    let line = command_line(&command);
    println!("$ {line}");
    // The process is replaced by the node, so that signals reach the node and its exit code is returned.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{line}`"))
}
