//! Frames that must not pass, each with the reason that it is dropped for, and who must not hear them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Netns, capture::Capture, eventually};

use crate::frames::MARK;

/// Frames, by the reason that each is dropped for.
#[derive(Default)]
pub(crate) struct Attack(Vec<(&'static str, Vec<u8>)>);

impl Attack {
    pub(crate) fn add(&mut self, reason: &'static str, frame: Vec<u8>) {
        self.0.push((reason, frame));
    }

    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = (&'static str, Vec<u8>)>) {
        self.0.extend(more);
    }

    /// Sends them all, once.
    pub(crate) fn send(&self, netns: &Netns, device: &str) -> Result<()> {
        netns.send_frames(device, self.0.iter().map(|(_, frame)| frame))
    }

    /// Sends them all once; `host` counts each under its reason, in one of these directions.
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
        // At least as many as were sent for it: a stack's own frames may add to them.
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

fn counts(host: &Host, directions: &[&str]) -> Result<BTreeMap<String, u64>> {
    let mut sum = BTreeMap::new();
    for direction in directions {
        for (reason, packets) in host.counters(direction)? {
            *sum.entry(reason).or_default() += packets;
        }
    }
    Ok(sum)
}

/// Captures where nothing of an attack may come out.
#[derive(Default)]
pub(crate) struct Victims(Vec<(String, Capture)>);

impl Victims {
    /// Listens on a device as well.
    pub(crate) fn listen(&mut self, who: &str, netns: &Netns, device: &str) -> Result<()> {
        let capture = Capture::start(netns, device, "")?;
        self.0.push((format!("{who}'s {device}"), capture));
        Ok(())
    }

    /// Ends the captures; none has a frame with the mark. Each must have heard a ping, so that its
    /// silence says something.
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

    /// All but these (as `web2's eth0`), who may hear it.
    pub(crate) fn without(self, may_hear: &[&str]) -> Self {
        Self(self.0.into_iter().filter(|(who, _)| !may_hear.contains(&who.as_str())).collect())
    }

    /// Whether the one of that name (as `web2's eth0`) has heard the mark; it goes on listening.
    pub(crate) fn hears(&self, who: &str) -> Result<()> {
        let found = self.0.iter().find(|(name, _)| name == who);
        let (_, capture) = found.with_context(|| format!("nobody listens as {who}"))?;
        capture.wait_for(&format!("frame contains \"{MARK}\"")).map(drop)
    }
}
