//! Keeps the resolvers and resolv.conf files of a node as its [`Names`] want them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::watch, task::spawn_blocking};

use super::{
    client_conf::{ClientConf, nsswitch},
    counts::Counts,
    files::{Contents, Files, Kind, netns_name},
    forward::Forwarder,
    presence::Presence,
    server::Resolver,
    upstream::ResolvConf,
};
use crate::{dataplane::kernel::Names, error_chain};

/// Bytes for all questions that wait for an answer of the host's resolvers: some 8,000 questions.
const MEMORY_MAX: usize = 64 << 20;

/// The host's files, and how much the resolvers may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that names the host's resolvers (/etc/resolv.conf).
    pub resolv_conf: PathBuf,
    /// The file that says by which services the host's programs find names (/etc/nsswitch.conf).
    pub nsswitch: PathBuf,
    /// The folder in which `ip netns exec` looks for a namespace's own files (/etc/netns).
    pub netns_folder: PathBuf,
    /// Bytes for all questions that wait for an answer of the host's resolvers.
    pub memory: usize,
}

impl Settings {
    /// With the machine's nsswitch.conf and the usual memory.
    #[must_use]
    pub fn new(resolv_conf: impl Into<PathBuf>, netns_folder: impl Into<PathBuf>) -> Self {
        Self {
            resolv_conf: resolv_conf.into(),
            nsswitch: "/etc/nsswitch.conf".into(),
            netns_folder: netns_folder.into(),
            memory: MEMORY_MAX,
        }
    }
}

/// The resolvers inside the namespaces of a node's endpoints. They stop when this is dropped; the
/// resolv.conf files stay for the node's next run, unless [`Resolvers::remove_files`] is called.
#[derive(Debug)]
pub struct Resolvers {
    names: watch::Sender<Arc<Names>>,
    forwarder: Arc<Forwarder>,
    running: BTreeMap<PathBuf, Resolver>,
    presence: Option<Presence>,
    nsswitch: PathBuf,
    files: Files,
}

impl Resolvers {
    /// No resolver yet. `node` distinguishes this node from others on the same machine, and is the same in each run.
    #[must_use]
    pub fn new(settings: Settings, node: &str) -> Self {
        let Settings { resolv_conf, nsswitch, netns_folder, memory } = settings;
        Self {
            names: watch::Sender::new(Arc::default()),
            forwarder: Arc::new(Forwarder::new(ResolvConf::new(resolv_conf), memory)),
            running: BTreeMap::new(),
            presence: None,
            nsswitch,
            files: Files::new(netns_folder, node),
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
            wanted.is_none_or(|wanted| wanted.netns != resolver.netns) || !resolver.is_running()
        });
        for (_, resolver) in stale.collect::<Vec<_>>() {
            resolver.stop().await;
        }
        let mut trouble = Vec::new();
        let presence = self.presence.get_or_insert_with(Presence::watch);
        for (path, namespace) in &names.namespaces {
            if self.running.contains_key(path) {
                continue;
            }
            let source = self.names.subscribe();
            let forwarder = Arc::clone(&self.forwarder);
            let looks = presence.looks(path);
            match Resolver::start(path, namespace.netns, source, forwarder, looks) {
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

    /// Writes the files of the namespaces that have a resolver, and removes the node's other files.
    ///
    /// Returns the problems, a line each; the next call tries again.
    pub async fn write_files(&mut self) -> Vec<String> {
        let names = Arc::clone(&self.names.borrow());
        let has_outside =
            |path: &PathBuf| names.namespaces.get(path).is_some_and(|known| known.has_outside);
        let wanted = self.running.keys().filter_map(|path| {
            let name = netns_name(path)?;
            Some((name.to_owned(), has_outside(path)))
        });
        let host = self.forwarder.upstreams();
        self.sync_files(wanted.collect(), host.client.clone()).await
    }

    /// Removes every file that the node wrote, because no resolver will answer any more.
    ///
    /// Returns the problems, a line each.
    pub async fn remove_files(&mut self) -> Vec<String> {
        self.sync_files(BTreeMap::new(), ClientConf::default()).await
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

    /// What became of the questions so far.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        self.forwarder.counts()
    }

    /// What is done worse than it could be at the moment, a line each: names of endpoints are answered all the same.
    #[must_use]
    pub fn fallbacks(&self) -> Vec<String> {
        self.forwarder.trouble()
    }

    async fn sync_files(
        &mut self,
        namespaces: BTreeMap<String, bool>,
        host: ClientConf,
    ) -> Vec<String> {
        // The blocking pool gets a copy. If this future is dropped, the copy's changes are lost, and the
        // next call checks the same files again, which does no harm.
        let mut files = self.files.clone();
        let path = self.nsswitch.clone();
        let synced = spawn_blocking(move || {
            // Where there is no such file, the C library's own default asks no daemon.
            let services = fs::read(path).unwrap_or_default();
            let services = nsswitch(&String::from_utf8_lossy(&services));
            let contents = |has_outside| {
                let mut contents = Contents::new();
                contents.insert(Kind::ResolvConf, host.resolv_conf(has_outside));
                contents.extend(services.clone().map(|text| (Kind::Nsswitch, text)));
                contents
            };
            let wanted = namespaces.into_iter().map(|(name, outside)| (name, contents(outside)));
            let trouble = files.sync(&wanted.collect());
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
