//! Keeps the tracked connections in agreement with the legs, the published ports and the rules.

use std::{collections::BTreeSet, io, net::Ipv4Addr, time::Duration};

use nix::ifaddrs::getifaddrs;
use tokio::time::Instant;

use super::{
    GatewayError, Rules, Table,
    conntrack::Conntrack,
    flow::{self, Flow},
    stale::Truth,
    suspicion::{Shift, Suspicion},
};
use crate::{
    dataplane::kernel::{Legs, PublishedPorts},
    error_chain,
    model::Subnet,
};

/// Time that one look may take. Beside 250,000 connections of others a debug build took 1.6 s of CPU time for a look at all
/// (29 November 2026, measured once).
const BOUND: Duration = Duration::from_secs(5);
/// After a failure nothing is tried for this long.
const REST: Duration = Duration::from_secs(30);
const ACTION: &str = "end connections of endpoints that are gone";

/// Ends connections that are out of date, whatever their protocol. A connection of others is never touched.
///
/// What the connections were last compared with is remembered only to know which can have become stale: a new one of
/// these compares all.
#[derive(Debug, Default)]
pub struct Connections {
    /// The legs at the last comparison; `None` = there was none.
    legs: Option<Legs>,
    /// The time of the next attempt after one that failed, and why it failed.
    failed: Option<(Instant, String)>,
}

impl Connections {
    /// Ends the connections that do not agree with `legs` and with `table`, which must have been synced with `rules`.
    /// Returns the number of ended connections. What fails is tried again by a later call; [`Self::trouble`] tells.
    pub async fn settle(&mut self, table: &mut Table, rules: &Rules, legs: &Legs) -> usize {
        let suspicion = Suspicion::new(self.legs.as_ref(), legs, table.shift());
        if suspicion.is_none() {
            self.failed = None;
            if self.legs.as_ref() != Some(legs) {
                self.legs = Some(legs.clone());
            }
            return 0;
        }
        if self.failed.as_ref().is_some_and(|(next, _)| Instant::now() < *next) {
            self.remember_unsettled(legs);
            return 0;
        }
        match end_stale(&suspicion, rules.subnet, &rules.published, legs).await {
            Ok(count) => {
                if count > 0 {
                    tracing::debug!(count, "ended connections that were out of date");
                }
                table.settled();
                (self.legs, self.failed) = (Some(legs.clone()), None);
                count
            }
            Err(error) => {
                let why = error_chain(&error);
                if self.failed.as_ref().is_none_or(|(_, before)| *before != why) {
                    tracing::warn!(why, "connections may go on to endpoints that are gone");
                }
                self.failed = Some((Instant::now() + REST, why));
                self.remember_unsettled(legs);
                0
            }
        }
    }

    /// Why connections that are out of date were not ended, in words.
    pub fn trouble(&self) -> Option<&str> {
        self.failed.as_ref().map(|(_, why)| why.as_str())
    }

    /// Remembers the legs that went for a later comparison, but not those whose address a newer leg has by now: its own
    /// connections could not be told from theirs.
    fn remember_unsettled(&mut self, legs: &Legs) {
        if let Some(before) = &mut self.legs {
            before.retain(|_, address| !legs.values().any(|leg| leg == address));
            before.extend(legs);
        }
    }
}

/// Ends all connections of a gateway bridge's legs, none of which is left, nor a port that led to one.
///
/// # Errors
/// [`GatewayError::Socket`].
pub async fn end_connections(subnet: Subnet) -> Result<(), GatewayError> {
    let (legs, published, shift) = (Legs::new(), PublishedPorts::new(), Shift::default());
    end_stale(&Suspicion::new(None, &legs, &shift), subnet, &published, &legs).await?;
    Ok(())
}

async fn end_stale(
    suspicion: &Suspicion<'_>,
    subnet: Subnet,
    published: &PublishedPorts,
    legs: &Legs,
) -> Result<usize, GatewayError> {
    let legs: BTreeSet<Ipv4Addr> = legs.values().copied().collect();
    let work = async {
        let local = local_addresses()?;
        end(Truth { suspicion, subnet, legs: &legs, published, local: &local }).await
    };
    let outcome = tokio::time::timeout(BOUND, work).await;
    let ended = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    ended.map_err(|source| GatewayError::Socket { action: ACTION, source })
}

async fn end(truth: Truth<'_>) -> io::Result<usize> {
    let mut conntrack = Conntrack::open()?;
    let mut stale = Vec::new();
    for part in truth.suspicion.parts() {
        let each = |attributes: &[u8]| {
            if Flow::parse(attributes).is_some_and(|flow| truth.is_stale(&flow)) {
                stale.push(flow::identity(attributes));
            }
        };
        conntrack.list(part, each).await?;
    }
    let mut count = 0;
    for identity in stale {
        count += usize::from(conntrack.delete(identity).await?);
    }
    Ok(count)
}

fn local_addresses() -> io::Result<BTreeSet<Ipv4Addr>> {
    let all = getifaddrs()?.filter_map(|interface| interface.address);
    Ok(all.filter_map(|address| address.as_sockaddr_in().map(|v4| v4.ip())).collect())
}
