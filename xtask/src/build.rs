//! `cargo xtask build`: the release binary.

use std::{env, path::PathBuf};

use anyhow::Result;

use crate::{
    exec::{cargo, exec, overlay_binary, root},
    setup::{self, Purpose},
};

pub(crate) fn run() -> Result<()> {
    setup::ensure(Purpose::Run)?;
    release()?;
    println!("{}", overlay_binary().display());
    Ok(())
}

/// Builds the release binary, without checks before.
pub(crate) fn release() -> Result<()> {
    exec(&mut cargo(["build", "--release", "--package", "overlay-ctl"]))
}

/// The binary to test or to measure: the one that OVERLAY_BIN names, if it is built already, or else the
/// release build, which is built now.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(binary) = env::var_os("OVERLAY_BIN") {
        return Ok(root().join(binary));
    }
    release()?;
    Ok(overlay_binary())
}
