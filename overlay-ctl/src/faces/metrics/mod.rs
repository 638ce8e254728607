//! Metrics for Prometheus, over HTTP. They are read when they are asked for: between two scrapes they
//! cost nothing, and they can't be older than the answer.

mod readings;
mod traffic;

use crate::{control::controller::Controller, dataplane::datapath::DatapathError};
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
use traffic::Gone;

/// The one path.
const PATH: &str = "/metrics";
/// Who scrapes is a few; whoever holds connections open must not use up the node's descriptors.
const CONNECTIONS_MAX: usize = 32;
/// A client that takes longer to say what it wants, or keeps a connection without asking, is cut off.
/// Longer than the usual time between two scrapes, which then share a connection.
const REQUEST_DEADLINE: Duration = Duration::from_secs(90);
/// After an accept that failed, most likely for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there are no metrics now.
#[derive(Debug, thiserror::Error)]
enum MetricsError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error("the metrics can't be written down")]
    Encode(#[from] fmt::Error),
}

/// Answers scrapes until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    controller: Arc<Controller>,
    stop: CancellationToken,
) {
    let gone = Arc::default();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a scrape was not taken in");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (controller, stop) = (Arc::clone(&controller), stop.clone());
            let gone = Arc::clone(&gone);
            tokio::spawn(async move {
                let _place = place;
                let service = service_fn(|request| {
                    answer(Arc::clone(&controller), Arc::clone(&gone), request)
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_DEADLINE)
                    .serve_connection(TokioIo::new(stream), service);
                // How a connection ends is the client's business.
                drop(stop.run_until_cancelled(connection).await);
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
}

async fn answer(
    controller: Arc<Controller>,
    gone: Arc<Mutex<Gone>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, format!("metrics are at {PATH}\n")));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    // A system call for each entry of the maps: no work for a thread that others wait for.
    let scraped = tokio::task::spawn_blocking(move || scrape(&controller, &gone)).await;
    let failed = |why: String| {
        tracing::warn!(error = %why, "metrics can't be read");
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

fn scrape(controller: &Controller, gone: &Mutex<Gone>) -> Result<String, MetricsError> {
    // Held, so that scrapes that come at once count nobody's going twice.
    let mut gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
    let readings = Readings::take(controller, &mut gone)?;
    drop(gone);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(readings));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}
