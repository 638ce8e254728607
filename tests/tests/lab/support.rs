//! What every scenario starts with.

use std::{env, fs::File, io::Write as _, panic::Location};

use anyhow::Result;
use overlay_tests::lab::{Lab, Requirement, missing};

/// What nearly every scenario needs.
pub(crate) const NODES: &[Requirement] =
    &[Requirement::Root, Requirement::Bpffs, Requirement::Binary, Requirement::Tool("ping")];

/// Runs a scenario in a lab of its own. Where the machine lacks something, the scenario is skipped and
/// the reason told to who counts; where it fails, the nodes' logs are printed.
#[track_caller]
pub(crate) fn scenario(needs: &[Requirement], body: impl FnOnce(&mut Lab) -> Result<()>) {
    if let Some(reason) = missing(needs) {
        return skip(&reason, Location::caller());
    }
    let mut lab = Lab::new().expect("the lab is empty and the machine is ours");
    if let Err(error) = body(&mut lab) {
        // The lab prints its logs while this panic drops it.
        panic!("{error:?}");
    }
}

fn skip(reason: &str, at: &Location<'_>) {
    let line = format!("{}:{}: {reason}\n", at.file(), at.line());
    eprint!("skipped: {line}");
    if let Some(path) = env::var_os("OVERLAY_SKIPS") {
        let mut file = File::options().create(true).append(true).open(path).expect("a skips file");
        file.write_all(line.as_bytes()).expect("a line for the count");
    }
}
