//! What only the node of a new endpoint knows, asked before anything is logged.

use crate::{
    control::{
        peers::Directory,
        state::{Command, Placement, PortsWanted},
        voter::VoterParts,
    },
    dataplane::host::{EndpointCheck, host_port},
    faces::api::error::{is_lost, refused},
    model::NodeId,
    proto::internal::{CheckEndpointRequest, CheckEndpointResponse, HostPort},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::Status;

/// How long a node is given to look at a namespace and its own ports.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// Who a node asks before an endpoint is made: itself, or the endpoint's node.
#[derive(Clone)]
pub(crate) struct Check {
    pub(crate) own: NodeId,
    pub(crate) here: EndpointCheck,
    pub(crate) directory: Directory,
}

impl Check {
    /// Asks the node of the endpoint that `command` would make whether it could make it, and puts into the
    /// command by which path the node knows the namespace and which of its ports are not free.
    pub(crate) async fn ask(
        &self,
        voter: &VoterParts,
        command: &mut Command,
    ) -> Result<(), Status> {
        let Command::CreateEndpoint {
            network,
            placement: Placement::Node { node, netns, .. },
            ports,
            ..
        } = command
        else {
            return Ok(());
        };
        let found = voter.state.read(|state| {
            let internal = state.network_named(network)?.options.internal;
            let row = state.node_named(node)?;
            Ok((row.id, !internal && row.gateway.is_some()))
        });
        let (id, needs_leg) = found.map_err(|refusal| refused(&refusal))?;
        let message = question(netns, ports, needs_leg);
        let answer = if id == self.own {
            self.here.check(message).await
        } else {
            self.ask_peer(voter, id, message).await?.map_err(|why| {
                Status::failed_precondition(format!(
                    "node {node} is down ({why}); start it, or choose another with --node"
                ))
            })?
        };
        if !answer.problem.is_empty() {
            return Err(Status::failed_precondition(answer.problem));
        }
        *netns = PathBuf::from(answer.netns);
        // The log holds what it says: only what can matter.
        let any = ports.any_of();
        let busy =
            answer.busy.iter().filter_map(host_port).map(|(transport, _, port)| (transport, port));
        ports.busy = busy.filter(|(transport, _)| any.contains(transport)).collect();
        Ok(())
    }

    /// What the node answers; in the inner error why it is taken for down.
    async fn ask_peer(
        &self,
        voter: &VoterParts,
        id: NodeId,
        message: CheckEndpointRequest,
    ) -> Result<Result<CheckEndpointResponse, &'static str>, Status> {
        if voter.table.is_down(id) {
            return Ok(Err("it was not heard of lately"));
        }
        let Some(peer) = self.directory.peer(id) else {
            return Ok(Err("its address is not known"));
        };
        let mut client = self.directory.client(&peer);
        match tokio::time::timeout(CHECK_DEADLINE, client.check_endpoint(message)).await {
            Ok(Ok(answer)) => Ok(Ok(answer.into_inner())),
            Ok(Err(status)) if !is_lost(&status) => Err(status),
            Ok(Err(_)) | Err(_) => Ok(Err("it does not answer")),
        }
    }
}

fn question(netns: &Path, ports: &PortsWanted, needs_leg: bool) -> CheckEndpointRequest {
    let asked = ports.publish.iter().filter_map(|wish| {
        Some(HostPort {
            transport: wish.port.transport.to_string(),
            address: wish.host.to_string(),
            port: wish.host_port?.get().into(),
        })
    });
    CheckEndpointRequest {
        netns: netns.display().to_string(),
        ports: asked.collect(),
        list_busy: !ports.any_of().is_empty(),
        needs_leg,
    }
}
