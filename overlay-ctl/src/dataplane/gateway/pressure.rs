//! Tells when the host's table of connections is too small for what is in it, and which endpoint has most of them.
//!
//! A connection that finds no room is dropped, the host's own as well, and nothing but a line of the kernel's log shows
//! it. No rule bounds what one endpoint has: docs/limits.md says what such a rule costs.

use std::{collections::BTreeMap, io, net::Ipv4Addr, time::Duration};

use tokio::time::Instant;

use super::{
    GatewayError,
    conntrack::{Conntrack, Fill},
    flow::Flow,
    suspicion::Part,
};
use crate::model::Subnet;

/// For so many looks after connections found no room this is told.
const TOLD: u32 = 12;
/// Time between two looks at whose connections they are. A look costs as much as there are connections.
const PERIOD: Duration = Duration::from_secs(60);
/// Time that one look may take.
const BOUND: Duration = Duration::from_secs(5);
const ACTION: &str = "look how full the table of connections is";

/// What was seen of the table of connections.
#[derive(Debug, Default)]
pub struct ConnectionPressure {
    refused: Option<u64>,
    /// Looks for which it is still told that the table was full.
    left: u32,
    most: Option<Most>,
    said: Option<String>,
}

/// The endpoint with the most connections.
#[derive(Debug)]
struct Most {
    leg: Ipv4Addr,
    count: usize,
    next: Instant,
}

impl ConnectionPressure {
    /// Looks at the table. `subnet` is that of the legs.
    ///
    /// # Errors
    /// [`GatewayError::Socket`].
    pub async fn look(&mut self, subnet: Subnet) -> Result<(), GatewayError> {
        let looked = tokio::time::timeout(BOUND, self.look_now(subnet)).await;
        let looked = looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        looked.map_err(|source| GatewayError::Socket { action: ACTION, source })
    }

    async fn look_now(&mut self, subnet: Subnet) -> io::Result<()> {
        let mut conntrack = Conntrack::open()?;
        let said = self.judge(conntrack.fill().await?);
        if said.is_none() {
            self.most = None;
        } else if self.most.as_ref().is_none_or(|most| most.next <= Instant::now()) {
            let mut counts = BTreeMap::<Ipv4Addr, usize>::new();
            let count = |attributes: &[u8]| {
                let began = Flow::parse(attributes).map(|flow| flow.original.source.address);
                if let Some(leg) = began.filter(|address| subnet.net().contains(address)) {
                    *counts.entry(leg).or_default() += 1;
                }
            };
            conntrack.list(Part::All, count).await?;
            let next = Instant::now() + PERIOD;
            let most = counts.into_iter().max_by_key(|(_, count)| *count);
            self.most = most.map(|(leg, count)| Most { leg, count, next });
        }
        let said = said.map(|said| self.with_most(said));
        if said.is_some() != self.said.is_some() {
            match &said {
                Some(said) => tracing::warn!(said, "the table of connections"),
                None => tracing::info!("the table of connections has room again"),
            }
        }
        self.said = said;
        Ok(())
    }

    /// What is wrong with the table, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.said.as_deref()
    }

    fn judge(&mut self, fill: Fill) -> Option<String> {
        let Fill { entries, max, refused } = fill;
        // Few are dropped for another reason, and then the table is not half full.
        let is_half_full = u64::from(entries) * 2 >= u64::from(max);
        self.left = match self.refused.replace(refused) {
            Some(before) if refused > before && is_half_full => TOLD,
            _ => self.left.saturating_sub(1),
        };
        let what = if max == 0 {
            return None;
        } else if self.left > 0 {
            "was full within the last minute"
        } else if u64::from(entries) * 10 >= u64::from(max) * 9 {
            "is nearly full"
        } else {
            return None;
        };
        Some(format!(
            "the host's table of connections {what} ({entries} entries, room for {max}), and a full one drops new connections, the host's own as well: raise net.netfilter.nf_conntrack_max in the machine's first network namespace"
        ))
    }

    fn with_most(&self, said: String) -> String {
        match &self.most {
            Some(Most { leg, count, .. }) => {
                format!(
                    "{said}, or find out what the endpoint with the leg {leg} does: it began {count} of them"
                )
            }
            None => said,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_or_was_full_is_told_of() {
        let mut pressure = ConnectionPressure::default();
        let mut said = |entries, refused| {
            pressure.judge(Fill { entries, max: 1000, refused }).unwrap_or_default()
        };
        assert_eq!(said(899, 7), "", "what was before is not ours to tell");
        assert!(said(900, 7).contains("is nearly full (900 entries, room for 1000)"));
        assert_eq!(said(499, 8), "", "dropped for another reason");
        assert!(said(500, 9).contains("was full"));
        for _ in 1..TOLD {
            assert!(said(10, 9).contains("was full"), "for a while");
        }
        assert_eq!(said(10, 9), "");
        let unknown = Fill { entries: 0, max: 0, refused: 0 };
        assert_eq!(ConnectionPressure::default().judge(unknown), None);
    }

    #[test]
    fn who_has_most_is_named() {
        let (leg, next) = (Ipv4Addr::new(172, 18, 0, 5), Instant::now());
        let most = Some(Most { leg, count: 240_000, next });
        let pressure = ConnectionPressure { most, ..ConnectionPressure::default() };
        let said = pressure.with_most("it is nearly full".to_owned());
        assert!(said.ends_with("the leg 172.18.0.5 does: it began 240000 of them"), "{said}");
    }
}
