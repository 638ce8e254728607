//! The cluster's id on every call between nodes and on every answer.
//!
//! An address may belong to a node of another cluster tomorrow: hosts are rebuilt, leases of addresses
//! end. So the caller names its cluster, and a node refuses a call that names another one before the call has any effect.
//! The caller uses no answer that does not name its own cluster. Users name no cluster: they mean the node that they
//! call.

use super::CLUSTER;
use std::{
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

/// The addresses at which another cluster answered, so that each is logged once. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<BTreeMap<SocketAddr, Option<Uuid>>>>);

impl Strangers {
    fn lock<T>(&self, with: impl FnOnce(&mut BTreeMap<SocketAddr, Option<Uuid>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets the addresses that are not asked any more.
    pub(super) fn retain(&self, asked: impl Fn(SocketAddr) -> bool) {
        self.lock(|met| met.retain(|address, _| asked(*address)));
    }

    /// Fails unless the answer from `address` names the cluster `ours`.
    fn check(&self, address: SocketAddr, ours: Uuid, theirs: Option<Uuid>) -> Result<(), Status> {
        if theirs == Some(ours) {
            if self.lock(|met| met.remove(&address)).is_some() {
                tracing::info!(%address, "a node of this cluster answers there again");
            }
            return Ok(());
        }
        let is_news = self.lock(|met| met.insert(address, theirs)) != Some(theirs);
        let text = match theirs {
            Some(theirs) => {
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

/// A connection to a node of the cluster. An answer that does not name the cluster is refused.
#[derive(Clone)]
pub struct PeerChannel {
    channel: Channel,
    address: SocketAddr,
    cluster: Uuid,
    strangers: Strangers,
}

impl PeerChannel {
    pub(super) fn new(
        channel: Channel,
        address: SocketAddr,
        cluster: Uuid,
        strangers: Strangers,
    ) -> Self {
        Self { channel, address, cluster, strangers }
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
        let Self { address, cluster, strangers, .. } = self.clone();
        request.headers_mut().insert(CLUSTER, header(cluster));
        let call = self.channel.call(request);
        Box::pin(async move {
            let answer = call.await?;
            strangers.check(address, cluster, named(answer.headers()))?;
            Ok(answer)
        })
    }
}

/// In front of all services of a node: refuses what is meant for another cluster, and names this one in
/// each answer.
#[derive(Clone)]
pub struct Admission {
    cluster: Uuid,
    logged: Arc<Mutex<BTreeSet<Uuid>>>,
}

impl Admission {
    /// The admission of a node of `cluster`.
    #[must_use]
    pub fn new(cluster: Uuid) -> Self {
        Self { cluster, logged: Arc::default() }
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
            return Ok(());
        }
        if let Some(theirs) = theirs
            && self.is_news(theirs)
        {
            let from = request.extensions().get::<TcpConnectInfo>();
            let from = from.and_then(TcpConnectInfo::remote_addr).map(|from| from.to_string());
            tracing::warn!(
                from, %ours, %theirs,
                "a node of another cluster calls this one: its calls are refused; it knows this node's address as that of a node of its own"
            );
        }
        let theirs =
            theirs.map_or_else(|| "another cluster".to_owned(), |id| format!("cluster {id}"));
        Err(Status::permission_denied(format!("this is a node of cluster {ours}, not of {theirs}")))
    }

    fn is_news(&self, theirs: Uuid) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < LOGGED_MAX && logged.insert(theirs)
    }
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
        let cluster = header(self.admission.cluster);
        let name = move |mut answer: http::Response<Body>| {
            answer.headers_mut().insert(CLUSTER, cluster);
            answer
        };
        if let Err(refusal) = self.admission.check(&request) {
            return Box::pin(std::future::ready(Ok(name(refusal.into_http()))));
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(name(answer.await?)) })
    }
}
