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
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};

use crate::dataplane::netlink::Mounts;

/// Longest time between two looks, whatever events came. All resolvers look at the same moment, so that the machine is woken
/// once for them.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// The same where events do not come.
const LOOK_PERIOD_UNTOLD: Duration = Duration::from_secs(1);
/// The same for a namespace that is gone from its path and has processes, whose end is no event.
const ORPHAN_PERIOD: Duration = Duration::from_secs(1);

/// Tells the resolvers of a node when to look at their namespaces.
#[derive(Debug)]
pub(super) struct Presence {
    waiting: Waiting,
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
        let changes = Mounts::watch();
        if let Err(error) = &changes {
            tracing::warn!(%error, "that a namespace is gone is not noticed at once");
        }
        let waiting = Waiting::default();
        let of_task = waiting.clone();
        let task = tokio::spawn(async move {
            let mut changes = changes.ok();
            let period = if changes.is_some() { LOOK_PERIOD } else { LOOK_PERIOD_UNTOLD };
            let mut all_look = Instant::now() + period;
            loop {
                let told = match &mut changes {
                    Some(changes) => timeout_at(all_look, changes.changed()).await,
                    None => timeout_at(all_look, pending()).await,
                };
                match told {
                    Ok(Ok(places)) if !places.is_empty() => {
                        let is_there = |path: &Path| {
                            places.iter().any(|place| place.file_name() == path.file_name())
                        };
                        of_task.wake(is_there);
                    }
                    Ok(Ok(_)) | Err(_) => {
                        of_task.wake(|_| true);
                        all_look = Instant::now() + period;
                    }
                    // Only when the runtime shuts down.
                    Ok(Err(_)) => return pending().await,
                }
            }
        });
        Self { waiting, task }
    }

    /// Says when to look at the namespace with this path.
    pub(super) fn looks(&self, path: &Path) -> Arc<Notify> {
        self.waiting.add(path)
    }
}

/// The resolvers that wait, each with the path of its namespace. The last component of a path tells whether a mount is
/// about it, because the same namespace has several paths.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<Vec<One>>>);

/// The path of a namespace, and the resolver that waits for it.
type One = (PathBuf, Weak<Notify>);

impl Waiting {
    fn add(&self, path: &Path) -> Arc<Notify> {
        let looks = Arc::default();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((path.to_owned(), Arc::downgrade(&looks)));
        looks
    }

    /// Lets those look whose paths are meant, and forgets those that have ended.
    fn wake(&self, is_meant: impl Fn(&Path) -> bool) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(path, looks)| {
            let looks = looks.upgrade();
            if let Some(looks) = looks.as_ref().filter(|_| is_meant(path)) {
                looks.notify_one();
            }
            looks.is_some()
        });
    }
}

/// Returns when the namespace with that identity is not at `path` any more, and no process is in it.
pub(super) async fn until_gone(looks: Arc<Notify>, path: &Path, identity: (u64, u64)) {
    loop {
        let mut is_orphan = false;
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
                is_orphan = true;
            }
        }
        let told = looks.notified();
        if is_orphan {
            // Where nobody says so, it is looked at again all the same.
            timeout(ORPHAN_PERIOD, told).await.ok();
        } else {
            told.await;
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
