//! Keeps the table `ip overlay` as the node's rules want it.

use std::collections::BTreeSet;

use nftables::schema::NfListObject;
use overlay_common::Counter;
use serde_json::{Value, json};

use super::{
    GatewayError, Rules,
    contents::Contents,
    nft,
    observed::{self, Observed},
    rules,
    suspicion::Shift,
};
use crate::error_chain;

/// The result of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The table was as wanted.
    Nothing,
    /// Elements of maps and sets were added or removed; the rules were not changed.
    Elements {
        /// Number of added elements; a changed element counts as added and as removed.
        added: usize,
        /// Number of removed elements.
        removed: usize,
    },
    /// The table was missing or its rules were not as wanted; it was replaced.
    Table,
}

/// The node's copy of the table in the kernel.
///
/// The table is read once, and again only after [`Self::doubt`]; in between, the copy is what was written
/// last. A table that is made by `default` has not been read: the first sync reads it.
#[derive(Debug, Default)]
pub struct Table {
    /// `None` = not known: the next sync reads it.
    known: Option<Known>,
    /// The skeleton that was written, and the form in which this version of nft lists it, if the two
    /// differ.
    dialect: Option<(Vec<Value>, Vec<Value>)>,
    /// What the chain for the VXLAN port counted before the table was written last, and since then.
    unseen: (Counter, Counter),
    /// What changed since the connections were last compared with the table.
    shift: Shift,
}

#[derive(Debug)]
enum Known {
    Missing,
    Present(Observed),
}

impl Table {
    /// Reads the table, and changes nothing.
    ///
    /// # Errors
    /// [`GatewayError`]: `nft` is missing, or the kernel has no nftables.
    pub async fn open() -> Result<Self, GatewayError> {
        let mut table = Self::default();
        table.known = Some(table.read().await?);
        Ok(table)
    }

    /// Devices whose forwarding a node switched on, according to the table in the kernel.
    #[must_use]
    pub fn forwarding(&self) -> BTreeSet<String> {
        match &self.known {
            Some(Known::Present(observed)) => {
                observed.contents.iter().flat_map(|contents| contents.opened.clone()).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Returns true if the table was in the kernel when it was last read or written.
    #[must_use]
    pub fn stands(&self) -> bool {
        matches!(self.known, Some(Known::Present(_)))
    }

    /// Makes the kernel's table as `rules` want it, in one transaction. If only elements differ, they are
    /// added and removed; if chains, rules, maps or sets differ, the whole table is replaced, which does not
    /// disturb established flows either.
    ///
    /// Connections that go on to a port's former target are left to [`Connections`](super::Connections).
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
            None => self.read().await?,
        };
        let current = match &known {
            Known::Present(observed) if self.is_as_wanted(&observed.skeleton, &skeleton) => {
                observed.contents.as_ref()
            }
            _ => None,
        };
        let Some(current) = current else {
            let before = match known {
                Known::Present(Observed { contents, .. }) => contents.unwrap_or_default(),
                Known::Missing => Contents::default(),
            };
            self.shift.is_rewritten = true;
            self.shift.add(&before.published, &contents.published);
            self.replace(objects, skeleton, contents).await?;
            return Ok(Changed::Table);
        };
        if *current == contents {
            self.known = Some(known);
            return Ok(Changed::Nothing);
        }
        let (changed, commands) = difference(current, &contents);
        match nft::apply(commands).await {
            Ok(()) => {}
            // The table differs from the copy: another program changed it, and the report of that change
            // has not come yet.
            Err(error @ GatewayError::Refused { .. }) if !was_read => {
                tracing::debug!(error = error_chain(&error), "nftables changed; reading it");
                return Box::pin(self.sync(rules)).await;
            }
            Err(error) => return Err(error),
        }
        self.shift.add(&current.published, &contents.published);
        if let Known::Present(observed) = known {
            let contents = Some(contents);
            self.known = Some(Known::Present(Observed { contents, ..observed }));
        }
        Ok(changed)
    }

    /// What changed since [`Self::settled`].
    pub(super) fn shift(&self) -> &Shift {
        &self.shift
    }

    /// Notes that the connections agree with the table.
    pub(super) fn settled(&mut self) {
        self.shift = Shift::default();
    }

    /// Drops the copy after a report that the table changed: the next sync reads the table.
    pub fn doubt(&mut self) {
        self.known = None;
    }

    /// Removes the table, if there is one.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn remove(&mut self) -> Result<(), GatewayError> {
        self.known = None;
        let table = || rules::value(&NfListObject::Table(rules::table()));
        // The table is added first, because deleting a missing table would be an error.
        nft::apply(vec![add(table()), delete(table())]).await
    }

