//! Metrics for Prometheus, over HTTP. They are read when they are asked for: between two scrapes they
//! cost nothing, and they can't be older than the answer.

use crate::{
    api::Controller,
    consensus::Role,
    datapath::{DatapathError, MapUsage},
    model::Revision,
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use overlay_common::{Counter, Direction, DropReason};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::{convert::Infallible, fmt, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

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
pub(super) async fn serve(
    listener: TcpListener,
    controller: Arc<Controller>,
    stop: CancellationToken,
) {
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
            tokio::spawn(async move {
                let _place = place;
                let service = service_fn(|request| answer(Arc::clone(&controller), request));
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
    let scraped = tokio::task::spawn_blocking(move || scrape(&controller)).await;
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

fn scrape(controller: &Controller) -> Result<String, MetricsError> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Readings::take(controller)?));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// What one scrape sees.
#[derive(Debug)]
struct Readings {
    counters: Vec<(Option<DropReason>, Direction, Counter)>,
    maps: Vec<MapUsage>,
    revision: Revision,
    programmed: Revision,
    is_leader: bool,
    endpoints: EndpointCounts,
}

/// This node's endpoints.
#[derive(Debug, Default)]
struct EndpointCounts {
    up: u64,
    down: u64,
    /// The reconciler has said nothing of them yet.
    pending: u64,
}

impl Readings {
    fn take(controller: &Controller) -> Result<Self, DatapathError> {
        let datapath = controller.datapath.lock();
        let (counters, reader) = (datapath.counters()?, datapath.reader());
        drop(datapath);
        let maps = reader.usage()?;
        let view = controller.view.borrow().clone();
        let status = controller.status.borrow().clone();
        let mut endpoints = EndpointCounts::default();
        let all = view.iter().flat_map(|view| view.all_endpoints());
        for endpoint in all.filter(|endpoint| endpoint.node() == Some(controller.id)) {
            match status.endpoints.get(&endpoint.id) {
                None => endpoints.pending += 1,
                Some(health) if health.down.is_none() => endpoints.up += 1,
                Some(_) => endpoints.down += 1,
            }
        }
        let is_leader = controller
            .voter
            .as_ref()
            .is_some_and(|voter| voter.consensus.status().borrow().role == Role::Leader);
        Ok(Self {
            counters,
            maps,
            revision: view.map_or(0, |view| view.revision),
            programmed: status.programmed,
            is_leader,
            endpoints,
        })
    }

    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Counter) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, direction, counter) in &self.counters {
            let (verdict, reason) = match reason {
                None => ("forwarded", ""),
                Some(reason) => ("dropped", reason.name()),
            };
            let labels =
                [("direction", direction.name()), ("verdict", verdict), ("reason", reason)];
            ConstCounter::new(value(counter)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn maps(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&MapUsage) -> u32,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for map in &self.maps {
            let labels = [("map", map.name)];
            ConstGauge::new(value(map)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let counted = "since the maps were made, by direction, verdict and reason of the drop";
        let packets = format!("Packets {counted}");
        self.counter(encoder, "overlay_packets", &packets, |counter| counter.packets)?;
        let bytes = format!("Bytes {counted}");
        self.counter(encoder, "overlay_bytes", &bytes, |counter| counter.bytes)?;
        let entries = "Entries in a BPF map";
        self.maps(encoder, "overlay_map_entries", entries, |map| map.entries)?;
        let capacity = "Entries that fit into a BPF map";
        self.maps(encoder, "overlay_map_capacity", capacity, |map| map.capacity)?;

        let single = [
            ("overlay_revision", "Revision of the state that the node knows", self.revision),
            ("overlay_programmed_revision", "Revision that the kernel holds", self.programmed),
            ("overlay_is_leader", "1 on the node that leads the voters", self.is_leader.into()),
        ];
        for (name, help, value) in single {
            gauge(value, encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let EndpointCounts { up, down, pending } = self.endpoints;
        let help = "Endpoints on this node, by state";
        let mut family =
            encoder.encode_descriptor("overlay_endpoints", help, None, MetricType::Gauge)?;
        for (state, count) in [("up", up), ("down", down), ("pending", pending)] {
            gauge(count, family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

fn gauge(value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    ConstGauge::new(value).encode(encoder)
}
