//! The kernel's table of IPv4 neighbours, which all network namespaces of the machine share, and its limit.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage},
};

use super::{Netlink, NetlinkError, dump::dump};

/// The state of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourTable {
    /// The neighbours in it, permanent ones among them.
    pub entries: u32,
    /// No more than so many are made that are not permanent (gc_thresh3).
    pub max: u32,
    /// How often a neighbour found no room, since the machine started.
    pub refused: u64,
}

impl Netlink {
    /// The state of the table; `None` where the kernel does not tell.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn neighbour_table(&self) -> Result<Option<NeighbourTable>, NetlinkError> {
        let mut message = NeighbourTableMessage::default();
        message.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetNeighbourTable(message);
        let table = |item| match item {
            RouteNetlinkMessage::NewNeighbourTable(message) => parse(&message),
            _ => None,
        };
        let action = "read the state of the neighbour table";
        let listed = dump(&self.handle, request, action, table).await?;
        Ok(listed.items.into_iter().next())
    }
}

/// The other messages of the list are about the parameters of single devices.
fn parse(message: &NeighbourTableMessage) -> Option<NeighbourTable> {
    let mut table = NeighbourTable::default();
    let mut has_limit = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourTableAttribute::Threshold3(max) => (table.max, has_limit) = (*max, true),
            NeighbourTableAttribute::Config(config) => table.entries = config.entries,
            NeighbourTableAttribute::Stats(stats) => table.refused = stats.table_fulls,
            _ => {}
        }
    }
    (has_limit && message.header.family == AddressFamily::Inet).then_some(table)
}
