//! The traffic of the endpoints of this node that have counters of their own, and of their networks.

use crate::{
    faces::ServedNode,
    model::{EndpointId, NetworkId},
};
use overlay_common::{Counter, Traffic};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One endpoint's counters.
#[derive(Clone, Debug)]
struct EndpointTraffic {
    network: NetworkId,
    name: String,
    network_name: String,
    sent: Counter,
    received: Counter,
    dropped: Counter,
}

/// The sums of a network's endpoints on this node.
#[derive(Clone, Copy, Debug, Default)]
struct NetworkTraffic {
    sent: Counter,
    received: Counter,
    dropped: Counter,
}

/// The traffic that one scrape reports. It has at most as many endpoints as TRAFFIC has slots, so that the
/// scrape stays below two megabytes.
#[derive(Debug, Default)]
pub(super) struct TrafficReadings {
    endpoints: BTreeMap<EndpointId, EndpointTraffic>,
    networks: BTreeMap<String, NetworkTraffic>,
    /// Number of endpoints of this node that have no slot of their own.
    pub(super) uncounted: u64,
}

/// The counts of endpoints that are gone, and those of the last scrape, so that the sums of networks never
/// decrease.
#[derive(Debug, Default)]
pub(super) struct FormerEndpoints {
    last: BTreeMap<EndpointId, EndpointTraffic>,
    networks: BTreeMap<NetworkId, NetworkTraffic>,
}

impl TrafficReadings {
    pub(super) fn take(node: &ServedNode, former: &mut FormerEndpoints) -> Self {
        let mut readings = Self::default();
        let Some(view) = node.view.borrow().clone() else { return readings };
        let Some(plane) = node.data_plane.get() else { return readings };
        let status = node.status.borrow().clone();
        let own = view.all_endpoints().filter(|e| e.node() == Some(node.controller.id()));
        for endpoint in own {
            let Some(network) = view.networks.get(&endpoint.network) else { continue };
            let Some(health) = status.endpoints.get(&endpoint.id) else { continue };
            let Some(port) = plane.whereabouts.port(health.ifindex) else { continue };
            let Some(traffic) = plane.whereabouts.traffic(port.slot) else {
                readings.uncounted += 1;
                continue;
            };
            let Traffic { sent, received, from_neighbours, dropped } = traffic;
            let counted = EndpointTraffic {
                network: network.id,
                name: endpoint.name.to_string(),
                network_name: network.name.to_string(),
                sent,
                received: add(received, from_neighbours),
                dropped,
            };
            readings.endpoints.insert(endpoint.id, counted);
        }
        let networks: BTreeSet<NetworkId> = view.networks.keys().copied().collect();
        readings.networks = former.sum(&readings.endpoints, &networks, |id| {
            view.networks.get(&id).map(|network| network.name.to_string())
        });
        readings
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Value = fn(&Counter) -> u64;
        let values: [(&str, &str, Value); 2] = [
            ("packets", "Packets", |counter| counter.packets),
            ("bytes", "Bytes", |counter| counter.bytes),
        ];
        for (name, title, value) in values {
            let both = |sent, received| {
                [("sent", sent), ("received", received)]
                    .map(|(direction, counter)| (Some(direction), value(counter)))
            };
            let help = format!("{title} of an endpoint of this node on its network");
            family(encoder, &format!("overlay_endpoint_{name}"), &help, || {
                let each = self.endpoints.values().map(|endpoint| {
                    (endpoint.labels(), both(&endpoint.sent, &endpoint.received).to_vec())
                });
                each.collect()
            })?;
            let help = format!("{title} of a network's endpoints on this node");
            family(encoder, &format!("overlay_network_{name}"), &help, || {
                let each = self.networks.iter().map(|(network, sums)| {
                    (network_label(network), both(&sums.sent, &sums.received).to_vec())
                });
                each.collect()
            })?;
        }
        let help = "Packets that an endpoint of this node sent and that were dropped";
        family(encoder, "overlay_endpoint_dropped_packets", help, || {
            let each = self.endpoints.values();
            each.map(|endpoint| (endpoint.labels(), vec![(None, endpoint.dropped.packets)]))
                .collect()
        })?;
        let help = "Packets that a network's endpoints on this node sent and that were dropped";
        family(encoder, "overlay_network_dropped_packets", help, || {
            let each = self.networks.iter();
            each.map(|(network, sums)| (network_label(network), vec![(None, sums.dropped.packets)]))
                .collect()
        })
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;
/// Values of one member of a family, with their directions if it has directions.
type Values = Vec<(Option<&'static str>, u64)>;

fn network_label(network: &str) -> Labels<'_> {
    vec![("network", network)]
}

fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    members: impl FnOnce() -> Vec<(Labels<'a>, Values)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, values) in members() {
        for (direction, value) in values {
            let mut labels = labels.clone();
            labels.extend(direction.map(|direction| ("direction", direction)));
            ConstCounter::new(value).encode(family.encode_family(&labels.as_slice())?)?;
        }
    }
    Ok(())
}

impl EndpointTraffic {
    fn labels(&self) -> Labels<'_> {
        vec![("endpoint", &self.name), ("network", &self.network_name)]
    }
}

