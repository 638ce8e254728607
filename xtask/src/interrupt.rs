//! Ctrl-C: what was built comes down before we end.

use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

/// From now on SIGINT, SIGTERM and SIGHUP make the lab's waits fail, so that the lab is dropped on the
/// ordinary way out. To be called before any other thread exists: they inherit what is blocked. Child
/// processes don't; std starts them with nothing blocked.
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
