//! What the node tells over plain HTTP: its metrics for Prometheus, and, for those who look after it, whether it lives and
//! whether it is ready.
//!
//! Metrics are read during each scrape, so that they cost nothing between scrapes and are never out of date.

mod alarms;
mod raft;
mod readings;
mod traffic;

use crate::{
    dataplane::datapath::DatapathError,
    faces::{ServedNode, Service, troubles},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::{encoding::prometheus_text, registry::Registry};
use readings::Readings;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use traffic::FormerEndpoints;

/// What is said of any other path.
const PATHS: &str = "there are /metrics, /readyz and /livez\n";
/// Greatest number of connections. Few programs scrape, and a client that keeps many connections open must
/// not use up the node's descriptors.
const CONNECTIONS_MAX: usize = 32;
/// Longest time to wait for a whole request, and for the next request on a connection. It is longer than the
/// usual time between two scrapes, so that these share a connection.
const REQUEST_DEADLINE: Duration = Duration::from_secs(90);
/// Pause after a failed accept; the likely cause is a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The reason why a scrape failed.
#[derive(Debug, thiserror::Error)]
enum MetricsError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error("the metrics could not be encoded")]
    Encode(#[from] fmt::Error),
}

/// What requests are answered from.
#[derive(Clone)]
struct Source {
    node: Arc<ServedNode>,
    former: Arc<Mutex<FormerEndpoints>>,
}

/// Answers requests until told to stop.
///
/// axum finds the answer to a request. It does not accept the connections: `axum::serve` bounds neither their number nor
/// the time that a request may take to arrive.
pub(crate) async fn serve(listener: TcpListener, node: Arc<ServedNode>, stop: CancellationToken) {
    let paths = Router::new()
        .route("/metrics", get(metrics))
        .route("/readyz", get(is_ready))
        .route("/livez", get(lives))
        .fallback(async || (StatusCode::NOT_FOUND, PATHS))
        .with_state(Source { node, former: Arc::default() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a scrape's connection failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (paths, stop) = (TowerToHyperService::new(paths.clone()), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_DEADLINE)
                    .serve_connection(TokioIo::new(stream), paths);
                // The end of a connection is not logged: the client may close it at any time.
                drop(stop.run_until_cancelled(connection).await);
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
}

/// Says that the process answers. It depends on nothing else, since a restart mends nothing else.
async fn lives() -> &'static str {
    "alive\n"
}

/// Says whether the node is ready; if it is not, each reason on a line of its own.
async fn is_ready(State(source): State<Source>) -> (StatusCode, String) {
    let troubles = troubles(Service::Node, &source.node.facts());
    if troubles.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let lines: String = troubles.iter().map(|trouble| format!("not ready: {trouble}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

async fn metrics(State(Source { node, former }): State<Source>) -> Response {
    // A disk that hangs must not keep what all scrapes wait for.
    let free = node.disk.read().await.free();
    // A scrape makes a system call for each entry of the maps, which would block an asynchronous thread.
    let scraped = tokio::task::spawn_blocking(move || scrape(&node, &former, free)).await;
    let failed = |why: String| {
        tracing::warn!(error = %why, "reading the metrics failed");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response()
    };
    match scraped {
        Ok(Ok(text)) => ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(crate::error_chain(&error)),
        Err(panic) => failed(panic.to_string()),
    }
}

fn scrape(
    node: &ServedNode,
    former: &Mutex<FormerEndpoints>,
    free: Option<u64>,
) -> Result<String, MetricsError> {
    // Locked during the reading, so that two scrapes at once do not add a former endpoint twice.
    let mut former = former.lock().unwrap_or_else(PoisonError::into_inner);
    let readings = Readings::take(node, &mut former, free)?;
    drop(former);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(readings));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}
