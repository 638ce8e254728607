use super::SharedDatapath;
use overlay_common::DropEvent;
use std::time::Duration;
use tokio::sync::broadcast;

/// Events on their way to listeners.
const BACKLOG: usize = 1024;
/// Whether somebody listens is looked at this often.
const PERIOD: Duration = Duration::from_millis(250);

/// The events' channel.
pub(super) fn channel() -> broadcast::Sender<DropEvent> {
    broadcast::Sender::new(BACKLOG)
}

/// Reads drops from the kernel while somebody listens; the programs write none otherwise.
pub(super) async fn pump(datapath: SharedDatapath, listeners: broadcast::Sender<DropEvent>) {
    loop {
        if listeners.receiver_count() == 0 {
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        if let Err(error) = while_listened_to(&datapath, &listeners).await {
            tracing::warn!(error = %crate::error_chain(&error), "drops can't be read");
            tokio::time::sleep(PERIOD).await;
        }
        let off = datapath.lock().set_monitor(false);
        if let Err(error) = off {
            tracing::warn!(error = %crate::error_chain(&error), "the monitor can't be switched off");
        }
    }
}

async fn while_listened_to(
    datapath: &SharedDatapath,
    listeners: &broadcast::Sender<DropEvent>,
) -> Result<(), crate::datapath::DatapathError> {
    let mut drops = datapath.lock().drops()?;
    datapath.lock().set_monitor(true)?;
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            event = drops.next() => {
                // Nobody left to hear it: seen below.
                drop(listeners.send(event?));
            }
            _ = period.tick() => if listeners.receiver_count() == 0 { return Ok(()) },
        }
    }
}
