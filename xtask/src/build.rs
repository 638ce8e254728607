//! `cargo xtask build`: the release binary.

use anyhow::Result;

use crate::{
    exec::{cargo, exec, overlay_binary},
    setup::{self, Purpose},
};

pub(crate) fn run() -> Result<()> {
    setup::ensure(Purpose::Run)?;
    release()?;
    println!("{}", overlay_binary().display());
    Ok(())
}

/// Builds it, with nothing checked before.
pub(crate) fn release() -> Result<()> {
    exec(&mut cargo(["build", "--release", "--package", "overlay-ctl"]))
}