    /// The packets to the VXLAN port that reached the host's own stack, as last read; since the table was made, or since
    /// this node started where another program removed it in between.
    #[must_use]
    pub fn unseen(&self) -> Counter {
        let (before, since) = self.unseen;
        Counter { packets: before.packets + since.packets, bytes: before.bytes + since.bytes }
    }

    async fn read(&mut self) -> Result<Known, GatewayError> {
        let objects = match nft::list().await {
            Ok(Some(objects)) => objects,
            Ok(None) => return Ok(Known::Missing),
            // It lists tables that the node writes. This one is somebody else's then, or was changed: nft 1.0.6 lists the
            // flags of a table from memory that is not theirs, and sometimes nothing at all.
            Err(error @ GatewayError::Answer { .. }) => {
                tracing::debug!(error = error_chain(&error), "nft cannot list the table");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let observed = Observed::new(objects);
        if observed.unseen.packets < self.unseen.1.packets {
            // Another program removed the rule, or wrote it anew.
            self.unseen.0 = self.unseen();
        }
        self.unseen.1 = observed.unseen;
        Ok(Known::Present(observed))
    }

    fn is_as_wanted(&self, observed: &[Value], wanted: &[Value]) -> bool {
        let dialect = self.dialect.as_ref();
        observed == wanted
            || dialect.is_some_and(|(ours, theirs)| ours == wanted && theirs == observed)
    }

    async fn replace(
        &mut self,
        objects: Vec<Value>,
        skeleton: Vec<Value>,
        contents: Contents,
    ) -> Result<(), GatewayError> {
        let table = || rules::value(&NfListObject::Table(rules::table()));
        let mut commands = vec![add(table()), delete(table()), add(table())];
        commands.extend(objects.into_iter().chain(elements(&contents)).map(add));
        nft::apply(commands).await?;
        // The new rule begins at zero.
        self.unseen = (self.unseen(), Counter::default());
        let written = contents.clone();
        // A version of nft may list rules in another form than they were written in. That must not look
        // like a change by another program, or the node would replace the table for ever.
        let observed = match self.read().await? {
            Known::Present(observed) => observed,
            // Another program flushed it already: the report of that is on its way.
            Known::Missing => {
                let (skeleton, contents) = (skeleton.clone(), Some(contents));
                Observed { skeleton, contents, unseen: Counter::default() }
            }
        };
        if observed.skeleton != skeleton {
            tracing::debug!(
                wrote = ?skeleton, read = ?observed.skeleton, "nft lists the rules in another form"
            );
            self.dialect = Some((skeleton, observed.skeleton.clone()));
        }
        if observed.contents.as_ref() != Some(&written) {
            let answer = "it lists other elements than were written".to_owned();
            return Err(GatewayError::Refused { action: nft::WRITE, answer });
        }
        self.known = Some(Known::Present(observed));
        Ok(())
    }
}

fn add(object: Value) -> Value {
    json!({"add": object})
}

fn delete(object: Value) -> Value {
    json!({"delete": object})
}

/// The elements of each map and set, as one object each.
fn elements(contents: &Contents) -> Vec<Value> {
    let elements = contents.elements().into_iter().map(NfListObject::Element);
    elements.map(|element| rules::value(&element)).collect()
}

/// The commands that change the elements from `current` to `wanted`.
fn difference(current: &Contents, wanted: &Contents) -> (Changed, Vec<Value>) {
    let not_in = |these: &Contents, those: &Contents| Contents {
        published: these
            .published
            .iter()
            .filter(|(port, target)| those.published.get(port) != Some(target))
            .map(|(port, target)| (*port, target.clone()))
            .collect(),
        opened: these.opened.difference(&those.opened).cloned().collect(),
        bridged: these.bridged.difference(&those.bridged).cloned().collect(),
    };
    let (gone, new) = (not_in(current, wanted), not_in(wanted, current));
    let count = |contents: &Contents| {
        let Contents { published, opened, bridged } = contents;
        published.len() + opened.len() + bridged.len()
    };
    let changed = Changed::Elements { added: count(&new), removed: count(&gone) };
    // Elements are removed first, because an element with a new target has the same key.
    let gone = elements(&gone).into_iter().map(delete);
    let commands = gone.chain(elements(&new).into_iter().map(add)).collect();
    (changed, commands)
}
