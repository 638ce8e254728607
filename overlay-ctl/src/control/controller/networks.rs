//! Requests about networks: create, list, inspect and remove.

use super::{
    Removed,
    barrier::Fresh,
    error::Attempt,
    info::{EndpointInfo, NetworkInfo},
    lists::{Rows, TURN},
    verb::{Leader, Verb},
};
use crate::{
    control::state::{Applied, Command, Mutation, RequestId},
    model::{Invalid, NetworkId, NetworkName, NetworkOptions, Pool, Vni},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Makes a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateNetwork {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Must be free.
    pub name: NetworkName,
    /// `None` = the next free /24 of the pool.
    pub pool: Option<Pool>,
    /// `None` = the next free one.
    pub vni: Option<Vni>,
    /// What its endpoints may do.
    pub options: NetworkOptions,
}

impl Verb for CreateNetwork {
    const NAME: &str = "CreateNetwork";
    type Answer = NetworkInfo;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    fn check(&self) -> Result<(), Invalid> {
        Self::check(self)
    }

    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<NetworkInfo, Attempt> {
        let Self { request, name, pool, vni, options } = self;
        let command = Command::CreateNetwork { name, pool, vni, options };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        match fresh.execute(&voter, request, command).await? {
            Applied::Network(network) => {
                tracing::info!(network = %network.name, vni = network.vni.get(), subnet = %network.pool.subnet, "network created");
                Ok(fresh.read(&voter, |state| NetworkInfo::new(state, &network)))
            }
            other => unreachable!("a network's creation answers a network, not {other:?}"),
        }
    }
}

/// Lists all networks, by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListNetworks;

impl Verb for ListNetworks {
    const NAME: &str = "ListNetworks";
    type Answer = Rows<NetworkInfo>;
    const CHANGES: bool = false;
    const WAITS: Duration = TURN;

    async fn carry_out(self, leader: Leader) -> Result<Rows<NetworkInfo>, Attempt> {
        let state = leader.state().await?;
        let lists = leader.lists;
        let count = state.networks().count();
        Ok(Rows::new(&lists, count, move |take| {
            state.networks().map(|network| NetworkInfo::new(&state, network)).try_for_each(take)
        }))
    }
}

/// Shows a network with its endpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InspectNetwork {
    /// Which.
    pub name: NetworkName,
    /// Only the network, without its endpoints.
    pub brief: bool,
}

/// A network with its endpoints.
#[derive(Debug)]
pub struct NetworkDetail {
    /// The network.
    pub network: NetworkInfo,
    /// Its endpoints, by address. Empty if the request was brief.
    pub endpoints: Rows<EndpointInfo>,
}

impl Verb for InspectNetwork {
    const NAME: &str = "InspectNetwork";
    type Answer = NetworkDetail;
    const CHANGES: bool = false;
    const WAITS: Duration = TURN;

    async fn carry_out(self, leader: Leader) -> Result<NetworkDetail, Attempt> {
        let state = leader.state().await?;
        let Leader { voter, lists, .. } = leader;
        let Self { name, brief } = self;
        let network = NetworkInfo::new(&state, state.network_named(&name)?);
        if brief {
            let endpoints = Rows::new(&lists, 0, |_| Ok(()));
            return Ok(NetworkDetail { network, endpoints });
        }
        let id = network.network.id;
        let endpoints = Rows::new(&lists, network.endpoints, move |take| {
            let rows = state.endpoints_of(id);
            rows.map(|row| EndpointInfo::new(&state, &voter.table, row)).try_for_each(take)
        });
        Ok(NetworkDetail { network, endpoints })
    }
}

/// Removes a network that has no endpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveNetwork {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Which.
    pub name: NetworkName,
    /// Only if it is the one of this id, and not a successor.
    pub only: Option<NetworkId>,
}

impl Verb for RemoveNetwork {
    const NAME: &str = "RemoveNetwork";
    type Answer = Removed;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<Removed, Attempt> {
        let Self { request, name, only } = self;
        let command = Command::RemoveNetwork { name: name.clone(), only };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        match fresh.execute(&voter, request, command).await? {
            Applied::Removed(revision) => {
                tracing::info!(network = %name, "network removed");
                Ok(Removed { revision })
            }
            other => unreachable!("a removal answers a removal, not {other:?}"),
        }
    }
}
