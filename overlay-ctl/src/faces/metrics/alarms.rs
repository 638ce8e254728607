//! What an operator must see to, as one scrape reads it: the node's alarms, and the space in its state folder.

use crate::{control::consensus::Alarm, faces::ServedNode};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::fmt;

/// The kind of the alarm of a leader that hears too few nodes.
const HALF_SILENT: &str = "half_silent";

/// The alarms and the space of one node.
#[derive(Debug)]
pub(super) struct AlarmReadings {
    /// Of each kind, whether there is one.
    kinds: Vec<(&'static str, bool)>,
    /// Bytes that are free in the state folder; `None` = its disk does not say.
    free: Option<u64>,
}

impl AlarmReadings {
    /// `free` is what the disk of the state folder says.
    pub(super) fn take(node: &ServedNode, free: Option<u64>) -> Self {
        let voter = node.controller.voter();
        let alarms = voter.as_ref().map(|voter| voter.consensus.status().borrow().alarms.clone());
        let is_half_silent = voter.is_some_and(|voter| voter.table.is_half_silent());
        Self::new(&alarms.unwrap_or_default(), is_half_silent, free)
    }

    fn new(alarms: &[Alarm], is_half_silent: bool, free: Option<u64>) -> Self {
        let is_raised = |kind: &str| alarms.iter().any(|alarm| alarm.kind() == kind);
        let mut kinds = Alarm::KINDS.map(|kind| (kind, is_raised(kind))).to_vec();
        kinds.push((HALF_SILENT, is_half_silent));
        Self { kinds, free }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 while an operator must see to something: what the state folder has no room for (entries, snapshot, received_snapshot), that a majority of the voters takes no entries (stalled), that the voters hold different states and no majority the same (differs), or that this node leads and half of the nodes or more are silent (half_silent)";
        let mut family =
            encoder.encode_descriptor("overlay_alarm", help, None, MetricType::Gauge)?;
        for (kind, is_raised) in &self.kinds {
            let labels = [("kind", *kind)];
            ConstGauge::new(u64::from(*is_raised)).encode(family.encode_family(&labels)?)?;
        }
        let Some(free) = self.free else { return Ok(()) };
        let help =
            "Bytes that are free on the disk of the state folder, without what is kept for root";
        let name = "overlay_state_folder_free_bytes";
        let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(free).encode(gauge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::consensus::{Lack, Room};
    use prometheus_client::{
        collector::Collector, encoding::prometheus_text::encode, registry::Registry,
    };

    #[derive(Debug)]
    struct Scraped(AlarmReadings);

    impl Collector for Scraped {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.encode(&mut encoder)
        }
    }

    /// The lines with values.
    fn lines(alarms: &[Alarm], is_half_silent: bool, free: Option<u64>) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scraped(AlarmReadings::new(
            alarms,
            is_half_silent,
            free,
        ))));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn each_kind_of_alarm_is_scraped_with_the_space_that_is_left() {
        let lack =
            |what| Alarm::NoRoom(Lack { path: "/state".into(), what, free: 1, needed: 1 << 20 });
        let alarms = [lack(Room::Entries), lack(Room::Received)];
        assert_eq!(
            lines(&alarms, false, Some(7)),
            [
                "overlay_alarm{kind=\"entries\"} 1",
                "overlay_alarm{kind=\"snapshot\"} 0",
                "overlay_alarm{kind=\"received_snapshot\"} 1",
                "overlay_alarm{kind=\"stalled\"} 0",
                "overlay_alarm{kind=\"differs\"} 0",
                "overlay_alarm{kind=\"half_silent\"} 0",
                "overlay_state_folder_free_bytes 7",
            ]
        );
        let unknown = lines(&[Alarm::Stalled, lack(Room::Snapshot)], true, None);
        assert_eq!(
            unknown,
            [
                "overlay_alarm{kind=\"entries\"} 0",
                "overlay_alarm{kind=\"snapshot\"} 1",
                "overlay_alarm{kind=\"received_snapshot\"} 0",
                "overlay_alarm{kind=\"stalled\"} 1",
                "overlay_alarm{kind=\"differs\"} 0",
                "overlay_alarm{kind=\"half_silent\"} 1",
            ]
        );
        let differs = lines(&[Alarm::Differs { revision: 7 }], false, None);
        assert!(differs.contains(&"overlay_alarm{kind=\"differs\"} 1".to_owned()), "{differs:?}");
    }
}
