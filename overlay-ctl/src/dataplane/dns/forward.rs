//! Relays questions about names that no endpoint has to the host's resolvers, from the node's own network
//! namespace, and relays their answers back.
//!
//! A message is passed on byte for byte, except for its id. Therefore everything that clients and servers
//! may exchange goes through: future record types, EDNS options, signatures.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use hickory_proto::rr::Name;
use tokio::time::Instant;

use super::{
    ask::{Plan, Question, Reply, ask},
    counts::{Counts, Fate},
    loops::LoopChecks,
    memory::{Memory, Place, Share},
    message::{Request, Transport, set_id},
    pending::{Pending, Waiting, subject},
    servers::{Server, Servers},
    upstream::{ResolvConf, Upstreams},
};

/// Time for which it is said that too many questions were pending, and least time between two such lines of log.
const SAID: Duration = Duration::from_secs(60);

/// The way to the host's resolvers, shared by all namespaces of a node.
#[derive(Debug)]
pub(super) struct Forwarder {
    conf: ResolvConf,
    servers: Servers,
    memory: Arc<Memory>,
    rotation: AtomicUsize,
    checks: LoopChecks,
    counts: Arc<Counts>,
    /// When too many questions were pending last, and of which namespace.
    over_limit: Mutex<Option<(Instant, PathBuf)>>,
}

/// What one namespace has asked the host's resolvers.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    share: Share,
    pending: Pending,
}

/// A client's question that is to be relayed.
pub(super) struct Client<'a> {
    pub(super) message: Vec<u8>,
    pub(super) request: &'a Request,
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
}

impl Forwarder {
    /// `memory` is the number of bytes for all pending questions.
    pub(super) fn new(conf: ResolvConf, memory: usize) -> Self {
        Self {
            conf,
            servers: Servers::default(),
            memory: Memory::new(memory),
            rotation: AtomicUsize::new(0),
            checks: LoopChecks::default(),
            counts: Arc::default(),
            over_limit: Mutex::default(),
        }
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What the host's resolv.conf says.
    pub(super) fn upstreams(&self) -> Arc<Upstreams> {
        self.conf.upstreams()
    }

    /// Returns true if a question is one by which this node checks a server for a loop.
    pub(super) fn is_own_check(&self, name: &Name) -> bool {
        self.checks.is_own(name)
    }

    /// What is not as it should be, a line each.
    pub(super) fn trouble(&self) -> Vec<String> {
        let mut trouble = self.servers.trouble();
        let over = self.over_limit().clone().filter(|(at, _)| Instant::now() < *at + SAID);
        trouble.extend(over.map(|(_, namespace)| {
            let namespace = namespace.display();
            format!("{namespace}: more questions to the host's resolvers are pending than there is memory for: further ones get SERVFAIL")
        }));
        trouble
    }

    fn over_limit(&self) -> MutexGuard<'_, Option<(Instant, PathBuf)>> {
        self.over_limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory for a question of `len` bytes from `namespace`, whose answer by UDP may have `limit` bytes; `None` if too
    /// many are pending.
    pub(super) fn admit(
        &self,
        relayed: &Relayed,
        namespace: &Path,
        len: usize,
        limit: usize,
    ) -> Option<Place> {
        let place = self.memory.take(&relayed.share, len, limit);
        if place.is_none() {
            let now = Instant::now();
            let mut last = self.over_limit();
            if last.as_ref().is_none_or(|(at, _)| *at + SAID <= now) {
                tracing::warn!(
                    namespace = %namespace.display(),
                    "more questions to the host's resolvers are pending than there is memory for: further ones get SERVFAIL"
                );
            }
            *last = Some((now, namespace.to_owned()));
        }
        place
    }

    /// Asks the host's resolvers, or waits for their answer to an equal question. Returns the answer with the request's
    /// id.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) async fn relay(
        &self,
        relayed: &Relayed,
        place: Place,
        client: Client<'_>,
    ) -> Result<Vec<u8>, Fate> {
        let Client { message, request, transport, address } = client;
        let upstreams = self.conf.upstreams();
        let tcp = upstreams.tcp || transport == Transport::Tcp;
        let servers = self.servers.get(&upstreams.servers, tcp);
        let subject = subject(&request.query.name, request.query.query_type, tcp);
        // The id is not compared. A message has one, since it was read.
        let form = message.get(2..).unwrap_or_default().to_vec();
        let mut memory = Some(place);
        let begin = || {
            let question = Arc::new(Question {
                message,
                query: request.query.clone(),
                limit: request.limit(transport).into(),
            });
            let plan = self.plan(&upstreams, servers.clone());
            // Always there: this is called once at most.
            match memory.take() {
                Some(memory) => ask(plan, question, memory).boxed(),
                None => std::future::ready(Reply::Silence).boxed(),
            }
        };
        let waiting = relayed.pending.join(subject, &form, address, begin);
        let Some(Waiting { asked, is_repeated, ticket }) = waiting else { return Err(Fate::Loop) };
        if is_repeated {
            self.checks.begin(&servers, &request.query.name);
        }
        let reply = asked.await;
        drop(ticket);
        match reply {
            Reply::Answer(answer) => {
                let mut answer = Arc::unwrap_or_clone(answer);
                set_id(&mut answer, request.id());
                Ok(answer)
            }
            Reply::Silence => Err(Fate::Unanswered),
            Reply::Loop => Err(Fate::Loop),
        }
    }

    /// Whom to ask, and for how long: the servers in the order of the file, or the next one first where they take turns;
    /// behind them those that are known not to answer.
    fn plan(&self, upstreams: &Upstreams, mut servers: Vec<Arc<Server>>) -> Plan {
        if upstreams.rotate {
            let first = self.rotation.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
            servers.rotate_left(first);
        }
        let count = servers.len();
        servers.retain(|server| !server.is_looping());
        let has_loop = servers.len() < count;
        let share = upstreams.timeout / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
        let (mut ordered, held): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| !server.is_held());
        let (trials, last): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|server| !ordered.is_empty() && server.claim_trial());
        ordered.extend(last);
        Plan {
            servers: ordered,
            trials,
            has_loop,
            share,
            again: upstreams.timeout,
            total: upstreams.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn servers_are_asked_in_the_files_order_those_that_do_not_answer_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n")
            .unwrap();
        let forwarder = Forwarder::new(ResolvConf::new(path), 1 << 20);
        let upstreams = forwarder.upstreams();
        let servers = forwarder.servers.get(&upstreams.servers, false);
        let last = |servers: &[Arc<Server>]| -> Vec<u8> {
            let octet = |server: &Arc<Server>| match server.address {
                SocketAddr::V4(address) => address.ip().octets()[3],
                SocketAddr::V6(_) => 0,
            };
            servers.iter().map(octet).collect()
        };
        let plan = || {
            let plan = forwarder.plan(&upstreams, servers.clone());
            (last(&plan.servers), last(&plan.trials), plan.has_loop, plan.share.as_millis())
        };
        assert_eq!(plan(), (vec![1, 2, 3], vec![], false, 1666));
        servers[0].silent(Instant::now());
        assert_eq!(plan(), (vec![2, 3, 1], vec![], false, 1666));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(plan(), (vec![2, 3], vec![1], false, 1666), "it is tried beside the others");
        assert_eq!(plan(), (vec![2, 3, 1], vec![], false, 1666), "once");
        servers[1].loops();
        assert_eq!(plan(), (vec![3, 1], vec![], true, 2500));
        servers[2].silent(Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(plan(), (vec![1, 3], vec![], true, 2500), "no other one is left");
        servers[0].answered();
        assert_eq!(plan().0[0], 1);
    }
}
