//! The table `ip overlay`, kept as wanted.

use std::collections::{BTreeMap, BTreeSet};

use nftables::schema::{NfCmd, NfListObject, NfObject};
use serde_json::Value;

use super::{
    GatewayError, HostPort, Rules, Target, conntrack, nft,
    observed::{self, Observed},
    rules::{self, Contents},
};
use crate::{error_chain, model::Transport};

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// All was as wanted.
    Nothing,
    /// Elements of maps and sets came or went; the rules stayed.
    Elements {
        /// How many were added; one that changed counts as added and removed.
        added: usize,
        /// How many were removed.
        removed: usize,
    },
    /// The table was missing or not as wanted, and was made anew.
    Table,
}

/// The table as it is believed to stand in the kernel.
///
/// It is read once, and again only when somebody [casts doubt](Self::doubt); between, what was written
/// is what stands. By default nothing is known of the kernel's yet: the first sync reads it.
#[derive(Debug, Default)]
pub struct Table {
    /// `None` = not known: to be read.
    known: Option<Known>,
    /// What this version of nft makes of the skeleton that we wrote, where it is not what we expect: what
    /// we want, and how it came back.
    dialect: Option<(Vec<Value>, Vec<Value>)>,
}

#[derive(Debug)]
enum Known {
    Missing,
    Stands(Observed),
}

impl Table {
    /// Reads the table that stands, and changes nothing.
    ///
    /// # Errors
    /// [`GatewayError`]: `nft` is missing, or the kernel has no nftables.
    pub async fn open() -> Result<Self, GatewayError> {
        Ok(Self { known: Some(read().await?), dialect: None })
    }

