use super::{Api, Controller};
use crate::{
    proto::v1::{DropEvent, DropsRequest, watch_server::Watch},
    reconcile::EndpointHealth,
};
use overlay_common::{Direction, DropReason, Ip16, MacBytes, ip16_to_v4};
use std::{net::Ipv4Addr, pin::Pin};
use tokio_stream::{Stream, StreamExt as _, wrappers::BroadcastStream};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Watch for Api {
    type DropsStream = Pin<Box<dyn Stream<Item = Result<DropEvent, Status>> + Send>>;

    async fn drops(
        &self,
        _request: Request<DropsRequest>,
    ) -> Result<Response<Self::DropsStream>, Status> {
        let events = self.drops.subscribe();
        let api = self.clone();
        // A watcher that is too slow misses events, never the counts.
        let shown = BroadcastStream::new(events)
            .filter_map(move |event| event.ok().map(|event| Ok(api.show(&event))));
        Ok(Response::new(Box::pin(shown)))
    }
}

impl Controller {
    fn show(&self, event: &overlay_common::DropEvent) -> DropEvent {
        let view = self.view.borrow().clone();
        let network = view.and_then(|view| {
            let network = view.networks.values().find(|n| n.vni.get() == event.vni)?;
            Some(network.name.to_string())
        });
        let direction = Direction::ALL.iter().find(|d| **d as u32 == event.direction);
        // A source address is what the sender says; a device is where it sits.
        let endpoint = match direction {
            Some(Direction::FromEndpoint | Direction::FromGateway) => {
                self.endpoint_behind(event.ifindex)
            }
            Some(Direction::FromUnderlay | Direction::GuardUnderlay) | None => {
                ip16_to_v4(&event.src_ip)
                    .and_then(|source| self.endpoint_at(event.vni, source.into()))
            }
        };
        DropEvent {
            time_ns: event.time_ns,
            reason: DropReason::from_number(event.reason)
                .map_or("unknown", DropReason::name)
                .to_owned(),
            direction: direction.map_or("unknown", |d| d.name()).to_owned(),
            network: network.unwrap_or_default(),
            interface: interface(event.ifindex),
            length: event.len,
            ethertype: u32::from(event.ethertype),
            src_mac: mac(&event.src_mac),
            dst_mac: mac(&event.dst_mac),
            src_ip: address(&event.src_ip),
            dst_ip: address(&event.dst_ip),
            endpoint: endpoint.unwrap_or_default(),
        }
    }

    /// The name of the endpoint with this address, as far as this node knows.
    fn endpoint_at(&self, vni: u32, address: Ipv4Addr) -> Option<String> {
        let view = self.view.borrow().clone()?;
        let network = view.networks.values().find(|network| network.vni.get() == vni)?;
        let endpoints = view.endpoints.get(&network.id)?;
        endpoints.values().find(|e| e.address == address).map(|e| e.name.to_string())
    }

    /// The name of the endpoint whose port this device of the node is.
    fn endpoint_behind(&self, ifindex: u32) -> Option<String> {
        let id = {
            let status = self.status.borrow();
            let is_on = |health: &EndpointHealth| {
                let leg = health.gateway.as_ref().map(|leg| leg.ifindex);
                health.ifindex == ifindex || leg == Some(ifindex)
            };
            *status.endpoints.iter().find(|(_, health)| is_on(health))?.0
        };
        let view = self.view.borrow().clone()?;
        view.all_endpoints().find(|endpoint| endpoint.id == id).map(|e| e.name.to_string())
    }
}

fn interface(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex).ok();
    // nix gives an empty name where the device is gone.
    let name = name.and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| ifindex.to_string())
}

fn mac(mac: &MacBytes) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn address(ip: &Ip16) -> String {
    ip16_to_v4(ip).map(|v4| Ipv4Addr::from(v4).to_string()).unwrap_or_default()
}
