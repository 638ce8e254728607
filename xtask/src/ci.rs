//! `cargo xtask ci`: lint, and the tests with none skipped: for a person before a push. CI itself runs
//! `cargo xtask test --kernels`.

use anyhow::Result;

use crate::{lint, test};

pub(crate) fn run() -> Result<()> {
    lint::run()?;
    test::run(&test::Options { refuse_skips: true, ..test::Options::default() })
}
