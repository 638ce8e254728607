//! The version of the state: what may be logged at it, who may register at it, and how it is raised.

use super::{Command, Decision, Envelope, Mutation, Noted, Refusal, State, dedup::Dedup};
use crate::model::{Node, NodeId, Speaks, Version};
use std::collections::BTreeMap;

impl State {
    /// The state of a new cluster that begins at `version`. [`State::default`] is at version 1.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { version, dedup: Dedup::default().at(version), ..Self::default() }
    }

    /// The cluster's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The log entry for `command`, which `request` asks for, by the rules of the cluster's version. That of a raise is by
    /// the rules of the version that it leads to: a program that does not speak it says so, whatever it knows of commands.
    #[must_use]
    pub fn entry(&self, request: Mutation, command: Command) -> Envelope {
        self.entry_noting(request, command, Noted::default())
    }

    /// As [`State::entry`], with what the leader adds. A cluster of version 1 has no place for that.
    #[must_use]
    pub fn entry_noting(&self, request: Mutation, command: Command, noted: Noted) -> Envelope {
        let rules = self.version.max(command.needs()).number();
        Envelope { rules, noted: self.noted(noted), ..Envelope::new(request, command) }
    }

    /// What may be noted at the cluster's version.
    pub(super) fn noted(&self, noted: Noted) -> Noted {
        if self.version >= Version::V2 { noted } else { Noted::default() }
    }

    /// Fails if nodes that speak no more than the cluster's version could not read the command. Nothing like it is logged.
    pub(super) fn check_needs(&self, command: &Command) -> Result<(), Refusal> {
        let (needs, has) = (command.needs(), self.version);
        match command {
            // It has a check of its own, of what each node speaks.
            Command::RaiseVersion { .. } => Ok(()),
            _ if needs > has => Err(Refusal::NeedsVersion { needs, has }),
            _ => Ok(()),
        }
    }

    /// Fails if a node with such a program can't be in this cluster.
    ///
    /// # Errors
    /// [`Refusal::VersionNotSpoken`].
    pub fn check_speaks(&self, speaks: Speaks) -> Result<(), Refusal> {
        if speaks.covers(self.version) {
            Ok(())
        } else {
            Err(Refusal::VersionNotSpoken { speaks, cluster: self.version })
        }
    }

    pub(super) fn raise_version(
        &self,
        to: Version,
        speaks: &BTreeMap<NodeId, Speaks>,
    ) -> Result<Decision, Refusal> {
        let refused = |why: String| Err(Refusal::CannotRaise { to, why });
        if to != self.version.next() {
            return refused(format!("it is at version {}", self.version));
        }
        if !self.nodes.keys().eq(speaks.keys()) {
            return refused("the nodes are others than those that were asked".to_owned());
        }
        if let Some((id, speaks)) = speaks.iter().find(|(_, speaks)| !speaks.covers(to)) {
            return refused(format!("node {id} speaks {speaks}"));
        }
        let rows = self.nodes().zip(speaks.values());
        let nodes = rows.map(|(row, speaks)| Node { speaks: Some(*speaks), ..row.clone() });
        Ok(Decision::RaiseVersion { to, nodes: nodes.collect() })
    }
}
