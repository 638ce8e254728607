//! The answering of one namespace's questions.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::op::ResponseCode;
use tokio::sync::watch;

use super::{
    counts::Fate,
    forward::{Client, Forwarder, Relayed},
    lookup::{Answer, Decision, decide},
    memory::Place,
    message::{Request, Transport, Unfit, header_only},
};
use crate::dataplane::kernel::{Names, Namespace};

/// Number of counters by which the answers for names of several endpoints are rotated.
const ROTATIONS: usize = 64;

/// The names that one namespace may see.
#[derive(Debug, Clone)]
struct View {
    source: watch::Receiver<Arc<Names>>,
    path: PathBuf,
    names: Arc<Names>,
    namespace: Namespace,
}

impl View {
    fn new(source: watch::Receiver<Arc<Names>>, path: &Path) -> Self {
        let mut view = Self {
            source,
            path: path.to_owned(),
            names: Arc::default(),
            namespace: Namespace::default(),
        };
        view.read();
        view
    }

    fn read(&mut self) {
        self.names = Arc::clone(&self.source.borrow_and_update());
        self.namespace = self.names.namespaces.get(&self.path).cloned().unwrap_or_default();
    }

    /// The newest names. Costs one atomic load if they did not change.
    fn refresh(&mut self) -> (&Names, &Namespace) {
        if self.source.has_changed().unwrap_or(false) {
            self.read();
        }
        (&self.names, &self.namespace)
    }
}

/// What the sockets of one namespace share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    forwarder: Arc<Forwarder>,
    relayed: Relayed,
    /// Indexed by the hash of the name, so that a name's answers are rotated even if other names are asked
    /// for in between.
    rotations: [AtomicUsize; ROTATIONS],
}

/// The answering of one namespace's questions.
#[derive(Debug, Clone)]
pub(super) struct Responder {
    view: View,
    shared: Arc<Shared>,
}

/// The result of handling a message.
pub(super) enum Outcome {
    /// The answer is written.
    Reply,
    /// The message gets no answer.
    Silence,
    /// The message is to be relayed.
    Relay(Box<Relay>),
}

/// A question that is to be relayed.
pub(super) struct Relay {
    shared: Arc<Shared>,
    place: Place,
    message: Vec<u8>,
    request: Request,
    transport: Transport,
    client: SocketAddr,
}

impl Responder {
    /// Answers in the namespace at `path`, from `names`.
    pub(super) fn new(
        names: watch::Receiver<Arc<Names>>,
        path: &Path,
        forwarder: Arc<Forwarder>,
    ) -> Self {
        let shared = Shared {
            path: path.to_owned(),
            forwarder,
            relayed: Relayed::default(),
            rotations: [const { AtomicUsize::new(0) }; ROTATIONS],
        };
        Self { view: View::new(names, path), shared: Arc::new(shared) }
    }

    /// Handles a message from `client`.
    pub(super) fn handle(
        &mut self,
        message: &[u8],
        client: SocketAddr,
        transport: Transport,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        let Shared { path, forwarder, relayed, .. } = &*self.shared;
        let counts = forwarder.counts();
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(Unfit::Ignore) => return Outcome::Silence,
            Err(Unfit::Reply(header, code)) => {
                counts.add(Fate::Unsupported);
                header_only(&header, code, reply);
                return Outcome::Reply;
            }
        };
        if request.bad_version() {
            counts.add(Fate::Unsupported);
            request.error(ResponseCode::BADVERS, transport, reply);
            return Outcome::Reply;
        }
        if forwarder.is_own_check(&request.query.name) {
            request.error(ResponseCode::NXDomain, transport, reply);
            return Outcome::Reply;
        }
        let (names, namespace) = self.view.refresh();
        let decision = decide(names, &namespace.networks, &request.query);
        let limit = match transport {
            Transport::Udp => request.limit(transport).into(),
            // The buffer is as long as the answer turns out to be.
            Transport::Tcp => 0,
        };
        let fate = match decision {
            Decision::Forward if !namespace.has_outside => {
                counts.add(Fate::Refused);
                request.stays_inside(transport, reply);
                return Outcome::Reply;
            }
            Decision::Forward => match forwarder.admit(relayed, path, message.len(), limit) {
                Some(place) => {
                    return Outcome::Relay(Box::new(Relay {
                        shared: Arc::clone(&self.shared),
                        place,
                        message: message.to_vec(),
                        request,
                        transport,
                        client,
                    }));
                }
                None => Fate::OverLimit,
            },
            Decision::Unsupported => Fate::Unsupported,
            Decision::Answer(_) | Decision::NoData(_) | Decision::NxDomain(_) => Fate::Answered,
        };
        counts.add(fate);
        let rotation = match decision {
            Decision::Answer(Answer::Addresses([_, _, ..])) => self.shared.next_rotation(&request),
            _ => 0,
        };
        request.answer(decision, rotation, transport, reply);
        Outcome::Reply
    }
}

impl Shared {
    fn next_rotation(&self, request: &Request) -> usize {
        // FNV-1a of the name in lower case.
        let hash =
            request.query.name.iter().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
                (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
            });
        let slot = usize::try_from(hash % (ROTATIONS as u64)).unwrap_or(0);
        self.rotations[slot].fetch_add(1, Ordering::Relaxed)
    }
}

impl Relay {
    /// The answer of the host's resolvers, or SERVFAIL if there is none.
    pub(super) async fn run(self) -> Vec<u8> {
        let Self { shared, place, message, request, transport, client } = self;
        let Shared { forwarder, relayed, .. } = &*shared;
        let question = Client { message, request: &request, transport, address: client };
        let answer = forwarder.relay(relayed, place, question).await;
        forwarder.counts().add(answer.as_ref().map_or_else(|fate| *fate, |_| Fate::Relayed));
        let mut reply = Vec::new();
        match answer {
            Ok(answer) if answer.len() > request.limit(transport).into() => {
                request.truncated(&answer, &mut reply);
            }
            Ok(answer) => reply = answer,
            Err(_) => request.error(ResponseCode::ServFail, transport, &mut reply),
        }
        reply
    }
}
