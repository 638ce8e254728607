use super::{Api, Controller};
use crate::proto::v1::{DropEvent, DropsRequest, watch_server::Watch};
use overlay_common::{Direction, DropReason, Ip16, MacBytes, ip16_to_v4};
use std::pin::Pin;
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
        let source = ip16_to_v4(&event.src_ip);
        let direction = Direction::ALL.iter().find(|d| **d as u32 == event.direction);
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
            endpoint: source
                .and_then(|source| self.endpoint_at(event.vni, source.into()))
                .unwrap_or_default(),
        }
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
    ip16_to_v4(ip).map(|v4| std::net::Ipv4Addr::from(v4).to_string()).unwrap_or_default()
}
