//! What a pass looks at: everything, or what an event is about.
//!
//! An event never says how something is, only what it is about. A pass for it looks at that alone, and takes the rest as the
//! last look saw it. So the cost of an event does not grow with the node. What no event told of is found by the next look
//! at everything (see `rhythm`).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// More devices and namespaces than this are no part any more: then everything is looked at.
const PART_MAX: usize = 256;

/// What is to be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    is_whole: bool,
    /// The underlay, the uplinks, and the ways to VTEPs.
    ways: bool,
    /// Devices of the overlay, by their indexes.
    devices: BTreeSet<u32>,
    /// Where a namespace was mounted or unmounted.
    namespaces: BTreeSet<PathBuf>,
}

impl Scope {
    /// Everything.
    #[must_use]
    pub fn whole() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// The underlay, the uplinks, and the ways to VTEPs.
    #[must_use]
    pub fn ways() -> Self {
        Self { ways: true, ..Self::default() }
    }

    /// The device of the overlay with this index.
    #[must_use]
    pub fn device(index: u32) -> Self {
        Self { devices: [index].into(), ..Self::default() }
    }

    /// A namespace was mounted there, or unmounted.
    #[must_use]
    pub fn namespace(path: PathBuf) -> Self {
        Self { namespaces: [path].into(), ..Self::default() }
    }

    /// Adds what `other` is about.
    pub(super) fn add(&mut self, other: Self) {
        let Self { is_whole, ways, devices, namespaces } = other;
        self.is_whole |= is_whole;
        self.ways |= ways;
        self.devices.extend(devices);
        self.namespaces.extend(namespaces);
        if self.is_whole || self.devices.len() + self.namespaces.len() > PART_MAX {
            *self = Self::whole();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The ways are among it.
    pub(super) fn has_ways(&self) -> bool {
        self.is_whole || self.ways
    }

    /// It is about nothing but the ways.
    pub(super) fn is_of_ways(&self) -> bool {
        *self == Self::ways()
    }

    pub(super) fn devices(&self) -> &BTreeSet<u32> {
        &self.devices
    }

    /// Returns true if the namespace with this path, or of this bare name, may be another one now. The last component
    /// decides, because the same namespace has several paths (/run and /var/run), and a mount is told of by one.
    pub(super) fn may_concern(&self, netns: &Path) -> bool {
        let name = netns.file_name();
        self.namespaces.iter().any(|mounted| mounted.file_name() == name)
    }
}

/// The side that tells what is to be looked at.
#[derive(Clone, Debug)]
pub struct ScopeSender {
    pending: Arc<Mutex<Scope>>,
    wake: mpsc::Sender<()>,
}

/// The reconciler's side. What was told since the last time comes as one.
#[derive(Debug)]
pub struct ScopeReceiver {
    pending: Arc<Mutex<Scope>>,
    woken: mpsc::Receiver<()>,
}

/// A channel for what is to be looked at. It holds one scope, to which each new one is added: none is lost.
#[must_use]
pub fn scopes() -> (ScopeSender, ScopeReceiver) {
    let pending = Arc::<Mutex<Scope>>::default();
    let (wake, woken) = mpsc::channel(1);
    (ScopeSender { pending: Arc::clone(&pending), wake }, ScopeReceiver { pending, woken })
}

impl ScopeSender {
    /// Asks for a look. Returns false if nobody looks any more.
    pub fn send(&self, scope: Scope) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).add(scope);
        // A receiver that was woken and has not looked yet takes this with the rest.
        !matches!(self.wake.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
    }
}

impl ScopeReceiver {
    /// What is to be looked at; `None` after the last sender was dropped. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Scope> {
        loop {
            self.woken.recv().await?;
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let scope = std::mem::take(&mut *pending);
            if !scope.is_empty() {
                return Some(scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_comes_as_one_and_nothing_is_lost() {
        let (sender, mut receiver) = scopes();
        for scope in [Scope::device(3), Scope::ways(), Scope::device(4), Scope::device(3)] {
            assert!(sender.send(scope));
        }
        let scope = receiver.recv().await.unwrap();
        assert!(scope.has_ways() && !scope.is_whole() && !scope.is_of_ways());
        assert_eq!(scope.devices(), &[3, 4].into());
        assert!(sender.send(Scope::ways()));
        assert!(receiver.recv().await.unwrap().is_of_ways());
        drop(sender);
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn more_than_a_part_is_all() {
        let mut scope = Scope::ways();
        for index in 0..256 {
            scope.add(Scope::device(index));
        }
        assert!(!scope.is_whole());
        scope.add(Scope::namespace("/run/netns/web1".into()));
        assert_eq!(scope, Scope::whole());
    }

    #[test]
    fn a_namespace_is_known_by_the_last_part_of_any_of_its_paths() {
        let scope = Scope::namespace("/run/netns/web1".into());
        for (netns, concerned) in [
            ("/run/netns/web1", true),
            ("/var/run/netns/web1", true),
            ("web1", true),
            ("/run/netns/web2", false),
        ] {
            assert_eq!(scope.may_concern(Path::new(netns)), concerned, "{netns}");
        }
    }
}
