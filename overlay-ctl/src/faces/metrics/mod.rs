//! Metrics for Prometheus, over HTTP. They are read during each scrape, so that they cost nothing between
//! scrapes and are never out of date.

mod readings;
mod traffic;

use crate::{dataplane::datapath::DatapathError, faces::ServedNode};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::prometheus_text, registry::Registry};
use readings::Readings;
use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use traffic::FormerEndpoints;

/// The only path that is served.
const PATH: &str = "/metrics";
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

/// Answers scrapes until told to stop.
pub(crate) async fn serve(listener: TcpListener, node: Arc<ServedNode>, stop: CancellationToken) {
    let former = Arc::default();
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
            let (node, stop) = (Arc::clone(&node), stop.clone());
            let former = Arc::clone(&former);
            tokio::spawn(async move {
                let _place = place;
                let service =
                    service_fn(|request| answer(Arc::clone(&node), Arc::clone(&former), request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_DEADLINE)
                    .serve_connection(TokioIo::new(stream), service);
                // The end of a connection is not logged: the client may close it at any time.
                drop(stop.run_until_cancelled(connection).await);
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
}

async fn answer(
    node: Arc<ServedNode>,
    former: Arc<Mutex<FormerEndpoints>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, format!("metrics are at {PATH}\n")));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal =
            plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    // A scrape makes a system call for each entry of the maps, which would block an asynchronous thread.
    let scraped = tokio::task::spawn_blocking(move || scrape(&node, &former)).await;
    let failed = |why: String| {
        tracing::warn!(error = %why, "reading the metrics failed");
        plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"))
    };
    Ok(match scraped {
        Ok(Ok(text)) => {
            let mut answer = plain(StatusCode::OK, text);
            let kind = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Ok(Err(error)) => failed(crate::error_chain(&error)),
        Err(panic) => failed(panic.to_string()),
    })
}

fn plain(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn scrape(node: &ServedNode, former: &Mutex<FormerEndpoints>) -> Result<String, MetricsError> {
    // Locked during the reading, so that two scrapes at once do not add a former endpoint twice.
    let mut former = former.lock().unwrap_or_else(PoisonError::into_inner);
    let readings = Readings::take(node, &mut former)?;
    drop(former);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(readings));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}
