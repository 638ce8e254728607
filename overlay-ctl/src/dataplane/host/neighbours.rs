//! Tells when the kernel's table of neighbours is too small for the machine.
//!
//! A neighbour that finds no room in it loses packets of whoever needs it, the host's own as well as endpoints', and nothing
//! but a counter of the kernel shows it. The limits can be changed in the machine's first network namespace alone, where the
//! node need not be, so the operator is told.

use crate::dataplane::netlink::NeighbourTable;

/// For so many looks after the table was full this is told.
const TOLD: u32 = 12;
/// In each namespace the gateway is a neighbour, and so are some peers.
const PER_NAMESPACE: usize = 4;

/// What was seen of the table before.
#[derive(Debug, Default)]
pub(super) struct NeighbourPressure {
    refused: Option<u64>,
    /// Looks for which it is still told that the table was full.
    left: u32,
}

impl NeighbourPressure {
    /// The trouble with the table, in words. The node has so many gateway legs, one a namespace, and next hops: their
    /// neighbours are permanent or marked, and do not count against the limit.
    pub(super) fn judge(
        &mut self,
        table: NeighbourTable,
        (namespaces, hops): (usize, usize),
    ) -> Option<String> {
        let NeighbourTable { entries, max, refused } = table;
        self.left = match self.refused.replace(refused) {
            Some(before) if refused > before => TOLD,
            _ => self.left.saturating_sub(1),
        };
        let exempt = u32::try_from(namespaces.saturating_add(hops)).unwrap_or(u32::MAX);
        let counted = entries.saturating_sub(exempt);
        let what = if self.left > 0 {
            format!("was full within the last minute ({counted} entries, room for {max})")
        } else if u64::from(counted) * 10 >= u64::from(max) * 9 {
            format!("is nearly full ({counted} entries, room for {max})")
        } else if namespaces.saturating_mul(PER_NAMESPACE)
            > usize::try_from(max).unwrap_or(usize::MAX)
        {
            format!("is small for {namespaces} namespaces (room for {max})")
        } else {
            return None;
        };
        Some(format!(
            "the kernel's neighbour table, which all network namespaces share, {what}: raise net.ipv4.neigh.default.gc_thresh3, and gc_thresh2 below it, in the machine's first namespace"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pressure: &mut NeighbourPressure, (entries, max, refused): (u32, u32, u64)) -> String {
        pressure.judge(NeighbourTable { entries, max, refused }, (8, 2)).unwrap_or_default()
    }

    #[test]
    fn a_table_that_is_or_was_full_is_told_of() {
        let mut pressure = NeighbourPressure::default();
        assert_eq!(said(&mut pressure, (100, 1024, 7)), "", "what was before is not ours to tell");
        assert!(said(&mut pressure, (932, 1024, 7)).contains("nearly full (922 entries"));
        assert_eq!(said(&mut pressure, (931, 1024, 7)), "");
        assert!(said(&mut pressure, (100, 1024, 8)).contains("was full"));
        for _ in 1..TOLD {
            assert!(said(&mut pressure, (100, 1024, 8)).contains("was full"), "for a while");
        }
        assert_eq!(said(&mut pressure, (100, 1024, 8)), "");
        assert!(said(&mut pressure, (0, 31, 8)).contains("small for 8 namespaces"));
        assert_eq!(said(&mut pressure, (0, 32, 8)), "");
    }
}