impl FormerEndpoints {
    /// The counts of each network: the sum of its present endpoints and of those that were present at an
    /// earlier scrape.
    fn sum(
        &mut self,
        now: &BTreeMap<EndpointId, EndpointTraffic>,
        networks: &BTreeSet<NetworkId>,
        name: impl Fn(NetworkId) -> Option<String>,
    ) -> BTreeMap<String, NetworkTraffic> {
        for (id, last) in std::mem::replace(&mut self.last, now.clone()) {
            // An endpoint whose port was replaced counts from zero again.
            if now.get(&id).is_none_or(|now| now.sent.packets < last.sent.packets) {
                add_to(self.networks.entry(last.network).or_default(), &last);
            }
        }
        self.networks.retain(|id, _| networks.contains(id));
        let mut sums = self.networks.clone();
        for counted in now.values() {
            add_to(sums.entry(counted.network).or_default(), counted);
        }
        sums.into_iter().filter_map(|(id, counters)| Some((name(id)?, counters))).collect()
    }
}

fn add_to(sums: &mut NetworkTraffic, counted: &EndpointTraffic) {
    *sums = NetworkTraffic {
        sent: add(sums.sent, counted.sent),
        received: add(sums.received, counted.received),
        dropped: add(sums.dropped, counted.dropped),
    };
}

fn add(a: Counter, b: Counter) -> Counter {
    Counter { packets: a.packets.wrapping_add(b.packets), bytes: a.bytes.wrapping_add(b.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(packets: u64) -> EndpointTraffic {
        let counter = |packets| Counter { packets, bytes: 100 * packets };
        EndpointTraffic {
            network: 1,
            name: "web1".to_owned(),
            network_name: "net".to_owned(),
            sent: counter(packets),
            received: counter(2 * packets),
            dropped: counter(3 * packets),
        }
    }

    #[test]
    fn a_networks_count_outlives_its_endpoints_and_not_the_network() {
        let mut former = FormerEndpoints::default();
        let mut sum = |now: &[(EndpointId, u64)], networks: &[NetworkId]| {
            let now = now.iter().map(|(id, packets)| (*id, counted(*packets))).collect();
            let networks = networks.iter().copied().collect();
            let sums = former.sum(&now, &networks, |id| (id == 1).then(|| "net".to_owned()));
            sums.get("net")
                .map(|sums| (sums.sent.packets, sums.received.bytes, sums.dropped.packets))
        };
        assert_eq!(sum(&[(7, 10), (8, 5)], &[1]), Some((15, 3000, 45)));
        assert_eq!(sum(&[(7, 12)], &[1]), Some((17, 3400, 51)), "one endpoint is gone");
        assert_eq!(sum(&[(7, 1)], &[1]), Some((18, 3600, 54)), "an endpoint's port was replaced");
        assert_eq!(sum(&[], &[1]), Some((18, 3600, 54)));
        assert_eq!(sum(&[], &[]), None);
        assert_eq!(sum(&[(9, 1)], &[1]), Some((1, 200, 3)), "a new network of that name");
    }
}
