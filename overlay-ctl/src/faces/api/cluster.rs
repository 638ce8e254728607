//! The service `Cluster`: this node's status, the registration of nodes, and how many of them vote.

use super::{Api, decode, present, stale};
use crate::{
    control::{
        consensus::Role,
        controller::{SetVoters, VotersSet},
    },
    dataplane::{
        datapath::{GuardMode, Hook, find_devices, run_time_is_counted},
        netlink::GATEWAY_BRIDGE,
    },
    faces::{NoAnswer, ServedDataPlane, ServedNode, Service, troubles},
    model::{NodeId, SPEAKS},
    proto::v1::{
        self, BackupPiece, BackupRequest, DatapathStatus, JoinRequest, JoinResponse, MemberRequest,
        MemberStatus, MembersRequest, MembersResponse, NodeRole, SetVotersRequest,
        SetVotersResponse, StatusRequest, StatusResponse, cluster_server::Cluster,
    },
};
use overlay_common::{Counter, DropReason};
use std::{
    path::{Path, absolute},
    pin::Pin,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// The counter of VXLAN that no program took, and its direction, beside those of the programs.
const UNSEEN: &str = "unseen_vxlan";
const HOST: &str = "host";

#[tonic::async_trait]
impl Cluster for Api {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let (role, term, waits_for) = match self.controller.voter() {
            None => (NodeRole::Agent, 0, Vec::new()),
            Some(voter) => {
                let status = voter.consensus.status().borrow().clone();
                let role = match status.role {
                    Role::Leader => NodeRole::Leader,
                    Role::Follower | Role::Candidate => NodeRole::Voter,
                    Role::Learner => NodeRole::Learner,
                };
                (role, status.term, voter.version_waits_for())
            }
        };
        let view = self.view.borrow().clone();
        // A value of its own: what is borrowed in the expression below stays borrowed to its end, and whoever borrows it
        // there again waits for ever if somebody writes meanwhile.
        let programmed_revision = self.status.borrow().programmed;
        let name_of = |id: NodeId| {
            view.as_ref().and_then(|view| view.nodes.get(&id)).map(|node| node.name.to_string())
        };
        let mut answer = StatusResponse {
            cluster: self.controller.cluster().to_string(),
            node: self.name.to_string(),
            node_id: self.controller.id(),
            leader: self.controller.leader().and_then(name_of).unwrap_or_default(),
            term,
            revision: view.as_ref().map_or(0, |view| view.revision),
            programmed_revision,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: self.data_plane.get().map(|plane| self.datapath_status(plane, name_of)),
            generation: self.controller.generation().number(),
            cluster_version: view.as_ref().map_or(0, |view| view.version.number()),
            oldest_version: SPEAKS.oldest().number(),
            newest_version: SPEAKS.newest().number(),
            version_waits_for: waits_for.iter().map(ToString::to_string).collect(),
            alarms: self.alarms().into_iter().map(|alarm| alarm.text).collect(),
            incarnation: self.controller.directory().incarnation().as_bytes().to_vec(),
            troubles: troubles(Service::Node, &self.facts()),
            metrics: self.metrics.map(|address| address.to_string()).unwrap_or_default(),
            state_dir: absolute(&self.state_dir).unwrap_or_default().display().to_string(),
            ..Default::default()
        };
        answer.set_role(role);
        Ok(Response::new(answer))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let message = request.get_ref();
        let request = decode::register(message)?;
        let (cluster, meant) = (self.controller.cluster(), &message.cluster);
        if !meant.is_empty() && *meant != cluster.to_string() {
            return Err(Status::failed_precondition(format!(
                "this is a node of cluster {cluster}, not of {meant}"
            )));
        }
        let (ours, theirs) = (u32::from(self.vxlan_port), message.vxlan_port);
        if theirs != 0 && theirs != ours {
            return Err(Status::failed_precondition(format!(
                "the VXLAN port is {theirs} there and {ours} here, and packets would be lost both ways: start every node with the same `--vxlan-port`"
            )));
        }
        let joined = self.controller.register(request).await?;
        Ok(Response::new(present::joined(cluster, self.controller.generation(), joined)))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupPiece, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let pieces = self.controller.backup().await?;
        let pieces = pieces.map(|piece| Ok(BackupPiece { data: piece? }));
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn set_voters(
        &self,
        request: Request<SetVotersRequest>,
    ) -> Result<Response<SetVotersResponse>, Status> {
        let SetVotersRequest { voters, request_id } = request.get_ref();
        let request = SetVoters {
            request: decode::request_id(request_id)?,
            voters: decode::voters(*voters)?,
        };
        let VotersSet { voters } = self.controller.set_voters(request).await?;
        Ok(Response::new(SetVotersResponse { voters: voters.into() }))
    }

    async fn member(
        &self,
        _request: Request<MemberRequest>,
    ) -> Result<Response<MemberStatus>, Status> {
        Ok(Response::new(ServedNode::member(self).await))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let stale = request.get_ref().stale;
        let answer = self.0.members(stale).await.map_err(|why| match why {
            NoAnswer::Crowded => Status::resource_exhausted(why.to_string()),
            NoAnswer::Failed => Status::internal(why.to_string()),
        })?;
        let as_of = stale.then_some(answer.revision);
        Ok(stale::answer(answer, as_of))
    }
}

impl ServedNode {
    fn datapath_status(
        &self,
        plane: &ServedDataPlane,
        name_of: impl Fn(NodeId) -> Option<String>,
    ) -> DatapathStatus {
        let status = self.status.borrow().clone();
        let mut errors: Vec<String> = status.error.into_iter().collect();
        let datapath = plane.datapath.lock();
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
        let info = &plane.info;
        let vtep = status.vtep.unwrap_or(info.vtep);
        // Not a program's count, hence not in the maps.
        let unseen = Some(status.unseen).filter(|unseen| unseen.packets > 0);
        let unseen = unseen.map(|Counter { packets, bytes }| v1::Counter {
            reason: UNSEEN.to_owned(),
            direction: HOST.to_owned(),
            packets,
            bytes,
        });
        if let Err(error) = find_devices(Path::new(&info.bpffs), &mut programs) {
            errors.push(crate::error_chain(&error));
        }
        DatapathStatus {
            hook: hook.to_owned(),
            underlay: match status.underlay {
                name if name.is_empty() => info.underlay.clone(),
                name => name,
            },
            underlay_mtu: status.mtus.underlay,
            underlay_mtu_source: status.mtus.source.to_string(),
            vtep: vtep.to_string(),
            advertised_vtep: info
                .advertised
                .filter(|told| *told != vtep)
                .map(|told| told.to_string())
                .unwrap_or_default(),
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
                .chain(unseen)
                .collect(),
            error: errors.join("; "),
            endpoint_mtu: status.mtus.endpoint,
            super_packets: Some(v1::SuperPacketStatus {
                ipv4: status.super_packets.ipv4,
                ipv6: status.super_packets.ipv6,
                reason: status.super_packets.reason,
            }),
            fallbacks: status.fallbacks.into_iter().chain(status.probing_trouble).collect(),
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
