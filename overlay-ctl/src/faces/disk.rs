//! The disk of the state folder as it is shown. A disk that hangs answers nobody, and keeps one thread, not each that asks.

use super::shared::Shared;
use crate::{
    control::consensus::LogStore,
    durable::{DiskFolder, Folder as _, Space},
};
use std::{fmt, path::Path, sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::timeout};

/// Longest wait for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a disk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskReading {
    pub(crate) space: Space,
    /// Bytes of the log's file; 0 = there is none, or the disk does not say.
    pub(crate) log_bytes: u64,
}

impl DiskReading {
    /// That of a disk that does not say.
    const UNKNOWN: Self = Self { space: Space::UNKNOWN, log_bytes: 0 };

    fn of(folder: &DiskFolder) -> Self {
        Self {
            space: folder.space().unwrap_or(Space::UNKNOWN),
            log_bytes: folder.len(LogStore::DATABASE).unwrap_or_default(),
        }
    }

    /// Bytes that are free, without what is kept for root; `None` = the disk does not say.
    pub(crate) fn free(&self) -> Option<u64> {
        Some(self.space).filter(|space| *space != Space::UNKNOWN).map(|space| space.common)
    }
}

/// The disk of the state folder.
pub(crate) struct StateDisk {
    read: Arc<dyn Fn() -> DiskReading + Send + Sync>,
    shared: Shared<DiskReading>,
}

impl fmt::Debug for StateDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDisk").finish_non_exhaustive()
    }
}

impl StateDisk {
    pub(crate) fn new(state_dir: &Path) -> Self {
        let folder = DiskFolder::new(state_dir);
        Self::that_reads(move || DiskReading::of(&folder))
    }

    fn that_reads(read: impl Fn() -> DiskReading + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), shared: Shared::default() }
    }

    /// What the disk says, or said within the last second. It is asked once at a time, and not waited for if it hangs.
    pub(crate) async fn read(&self) -> DiskReading {
        let read = || {
            let read = Arc::clone(&self.read);
            async move { spawn_blocking(move || read()).await.unwrap_or(DiskReading::UNKNOWN) }
        };
        match timeout(PATIENCE, self.shared.get(read)).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(_)) | Err(_) => DiskReading::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    #[tokio::test]
    async fn a_disk_says_what_is_free_and_how_long_the_log_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LogStore::DATABASE), [7; 4_321]).unwrap();
        let reading = StateDisk::new(dir.path()).read().await;
        assert_eq!(reading.log_bytes, 4_321);
        assert!(reading.free().is_some_and(|free| free > 0), "{reading:?}");
        let none = StateDisk::new(&dir.path().join("none")).read().await;
        assert_eq!((none, none.free()), (DiskReading::UNKNOWN, None));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_one_thread_and_nobody_who_asks() {
        let (go_on, waits) = mpsc::channel::<()>();
        let (waits, begun) = (Mutex::new(waits), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&begun);
        let found = DiskReading { space: Space { all: 9, common: 7 }, log_bytes: 5 };
        let disk = StateDisk::that_reads(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            waits.lock().unwrap().recv().unwrap();
            found
        });
        for _ in 0..2 {
            let all = [(); 8].map(|()| disk.read());
            assert_eq!(futures::future::join_all(all).await, [DiskReading::UNKNOWN; 8]);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // What hung is waited for, and the disk is asked again, since that was long ago.
        for _ in 0..2 {
            go_on.send(()).unwrap();
        }
        assert_eq!((disk.read().await, begun.load(Ordering::SeqCst)), (found, 2));
    }
}