    /// Devices whose forwarding was switched on for the endpoints' sake, as the table that stands says.
    #[must_use]
    pub fn forwarding(&self) -> BTreeSet<String> {
        match &self.known {
            Some(Known::Stands(observed)) => {
                observed.contents.iter().flat_map(|contents| contents.opened.clone()).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Makes the kernel's table as `rules` want it, in one transaction: elements that differ are added
    /// and removed; where chains, rules, maps or sets do, the whole table is replaced, which
    /// established flows don't notice either.
    ///
    /// UDP flows that would go on to where a port led before, or to the host itself, are forgotten, so
    /// that their next packet goes to where it leads now.
    ///
    /// # Errors
    /// [`GatewayError`]. The kernel's table is then as it was, and is read again by the next sync.
    pub async fn sync(&mut self, rules: &Rules) -> Result<Changed, GatewayError> {
        let contents = Contents::of(rules);
        let objects = rules::skeleton(rules);
        let skeleton = observed::skeleton(&objects);
        let was_read = self.known.is_none();
        let known = match self.known.take() {
            Some(known) => known,
            None => read().await?,
        };
        let standing = match &known {
            Known::Stands(observed) if self.is_as_wanted(&observed.skeleton, &skeleton) => {
                observed.contents.as_ref()
            }
            _ => None,
        };
        let Some(standing) = standing else {
            self.replace(objects, skeleton, contents).await?;
            return Ok(Changed::Table);
        };
        if *standing == contents {
            self.known = Some(known);
            return Ok(Changed::Nothing);
        }
        let (changed, commands) = difference(standing, &contents);
        match nft::apply(commands).await {
            Ok(()) => {}
            // The table is not what it was believed to be: somebody was faster than word of it.
            Err(error @ GatewayError::Refused { .. }) if !was_read => {
                tracing::debug!(error = error_chain(&error), "nftables changed; reading it");
                return Box::pin(self.sync(rules)).await;
            }
            Err(error) => return Err(error),
        }
        let moved = moved(&standing.published, &contents.published);
        if let Known::Stands(observed) = known {
            let contents = Some(contents);
            self.known = Some(Known::Stands(Observed { contents, ..observed }));
        }
        forget(moved).await;
        Ok(changed)
    }

    /// Somebody changed nftables: the next sync looks before it believes.
    pub fn doubt(&mut self) {
        self.known = None;
    }

    /// Removes the table, where it stands.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn remove(&mut self) -> Result<(), GatewayError> {
        self.known = None;
        let table = || NfListObject::Table(rules::table());
        // Added first: to delete what is not there would be an error.
        nft::apply(vec![add(table()), delete(table())]).await
    }

    fn is_as_wanted(&self, observed: &[Value], wanted: &[Value]) -> bool {
        let dialect = self.dialect.as_ref();
        observed == wanted
            || dialect.is_some_and(|(ours, theirs)| ours == wanted && theirs == observed)
    }

    async fn replace(
        &mut self,
        objects: Vec<NfListObject<'static>>,
        skeleton: Vec<Value>,
        contents: Contents,
    ) -> Result<(), GatewayError> {
        let table = || NfListObject::Table(rules::table());
        let mut commands = vec![add(table()), delete(table()), add(table())];
        commands.extend(objects.into_iter().map(add));
        commands.extend(contents.elements().into_iter().map(NfListObject::Element).map(add));
        nft::apply(commands).await?;
        let written = contents.clone();
        // Another version of nft may write what it read in other words. That must not look like
        // somebody's change, or we would replace the table for ever.
        let observed = match read().await? {
            Known::Stands(observed) => observed,
            // Flushed already: word of it is on its way.
            Known::Missing => Observed { skeleton: skeleton.clone(), contents: Some(contents) },
        };
        if observed.skeleton != skeleton {
            tracing::debug!(wrote = ?skeleton, read = ?observed.skeleton, "nft's words for our rules");
            self.dialect = Some((skeleton, observed.skeleton.clone()));
        }
        if observed.contents.as_ref() != Some(&written) {
            let answer = "it reads back other elements than were written".to_owned();
            return Err(GatewayError::Refused { action: nft::WRITE, answer });
        }
        self.known = Some(Known::Stands(observed));
        forget(moved(&BTreeMap::new(), &written.published)).await;
        Ok(())
    }
}

async fn read() -> Result<Known, GatewayError> {
    Ok(match nft::list().await? {
        Some(objects) => Known::Stands(Observed::new(objects)),
        None => Known::Missing,
    })
}

fn add(object: NfListObject<'static>) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Add(object))
}

fn delete(object: NfListObject<'static>) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Delete(object))
}

/// The commands that make `standing` `wanted`.
fn difference(standing: &Contents, wanted: &Contents) -> (Changed, Vec<NfObject<'static>>) {
    let not_in = |these: &Contents, those: &Contents| Contents {
        published: these
            .published
            .iter()
            .filter(|(port, target)| those.published.get(port) != Some(target))
            .map(|(port, target)| (*port, target.clone()))
            .collect(),
        opened: these.opened.difference(&those.opened).cloned().collect(),
    };
    let (gone, new) = (not_in(standing, wanted), not_in(wanted, standing));
    let count = |contents: &Contents| contents.published.len() + contents.opened.len();
    let changed = Changed::Elements { added: count(&new), removed: count(&gone) };
    let elements = |contents: Contents| contents.elements().into_iter().map(NfListObject::Element);
    // Removed first: one that leads elsewhere now has the same key.
    let commands = elements(gone).map(delete).chain(elements(new).map(add)).collect();
    (changed, commands)
}

/// UDP ports that lead elsewhere than before, and where to; `None` = to the host itself.
fn moved(
    before: &BTreeMap<HostPort, Target>,
    now: &BTreeMap<HostPort, Target>,
) -> conntrack::Moved {
    let leads = |ports: &BTreeMap<HostPort, Target>, port: &HostPort| {
        ports.get(port).map(|target| (target.address, target.port))
    };
    let ports =
        before.keys().chain(now.keys()).filter(|(transport, ..)| *transport == Transport::Udp);
    ports
        .filter(|port| leads(before, port) != leads(now, port))
        .map(|port| ((port.1, port.2), leads(now, port)))
        .collect()
}

/// Failing is no reason to call the table wrong: the flows end by themselves when they pause.
async fn forget(moved: conntrack::Moved) {
    if moved.is_empty() {
        return;
    }
    match conntrack::forget(&moved).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "UDP flows that went elsewhere were forgotten"),
        Err(error) => tracing::warn!(
            error = error_chain(&error),
            "UDP flows of ports that were just published or unpublished keep going where they went"
        ),
    }
}
