//! `cargo xtask ci`: what CI runs, and a person before a push.

use anyhow::Result;

use crate::{lint, test};

pub(crate) fn run() -> Result<()> {
    lint::run()?;
    test::run(&test::Options::default())
}
