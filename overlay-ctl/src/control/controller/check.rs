//! Asks the node of a new endpoint what only that node knows, before anything is logged.

use super::{
    barrier::Fresh,
    error::{ControllerError, Effect},
};
use crate::{
    control::{
        peers::{CallError, Directory},
        state::{Command, Placement, PortsWanted},
        voter::VoterParts,
    },
    dataplane::host::{EndpointCheck, host_port},
    model::{NodeId, Subnet},
    proto::internal::{CheckEndpointRequest, CheckEndpointResponse, HostPort},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait for a node that looks at a namespace and at its own ports.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// How the node of a new endpoint is asked: this node itself, or another one.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) own: NodeId,
    pub(super) here: EndpointCheck,
    pub(super) directory: Directory,
}

impl Check {
    /// Asks the node of the endpoint that `command` would make whether it could make it, and puts into the
    /// command by which path the node knows the namespace and which of its ports are not free.
    pub(super) async fn ask(
        &self,
        voter: &VoterParts,
        fresh: &Fresh,
        command: &mut Command,
    ) -> Result<(), ControllerError> {
        let Command::CreateEndpoint {
            network,
            placement: Placement::Node { node, netns, .. },
            ports,
            ..
        } = command
        else {
            return Ok(());
        };
        let (id, needs_leg, subnet) = fresh.read(voter, |state| {
            let network = state.network_named(network)?;
            let row = state.node_named(node)?;
            let needs_leg = !network.options.internal && row.gateway.is_some();
            Ok::<_, ControllerError>((row.id, needs_leg, network.pool.subnet))
        })?;
        let message = question(netns, ports, needs_leg, subnet);
        let answer = if id == self.own {
            self.here.check(message).await
        } else {
            self.ask_peer(voter, id, message).await?.map_err(|why| ControllerError::NodeDown {
                node: node.clone(),
                why: why.to_owned(),
                effect: Effect::None,
            })?
        };
        if !answer.problem.is_empty() {
            let (why, effect) = (answer.problem, Effect::None);
            return Err(ControllerError::CannotMake { why, effect });
        }
        *netns = PathBuf::from(answer.netns);
        // The log holds what it says: only what can matter.
        let any = ports.any_of();
        let busy =
            answer.busy.iter().filter_map(host_port).map(|(transport, _, port)| (transport, port));
        ports.busy = busy.filter(|(transport, _)| any.contains(transport)).collect();
        Ok(())
    }

    /// What the node answers; in the inner error why the node counts as down.
    async fn ask_peer(
        &self,
        voter: &VoterParts,
        id: NodeId,
        message: CheckEndpointRequest,
    ) -> Result<Result<CheckEndpointResponse, &'static str>, ControllerError> {
        if voter.table.is_down(id) {
            return Ok(Err("it was not heard of lately"));
        }
        let Some(peer) = self.directory.peer(id) else {
            return Ok(Err("its address is not known"));
        };
        let call = self.directory.check_endpoint(&peer, message);
        match tokio::time::timeout(CHECK_DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(CallError::Unavailable(_) | CallError::Broken(_))) | Err(_) => {
                Ok(Err("it does not answer"))
            }
            Ok(Err(error)) => {
                let (why, effect) = (error.to_string(), Effect::None);
                Err(ControllerError::PeerRefused { node: id, why, effect })
            }
        }
    }
}

fn question(
    netns: &Path,
    ports: &PortsWanted,
    needs_leg: bool,
    subnet: Subnet,
) -> CheckEndpointRequest {
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
        subnet: subnet.to_string(),
    }
}
