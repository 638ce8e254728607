//! The service `Cluster`: this node's status, and the registration of nodes.

use super::{Api, decode, present};
use crate::{
    control::{
        consensus::Role,
        controller::{Attempt, Controller},
        state::{Applied, Command, Decision, Mutation},
        voter::VoterParts,
    },
    dataplane::{
        datapath::{GuardMode, Hook, find_devices, run_time_is_counted},
        netlink::GATEWAY_BRIDGE,
    },
    model::{Invalid, NodeId},
    proto::v1::{
        self, DatapathStatus, JoinRequest, JoinResponse, NodeRole, StatusRequest, StatusResponse,
        cluster_client::ClusterClient, cluster_server::Cluster,
    },
};
use futures::FutureExt as _;
use overlay_common::DropReason;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

#[tonic::async_trait]
impl Cluster for Api {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let (role, leader, term) = match &self.voter {
            None => (NodeRole::Agent, self.directory.leader(), 0),
            Some(voter) => {
                let status = voter.consensus.status().borrow().clone();
                let role = match status.role {
                    Role::Leader => NodeRole::Leader,
                    Role::Follower | Role::Candidate => NodeRole::Voter,
                    Role::Learner => NodeRole::Learner,
                };
                (role, status.leader, status.term)
            }
        };
        let view = self.view.borrow().clone();
        let name_of = |id: NodeId| {
            view.as_ref().and_then(|view| view.nodes.get(&id)).map(|node| node.name.to_string())
        };
        let mut answer = StatusResponse {
            cluster: self.cluster.to_string(),
            node: self.name.to_string(),
            node_id: self.id,
            leader: leader.and_then(name_of).unwrap_or_default(),
            term,
            revision: view.as_ref().map_or(0, |view| view.revision),
            programmed_revision: self.status.borrow().programmed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: Some(self.datapath_status(name_of)),
            metrics: self.metrics.map(|address| address.to_string()).unwrap_or_default(),
            ..Default::default()
        };
        answer.set_role(role);
        Ok(Response::new(answer))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        registration(request.get_ref())?;
        let expected = &request.get_ref().cluster;
        if !expected.is_empty() && *expected != self.cluster.to_string() {
            return Err(Status::failed_precondition(format!(
                "this is a node of cluster {}, not of {expected}",
                self.cluster
            )));
        }
        let cluster = self.cluster;
        self.at_leader(
            request,
            Duration::ZERO,
            move |voter, message| join(voter.clone(), cluster, message).boxed(),
            |channel, request| {
                async move { ClusterClient::new(channel).join(request).await }.boxed()
            },
        )
        .await
    }
}

fn registration(message: &JoinRequest) -> Result<Command, Status> {
    let JoinRequest {
        name,
        vtep,
        listen,
        token: _,
        instance,
        returning,
        cluster: _,
        gateway_subnet,
        metrics,
    } = message;
    let invalid = |field, value: &str, why| {
        Status::invalid_argument(Invalid::new(field, value, why).to_string())
    };
    let address: Ipv4Addr =
        vtep.parse().map_err(|_| invalid("vtep", vtep, "is not an IPv4 address"))?;
    if !decode::is_host(address) {
        return Err(invalid("vtep", vtep, "is not a host's address"));
    }
    let listen: SocketAddr =
        listen.parse().map_err(|_| invalid("listen", listen, "is not an IP:PORT"))?;
    if listen.ip().is_unspecified() || listen.port() == 0 {
        return Err(invalid("listen", &listen.to_string(), "is not an address that peers reach"));
    }
    let instance = instance
        .as_slice()
        .try_into()
        .map_err(|_| Status::invalid_argument("instance is not 16 bytes long"))?;
    let returning = Some(*returning).filter(|id| *id != 0);
    let name = decode::node_name(name)?;
    let gateway = decode::optional_subnet("gateway_subnet", gateway_subnet)?;
    let metrics = match metrics.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid("metrics", text, "is not an IP:PORT"))?),
    };
    let vtep = address;
    Ok(Command::RegisterNode { instance, name, vtep, listen, returning, gateway, metrics })
}

