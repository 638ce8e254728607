//! Ctrl-C: everything that was built is removed before this process ends.

use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

/// From now on SIGINT, SIGTERM and SIGHUP make the lab's waits fail, so that the lab is dropped in the
/// ordinary way. This must be called before any other thread exists, because threads inherit the blocked
/// signals. Child processes do not, because std starts them without blocked signals.
pub(crate) fn take_down_first() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while signals.wait().is_ok() {
            eprintln!("\ninterrupted; removing what was built");
            overlay_lab::interrupt();
        }
    })?;
    Ok(())
}
