//! Keeps the resolvers and resolv.conf files of a node as its [`Names`] want them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::watch, task::spawn_blocking};

use super::{
    files::{Files, netns_name},
    forward::Forwarder,
    server::Resolver,
    upstream::ResolvConf,
};
use crate::{dataplane::kernel::Names, error_chain};

/// The resolvers inside the namespaces of a node's endpoints. They stop when this is dropped; the
/// resolv.conf files stay for the node's next run, unless [`Resolvers::remove_files`] is called.
#[derive(Debug)]
pub struct Resolvers {
    names: watch::Sender<Arc<Names>>,
    forwarder: Arc<Forwarder>,
    running: BTreeMap<PathBuf, Resolver>,
    files: Files,
}

impl Resolvers {
    /// No resolver yet. `resolv_conf` is the file that names the host's resolvers (/etc/resolv.conf).
    /// `netns_folder` is the folder in which `ip netns exec` looks for a namespace's own files (/etc/netns).
    /// `node` distinguishes this node from others on the same machine, and is the same in each run.
    #[must_use]
    pub fn new(
        resolv_conf: impl Into<PathBuf>,
        netns_folder: impl Into<PathBuf>,
        node: &str,
    ) -> Self {
        Self {
            names: watch::Sender::new(Arc::default()),
            forwarder: Arc::new(Forwarder::new(ResolvConf::new(resolv_conf.into()))),
            running: BTreeMap::new(),
            files: Files::new(netns_folder.into(), node),
        }
    }

    /// [`Resolvers::answer`], then [`Resolvers::write_files`].
    pub async fn set(&mut self, names: Arc<Names>) -> Vec<String> {
        let mut trouble = self.answer(names).await;
        trouble.extend(self.write_files().await);
        trouble
    }

    /// Answers from `names` from now on, in the namespaces that it lists. Only the sockets of namespaces
    /// that changed are opened and closed. Must be called within a tokio runtime on a thread in the node's
    /// own network namespace.
    ///
    /// Returns the problems, a line each; the next call tries again. A namespace without a resolver does
    /// not hinder the others.
    pub async fn answer(&mut self, names: Arc<Names>) -> Vec<String> {
        self.names.send_replace(Arc::clone(&names));
        let stale = self.running.extract_if(.., |path, resolver| {
            let wanted = names.namespaces.get(path);
            wanted.is_none_or(|wanted| wanted.incarnation != resolver.incarnation)
                || !resolver.is_running()
        });
        for (_, resolver) in stale.collect::<Vec<_>>() {
            resolver.stop().await;
        }
        let mut trouble = Vec::new();
        for (path, namespace) in &names.namespaces {
            if self.running.contains_key(path) {
                continue;
            }
            let source = self.names.subscribe();
            let forwarder = Arc::clone(&self.forwarder);
            match Resolver::start(path, namespace.incarnation, source, forwarder) {
                Ok(resolver) => {
                    self.running.insert(path.clone(), resolver);
                }
                Err(error) => {
                    trouble.push(format!(
                        "{}: names are not resolved there: {}",
                        path.display(),
                        error_chain(&error)
                    ));
                }
            }
        }
        trouble
    }

    /// Writes the resolv.conf files of the namespaces that have a resolver, and removes the node's other
    /// files.
    ///
    /// Returns the problems, a line each; the next call tries again.
    pub async fn write_files(&mut self) -> Vec<String> {
        let wanted = self.running.keys().filter_map(|path| netns_name(path)).map(str::to_owned);
        self.sync_files(wanted.collect()).await
    }

    /// Removes every resolv.conf that the node wrote, because no resolver will answer any more.
    ///
    /// Returns the problems, a line each.
    pub async fn remove_files(&mut self) -> Vec<String> {
        self.sync_files(BTreeSet::new()).await
    }

    /// Number of resolvers that run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.values().filter(|resolver| resolver.is_running()).count()
    }

    /// Returns true if a resolver runs in the namespace at `path`.
    #[must_use]
    pub fn is_running(&self, path: &Path) -> bool {
        self.running.get(path).is_some_and(Resolver::is_running)
    }

    /// Number of questions that were not relayed to the host's resolvers, because too many were pending.
    #[must_use]
    pub fn over_limit(&self) -> u64 {
        self.forwarder.over_limit()
    }

    async fn sync_files(&mut self, wanted: BTreeSet<String>) -> Vec<String> {
        // The blocking pool gets a copy. If this future is dropped, the copy's changes are lost, and the
        // next call checks the same files again, which does no harm.
        let mut files = self.files.clone();
        let synced = spawn_blocking(move || {
            let trouble = files.sync(&wanted);
            (files, trouble)
        });
        match synced.await {
            Ok((files, trouble)) => {
                self.files = files;
                trouble
            }
            Err(error) => vec![format!("the resolv.conf files could not be written: {error}")],
        }
    }
}