async fn join(
    voter: VoterParts,
    cluster: Uuid,
    message: JoinRequest,
) -> Result<JoinResponse, Attempt> {
    let command = registration(&message)?;
    // A repeated join is recognised by its instance, not by its request; it changes nothing, so that
    // nothing is logged for it.
    voter.consensus.read_index().await?;
    let decided = voter.state.read(|state| state.decide(state.revision() + 1, command.clone()));
    let node = match decided {
        Ok(Decision::Nothing(Applied::Node(node))) => node,
        _ => match voter
            .execute(Mutation::new(Uuid::new_v4().into_bytes(), &command), command)
            .await?
        {
            Applied::Node(node) => {
                tracing::info!(node = %node.name, id = node.id, vtep = %node.vtep, voter = node.voter, "node registered");
                node
            }
            other => unreachable!("a registration answers a node, not {other:?}"),
        },
    };
    let role = if node.voter { NodeRole::Voter } else { NodeRole::Agent };
    let members = voter.consensus.status().borrow().clone();
    let peers = voter.state.read(|state| {
        let voters = state.nodes().filter(|peer| peer.voter && peer.id != node.id);
        voters.map(|peer| present::node(state, &voter.table, &members, peer)).collect()
    });
    Ok(JoinResponse {
        cluster: cluster.to_string(),
        node_id: node.id,
        epoch: node.epoch,
        role: role.into(),
        peers,
    })
}

impl Controller {
    fn datapath_status(&self, name_of: impl Fn(NodeId) -> Option<String>) -> DatapathStatus {
        let status = self.status.borrow().clone();
        let mut errors: Vec<String> = status.error.into_iter().collect();
        let datapath = self.datapath.lock();
        let counters = datapath.counters().unwrap_or_else(|error| {
            errors.push(crate::error_chain(&error));
            Vec::new()
        });
        let mut programs = datapath.programs().unwrap_or_else(|error| {
            errors.push(crate::error_chain(&error));
            Vec::new()
        });
        let hook = match datapath.hook() {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
        };
        let reader = datapath.reader();
        let guard = datapath.guard().clone();
        drop(datapath);
        let usage = reader.usage().unwrap_or_else(|error| {
            errors.push(crate::error_chain(&error));
            Vec::new()
        });
        let info = &self.info;
        if let Err(error) = find_devices(Path::new(&info.bpffs), &mut programs) {
            errors.push(crate::error_chain(&error));
        }
        DatapathStatus {
            hook: hook.to_owned(),
            underlay: info.underlay.clone(),
            underlay_mtu: status.mtus.underlay,
            underlay_mtu_source: status.mtus.source.to_string(),
            vtep: info.vtep.to_string(),
            vxlan_port: u32::from(info.vxlan_port),
            gro_device: info.gro_device.clone(),
            bpffs: info.bpffs.clone(),
            maps: usage
                .into_iter()
                .map(|map| v1::MapUsage {
                    name: map.name.to_owned(),
                    entries: map.entries.into(),
                    capacity: map.capacity.into(),
                })
                .collect(),
            counters: counters
                .into_iter()
                .filter(|(_, _, counter)| counter.packets > 0)
                .map(|(reason, direction, counter)| v1::Counter {
                    reason: DropReason::name_of(reason).to_owned(),
                    direction: direction.name().to_owned(),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            error: errors.join("; "),
            endpoint_mtu: status.mtus.endpoint,
            super_packets: Some(v1::SuperPacketStatus {
                ipv4: status.super_packets.ipv4,
                ipv6: status.super_packets.ipv6,
                reason: status.super_packets.reason,
            }),
            fallbacks: status.fallbacks,
            gateway: Some(v1::GatewayStatus {
                bridge: GATEWAY_BRIDGE.to_owned(),
                subnet: info.gateway.to_string(),
                published_ports: present::count(status.gateway.published),
                forwarding_devices: status.gateway.forwarding.into_iter().collect(),
                resolvers: present::count(status.gateway.resolvers),
            }),
            xdp: guard.mode.map_or("off", GuardMode::name).to_owned(),
            xdp_reason: guard.why,
            programs: programs.into_iter().map(present::program).collect(),
            kernel: nix::sys::utsname::uname()
                .map(|uname| uname.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            run_time_counted: run_time_is_counted().unwrap_or(false),
            unresolved_next_hops: status.unresolved.into_iter().filter_map(name_of).collect(),
        }
    }
}
