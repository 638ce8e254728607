//! All resolvers of a node, made to be what the names say.

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

/// The resolvers inside the namespaces of a node's endpoints. Dropped, they are silent; the
/// resolv.conf files stay for the node's next run, unless [`Resolvers::remove_files`] is called.
#[derive(Debug)]
pub struct Resolvers {
    names: watch::Sender<Arc<Names>>,
    forwarder: Arc<Forwarder>,
    running: BTreeMap<PathBuf, Resolver>,
    files: Files,
}

impl Resolvers {
    /// None yet. `resolv_conf` names the host's resolvers (/etc/resolv.conf), `netns_folder` is where
    /// `ip netns exec` looks for a namespace's own files (/etc/netns), and `node` is what tells this
    /// node from others on the same machine, run after run.
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

    /// Answers from `names` from now on, in the namespaces that it lists. Sockets are opened and
    /// closed by difference. Must be called within a tokio runtime on a thread in the node's own
    /// network namespace.
    ///
    /// Returns what stands in the way, a line each; it is tried again by the next call. A namespace
    /// without a resolver does not hinder the others.
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
                    trouble.push(format!("{}: no names: {}", path.display(), error_chain(&error)));
                }
            }
        }
        trouble
    }

    /// Leads the programs of the namespaces that have a resolver to it, and removes every other file of
    /// ours.
    ///
    /// Returns what stands in the way, a line each; it is tried again by the next call.
    pub async fn write_files(&mut self) -> Vec<String> {
        let wanted = self.running.keys().filter_map(|path| netns_name(path)).map(str::to_owned);
        self.sync_files(wanted.collect()).await
    }

    /// Removes every resolv.conf that is ours: no resolver is going to answer any more.
    ///
    /// Returns what stands in the way, a line each.
    pub async fn remove_files(&mut self) -> Vec<String> {
        self.sync_files(BTreeSet::new()).await
    }

    /// How many answer.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.values().filter(|resolver| resolver.is_running()).count()
    }

    /// Whether one answers in the namespace at `path`.
    #[must_use]
    pub fn is_running(&self, path: &Path) -> bool {
        self.running.get(path).is_some_and(Resolver::is_running)
    }

    /// Questions that were not handed to the host's resolvers since too many were under way.
    #[must_use]
    pub fn over_limit(&self) -> u64 {
        self.forwarder.over_limit()
    }

    async fn sync_files(&mut self, wanted: BTreeSet<String>) -> Vec<String> {
        // A copy goes to the blocking pool: were this future dropped, files seen twice do no harm.
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
