//! The cluster's id and its generation on every call between nodes and on every answer.
//!
//! An address may belong to a node of another cluster tomorrow: hosts are rebuilt, leases of addresses
//! end. So the caller names its cluster, and a node refuses a call that names another one before the call has any effect.
//! The caller uses no answer that does not name its own cluster. Users name no cluster: they mean the node that they
//! call.
//!
//! A node of another generation of the same cluster is refused in the same way. One of an older generation may only ask who
//! this node is, and register: that is how it comes back.

use super::{CLUSTER, GENERATION, Generations};
use crate::model::Generation;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, StdError, http},
    transport::{Channel, server::TcpConnectInfo},
};
use uuid::Uuid;

/// Path prefix of the services that only nodes call.
const INTERNAL: &str = "/overlay.internal.";
/// The calls that a node of an older generation may make.
const COMES_BACK: [&str; 2] = ["/overlay.v1.Cluster/Join", "/overlay.v1.Cluster/Status"];
/// What is said of a node of another generation than the one it talks with, before the number of its generation.
pub const OF_GENERATION: &str = "is of generation";
/// How many other clusters are logged, once each. Further ones are refused without a line, so that a stranger can't fill
/// the log.
const LOGGED_MAX: usize = 32;

fn named(headers: &http::HeaderMap) -> Option<Uuid> {
    headers.get(CLUSTER)?.to_str().ok()?.parse().ok()
}

fn header(cluster: Uuid) -> http::HeaderValue {
    http::HeaderValue::from_str(&cluster.to_string())
        .unwrap_or_else(|_| unreachable!("a UUID is printable ASCII"))
}

/// The generation that the headers name.
fn generation(headers: &http::HeaderMap) -> Generation {
    let number = headers.get(GENERATION).and_then(|value| value.to_str().ok()?.parse().ok());
    Generation::from_wire(number.unwrap_or_default())
}

/// Names the cluster and its generation.
fn name(headers: &mut http::HeaderMap, cluster: Uuid, generation: Generation) {
    headers.insert(CLUSTER, header(cluster));
    headers.insert(GENERATION, generation.number().into());
}

/// The addresses at which another cluster answered, so that each is logged once. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<BTreeMap<SocketAddr, Stranger>>>);

/// What answers at an address: a cluster, if it names one, and its generation.
type Stranger = Option<(Uuid, Generation)>;

impl Strangers {
    fn lock<T>(&self, with: impl FnOnce(&mut BTreeMap<SocketAddr, Stranger>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets the addresses that are not asked any more.
    pub(super) fn retain(&self, asked: impl Fn(SocketAddr) -> bool) {
        self.lock(|met| met.retain(|address, _| asked(*address)));
    }

    /// Fails unless the answer from `address` names the cluster `ours`, and a generation that is not older than `at_least`.
    fn check(
        &self,
        address: SocketAddr,
        (ours, at_least): (Uuid, Generation),
        theirs: Stranger,
    ) -> Result<(), Status> {
        if let Some((cluster, generation)) = theirs
            && cluster == ours
            && generation >= at_least
        {
            if self.lock(|met| met.remove(&address)).is_some() {
                tracing::info!(%address, "a node of this cluster answers there again");
            }
            return Ok(());
        }
        let is_news = self.lock(|met| met.insert(address, theirs)) != Some(theirs);
        let text = match theirs {
            Some((theirs, generation)) if theirs == ours => {
                if is_news {
                    tracing::warn!(
                        %address, ours = %at_least, theirs = %generation,
                        "a node of an older generation of the cluster answers: its answers are not used, and it has to rejoin"
                    );
                }
                format!(
                    "the node at {address} {OF_GENERATION} {generation} of the cluster, and this node of generation {at_least}"
                )
            }
            Some((theirs, _)) => {
                if is_news {
                    tracing::warn!(
                        %address, %ours, %theirs,
                        "a node of another cluster answers at the address of a node of this one: its answers are not used; give one of the two another address"
                    );
                }
                format!("the node at {address} is of cluster {theirs}, and this node of {ours}")
            }
            None => {
                if is_news {
                    tracing::warn!(
                        %address, %ours,
                        "what answers at the address of a node of this cluster names no cluster: its answers are not used; it may run another version"
                    );
                }
                format!("what answers at {address} does not say that it is of cluster {ours}")
            }
        };
        // The call had no effect there: other nodes can be asked.
        Err(Status::unavailable(text))
    }
}

/// A connection to a node of the cluster. An answer that does not name the cluster, or another generation of it, is refused.
#[derive(Clone)]
pub struct PeerChannel {
    channel: Channel,
    address: SocketAddr,
    cluster: Uuid,
    generations: Generations,
    strangers: Strangers,
    takes_newer: bool,
}

impl PeerChannel {
    pub(super) fn new(
        channel: Channel,
        address: SocketAddr,
        cluster: Uuid,
        generations: Generations,
        strangers: Strangers,
    ) -> Self {
        Self { channel, address, cluster, generations, strangers, takes_newer: false }
    }

    /// The same connection, on which an answer of a newer generation is used, too.
    pub(super) fn or_newer(self) -> Self {
        Self { takes_newer: true, ..self }
    }
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.channel.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Self { address, cluster, generations, strangers, takes_newer, .. } = self.clone();
        name(request.headers_mut(), cluster, generations.ours());
        let call = self.channel.call(request);
        Box::pin(async move {
            let answer = call.await?;
            let headers = answer.headers();
            let theirs = named(headers).map(|cluster| (cluster, generation(headers)));
            let ours = generations.ours();
            strangers.check(address, (cluster, ours), theirs)?;
            if let Some((_, theirs)) = theirs
                && generations.compare(theirs, Some(address)) == Ordering::Greater
                && !takes_newer
            {
                // The node there has refused the call.
                return Err(Status::unavailable(format!(
                    "the node at {address} {OF_GENERATION} {theirs} of the cluster, and this node of generation {ours}: the cluster was restored or recovered"
                ))
                .into());
            }
            Ok(answer)
        })
    }
}

/// In front of all services of a node: refuses what is meant for another cluster or for another generation of this one, and
/// names both in each answer.
#[derive(Clone)]
pub struct Admission {
    cluster: Uuid,
    generations: Generations,
    logged: Arc<Mutex<BTreeSet<(Uuid, Generation)>>>,
}

impl Admission {
    /// The admission of a node of `cluster`. `generations` are shared with the directory of the node.
    #[must_use]
    pub fn new(cluster: Uuid, generations: Generations) -> Self {
        Self { cluster, generations, logged: Arc::default() }
    }

