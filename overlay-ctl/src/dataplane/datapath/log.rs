//! The programs' own log. Only debug builds have it: the released object has no such map.
#![expect(unsafe_code, reason = "the logger's descriptor is registered")]

use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, Level};
use tokio::io::{Interest, unix::AsyncFd};

/// The target of their lines, by which they are filtered.
const TARGET: &str = "overlay_ebpf";

/// Lets the programs log if the lines are wanted. Otherwise each packet costs them one comparison.
pub(super) fn set_level(loader: &mut EbpfLoader<'_>) {
    let wanted = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
    let level: &'static u8 = if wanted { &(Level::Debug as u8) } else { &0 };
    loader.override_global(aya_log::LEVEL, level, true);
}

/// Hands the programs' lines on to the node's own log, for as long as the runtime lives. To be called after the
/// programs are loaded, because the map is made with them.
pub(super) fn forward(programs: &mut Ebpf) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let logger = match EbpfLogger::init(programs) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(error = %crate::error_chain(&error), "the programs' own log can't be read");
            return;
        }
    };
    runtime.spawn(async move {
        // SAFETY: the logger owns its descriptor and keeps it until the AsyncFd that owns the logger is
        // gone.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let Ok(mut logger) = registered else { return };
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}
