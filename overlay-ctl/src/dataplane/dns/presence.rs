//! Whether the namespaces with a resolver are still there.
//!
//! The resolver's sockets keep a removed namespace alive, and with it the peers of the host's devices, by whose
//! disappearance the node notices the removal. So a resolver ends when its namespace is gone, unless a process is left
//! in it, which keeps it alive in any case and goes on asking for names.

use std::{
    fs,
    future::pending,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::dataplane::netlink::Mounts;

/// Longest time between two looks, whatever events came.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// The same for a namespace that is gone from its path and has processes, whose end is no event.
const ORPHAN_PERIOD: Duration = Duration::from_secs(1);

/// Tells all resolvers of a node when to look at their namespaces.
#[derive(Debug)]
pub(super) struct Presence {
    looks: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Presence {
    /// Begins to listen to changes of the mount table, because a namespace that has a name is a mount. Must be called
    /// within a tokio runtime.
    pub(super) fn watch() -> Self {
        let (look, looks) = watch::channel(());
        let changes = Mounts::watch();
        if let Err(error) = &changes {
            tracing::warn!(%error, "that a namespace is gone is not noticed at once");
        }
        let task = tokio::spawn(async move {
            if let Ok(mut changes) = changes {
                while changes.changed().await.is_ok() {
                    look.send_replace(());
                }
            }
            // The resolvers look from time to time all the same, and have their sender until this task ends.
            pending().await
        });
        Self { looks, task }
    }

    /// The times when a resolver looks.
    pub(super) fn looks(&self) -> watch::Receiver<()> {
        self.looks.clone()
    }
}

/// Returns when the namespace with that identity is not at `path` any more, and no process is in it.
pub(super) async fn until_gone(mut looks: watch::Receiver<()>, path: &Path, identity: (u64, u64)) {
    loop {
        let mut period = LOOK_PERIOD;
        match fs::metadata(path) {
            Ok(meta) if identity_of(&meta) == identity => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "a namespace could not be checked");
            }
            _ => {
                let has_processes = spawn_blocking(move || has_processes(identity)).await;
                if !has_processes.unwrap_or(false) {
                    return;
                }
                period = ORPHAN_PERIOD;
            }
        }
        if let Ok(Err(_)) = timeout(period, looks.changed()).await {
            // Nobody says any more when to look.
            return;
        }
    }
}

fn identity_of(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Returns true if a process is in the network namespace with that identity.
fn has_processes(identity: (u64, u64)) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_process = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|octet| octet.is_ascii_digit()))
    };
    // A process that ends meanwhile has no namespace.
    paths
        .filter(is_process)
        .filter_map(|process| fs::metadata(process.join("ns/net")).ok())
        .any(|meta| identity_of(&meta) == identity)
}
