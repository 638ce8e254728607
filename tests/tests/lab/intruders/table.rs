//! Attacks as a table, and the one runner that tries them all.
//!
//! A row is a name, what web1 sends, and the name under which its node must count it. All rows of a table are
//! sent by the same leg. The runner tries every row, also after one that failed, and looks at what every victim heard.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, bail, ensure};
use overlay_lab::{eventually, raw::Raw};

use super::scene::Scene;
use crate::attack::{Victims, counts};

/// How long a count may take after the frame was sent.
const PATIENCE: Duration = Duration::from_secs(3);
/// The name of packets that a leg lets out.
pub(super) const PASSES: &str = "forwarded";

/// One of web1's devices.
#[derive(Clone, Copy)]
pub(super) enum Leg {
    /// On its own network.
    Network,
    /// On the gateway bridge.
    Gateway,
}

impl Leg {
    fn device(self) -> &'static str {
        match self {
            Self::Network => "eth0",
            Self::Gateway => "eth1",
        }
    }

    fn direction(self) -> &'static str {
        match self {
            Self::Network => "from_endpoint",
            Self::Gateway => "from_gateway",
        }
    }
}

struct Row {
    name: String,
    /// Under which each frame is counted.
    counted: &'static str,
    frames: Vec<Raw>,
    /// The sender's own kernel may refuse all frames: some kernels compare more with the frame than others.
    refusable: bool,
}

/// Tries all tables, and fails with every row that was not counted as it must be, and with everything that a victim
/// heard. All traffic that is allowed works before and after.
pub(super) fn try_all(scene: &Scene, tables: &[Table], victims: Victims) -> Result<()> {
    scene.everything_works()?;
    let mut failed = String::new();
    for table in tables {
        table.try_rows(scene, &mut failed)?;
    }
    if let Err(error) = scene.everything_works() {
        writeln!(failed, "afterwards: {error:#}")?;
    }
    if let Err(error) = victims.heard_nothing() {
        writeln!(failed, "{error:#}")?;
    }
    ensure!(failed.is_empty(), "{failed}");
    Ok(())
}

/// Attacks by one leg of web1.
pub(super) struct Table {
    leg: Leg,
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn by(leg: Leg) -> Self {
        Self { leg, rows: Vec::new() }
    }

    /// Adds a frame, which is counted under this name.
    pub(super) fn row(&mut self, name: impl Into<String>, counted: &'static str, frame: Vec<u8>) {
        self.rows(name, counted, [frame]);
    }

    /// Adds frames, each of which is counted under this name.
    pub(super) fn rows(
        &mut self,
        name: impl Into<String>,
        counted: &'static str,
        frames: impl IntoIterator<Item = Vec<u8>>,
    ) {
        let frames = frames.into_iter().map(Raw::from).collect();
        self.rows.push(Row { name: name.into(), counted, frames, refusable: false });
    }

    /// Adds frames that their sender describes. What its own kernel does not refuse is counted under this name.
    pub(super) fn described(
        &mut self,
        name: impl Into<String>,
        counted: &'static str,
        frames: impl IntoIterator<Item = Raw>,
    ) {
        let frames = frames.into_iter().collect();
        self.rows.push(Row { name: name.into(), counted, frames, refusable: true });
    }

    fn try_rows(&self, scene: &Scene, failed: &mut String) -> Result<()> {
        ensure!(!self.rows.is_empty(), "an attack of nothing");
        for row in &self.rows {
            if let Err(error) = self.try_row(scene, row) {
                writeln!(failed, "{}: {error:#}", row.name)?;
            }
        }
        Ok(())
    }

    fn try_row(&self, scene: &Scene, row: &Row) -> Result<()> {
        let host = &scene.hosts[0];
        let directions = [self.leg.direction()];
        let before = counts(host, &directions)?;
        let sent = scene.web1.netns.send_raw(self.leg.device(), &row.frames)?;
        ensure!(sent > 0 || row.refusable, "the sender's kernel refused it");
        // Endpoints' own stacks send such frames as well, so a count may be larger.
        eventually("it is counted", PATIENCE, || {
            let now = counts(host, &directions)?;
            let of = |name: &str| {
                let count = |all: &std::collections::BTreeMap<String, u64>| {
                    all.get(name).copied().unwrap_or_default()
                };
                count(&now) - count(&before)
            };
            if of(row.counted) >= sent {
                return Ok(());
            }
            let other: Vec<_> =
                now.keys().filter(|name| of(name) > 0).map(|name| (name, of(name))).collect();
            bail!("{sent} sent, but not so many {}: {other:?}", row.counted)
        })
    }
}