    fn check<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let ours = self.cluster;
        let headers = request.headers();
        if !headers.contains_key(CLUSTER) {
            if request.uri().path().starts_with(INTERNAL) {
                return Err(Status::permission_denied(format!(
                    "a node's call names its cluster, and this one does not; this is a node of cluster {ours}"
                )));
            }
            return Ok(());
        }
        let theirs = named(headers);
        if theirs == Some(ours) {
            return self.check_generation(request);
        }
        if let Some(theirs) = theirs
            && self.is_news(theirs, Generation::FIRST)
        {
            let from = from(request).map(|from| from.to_string());
            tracing::warn!(
                from, %ours, %theirs,
                "a node of another cluster calls this one: its calls are refused; it knows this node's address as that of a node of its own"
            );
        }
        let theirs =
            theirs.map_or_else(|| "another cluster".to_owned(), |id| format!("cluster {id}"));
        Err(Status::permission_denied(format!("this is a node of cluster {ours}, not of {theirs}")))
    }

    /// Refuses a node of another generation of this cluster, unless it is of an older one and comes back.
    fn check_generation<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let (ours, theirs) = (self.generations.ours(), generation(request.headers()));
        let from = from(request);
        match self.generations.compare(theirs, from) {
            Ordering::Equal => Ok(()),
            Ordering::Less if COMES_BACK.contains(&request.uri().path()) => Ok(()),
            Ordering::Less => {
                if self.is_news(self.cluster, theirs) {
                    let from = from.map(|from| from.to_string());
                    tracing::warn!(from, %ours, %theirs, "a node of an older generation of the cluster calls: it is told to rejoin");
                }
                Err(Status::permission_denied(format!(
                    "this node {OF_GENERATION} {ours} of the cluster, and the caller is of the older generation {theirs}: the cluster was restored or recovered since, and the caller has to rejoin"
                )))
            }
            Ordering::Greater => Err(Status::permission_denied(format!(
                "this node {OF_GENERATION} {ours} of the cluster, older than the caller's, {theirs}: this node has to rejoin"
            ))),
        }
    }

    fn is_news(&self, theirs: Uuid, generation: Generation) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < LOGGED_MAX && logged.insert((theirs, generation))
    }
}

/// Where a call comes from, if it came over TCP.
fn from<B>(request: &http::Request<B>) -> Option<SocketAddr> {
    request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}

impl<S> tower::Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// Services behind an [`Admission`].
#[derive(Clone)]
pub struct Admitted<S> {
    inner: S,
    admission: Admission,
}

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Admission { cluster, ref generations, .. } = self.admission;
        let generation = generations.ours();
        let name = move |mut answer: http::Response<Body>| {
            name(answer.headers_mut(), cluster, generation);
            answer
        };
        if let Err(refusal) = self.admission.check(&request) {
            return Box::pin(std::future::ready(Ok(name(refusal.into_http()))));
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(name(answer.await?)) })
    }
}
