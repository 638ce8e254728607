//! Frames that must be dropped, each with its drop reason, and captures at the places that they must not
//! reach.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Netns, capture::Capture, eventually};

use crate::frames::MARK;

/// The frames of an attack, each with the drop reason under which it must be counted.
#[derive(Default)]
pub(crate) struct Attack(Vec<(&'static str, Vec<u8>)>);

impl Attack {
    pub(crate) fn add(&mut self, reason: &'static str, frame: Vec<u8>) {
        self.0.push((reason, frame));
    }

    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = (&'static str, Vec<u8>)>) {
        self.0.extend(more);
    }

    /// Sends each frame once.
    pub(crate) fn send(&self, netns: &Netns, device: &str) -> Result<()> {
        netns.send_frames(device, self.0.iter().map(|(_, frame)| frame))
    }

    /// Sends each frame once, and waits until `host` has counted each under its reason, in one of these
    /// directions.
    pub(crate) fn is_counted(
        &self,
        (netns, device): (&Netns, &str),
        host: &Host,
        directions: &[&str],
    ) -> Result<()> {
        ensure!(!self.0.is_empty(), "an attack of nothing");
        let before = counts(host, directions)?;
        self.send(netns, device)?;
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, _) in &self.0 {
            *expected.entry(reason).or_default() += 1;
        }
        // Each counter must rise by at least the number of frames that were sent. It may rise by more,
        // because a network stack may send such frames by itself.
        eventually("each frame is counted", Duration::from_secs(5), || {
            let now = counts(host, directions)?;
            for (&reason, &sent) in &expected {
                let of = |all: &BTreeMap<String, u64>| all.get(reason).copied().unwrap_or_default();
                let counted = of(&now) - of(&before);
                ensure!(counted >= sent, "{sent} sent, {counted} counted as {reason}");
            }
            Ok(())
        })
    }
}

pub(crate) fn counts(host: &Host, directions: &[&str]) -> Result<BTreeMap<String, u64>> {
    let mut sum = BTreeMap::new();
    for direction in directions {
        for (reason, packets) in host.counters(direction)? {
            *sum.entry(reason).or_default() += packets;
        }
    }
    Ok(sum)
}

/// Captures at the places that no frame of an attack may reach.
#[derive(Default)]
pub(crate) struct Victims(Vec<(String, Capture)>);

impl Victims {
    /// Starts one more capture, on a device.
    pub(crate) fn listen(&mut self, who: &str, netns: &Netns, device: &str) -> Result<()> {
        self.listen_for(who, netns, device, "")
    }

    /// Starts one more capture, of the packets that pass a filter of tcpdump. It must let pings pass.
    pub(crate) fn listen_for(
        &mut self,
        who: &str,
        netns: &Netns,
        device: &str,
        filter: &str,
    ) -> Result<()> {
        let capture = Capture::start(netns, device, filter)?;
        self.0.push((format!("{who}'s {device}"), capture));
        Ok(())
    }

    /// Ends the captures, and fails if one has a frame with the mark. Each must have captured a ping, because
    /// otherwise its silence proves nothing.
    pub(crate) fn heard_nothing(self) -> Result<()> {
        for (who, capture) in self.0 {
            let packets = capture.stop()?;
            ensure!(packets.count("icmp")? > 0, "{who} heard no ping: it could not hear anything");
            if packets.have(MARK.as_bytes())? {
                let marked = format!("frame contains \"{MARK}\"");
                let what = packets.fields(&marked, &["frame.number", "_ws.col.Info"])?;
                bail!("{who} heard {what:?}");
            }
        }
        Ok(())
    }

    /// Ends the captures, and fails if one has a packet that passes this filter of tcpdump.
    pub(crate) fn heard_none(self, filter: &str) -> Result<()> {
        for (who, capture) in self.0 {
            let packets = capture.stop()?;
            ensure!(packets.count("icmp")? > 0, "{who} heard no ping: it could not hear anything");
            ensure!(packets.count(filter)? == 0, "{who} heard {:?}", packets.lines()?);
        }
        Ok(())
    }

    /// The victims without those of these names (such as `web2's eth0`), which may receive the attack.
    pub(crate) fn without(self, may_hear: &[&str]) -> Self {
        Self(self.0.into_iter().filter(|(who, _)| !may_hear.contains(&who.as_str())).collect())
    }

    /// Waits until the victim of this name (such as `web2's eth0`) has received the mark. Its capture goes
    /// on.
    pub(crate) fn hears(&self, who: &str) -> Result<()> {
        let found = self.0.iter().find(|(name, _)| name == who);
        let (_, capture) = found.with_context(|| format!("nobody listens as {who}"))?;
        capture.wait_for(&format!("frame contains \"{MARK}\"")).map(drop)
    }
}
