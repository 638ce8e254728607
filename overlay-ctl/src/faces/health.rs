//! Whether a node can do what it is asked for: one pure function, by which all faces answer.

use super::ServedNode;

/// What a node's health is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node is ending.
    pub is_ending: bool,
    /// There is a leader by which this node can have a request answered, or there will be one in a moment.
    pub has_leader: bool,
    /// The kernel has held a whole state since the node started.
    pub is_programmed: bool,
    /// The error that keeps the kernel from the desired state, if one does.
    pub error: Option<String>,
}

impl ServedNode {
    /// What the node knows of itself now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let status = self.status.borrow().clone();
        Facts {
            is_ending: false,
            has_leader: self.controller.is_served(),
            is_programmed: status.programmed > 0,
            error: status.error,
        }
    }
}

/// What a caller may ask the health of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The node as a whole: whether it is ready.
    Node,
    /// Networks, which the leader makes and lists.
    Networks,
    /// Endpoints, likewise.
    Endpoints,
    /// Nodes, likewise.
    Nodes,
    /// The node's own status, which needs nobody else.
    Cluster,
    /// Events of the node's packets, which need nobody else.
    Watch,
}

impl Service {
    const ALL: [Self; 6] =
        [Self::Node, Self::Networks, Self::Endpoints, Self::Nodes, Self::Cluster, Self::Watch];

    fn needs_leader(self) -> bool {
        match self {
            Self::Node | Self::Networks | Self::Endpoints | Self::Nodes => true,
            Self::Cluster | Self::Watch => false,
        }
    }
}

/// The health of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The service.
    pub service: Service,
    /// Why it can't do what it is asked for, in words; empty = it can.
    pub troubles: Vec<String>,
}

impl Health {
    /// Whether the service can do what it is asked for.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.troubles.is_empty()
    }
}

/// The health of each service.
#[must_use]
pub fn health(facts: &Facts) -> [Health; 6] {
    Service::ALL.map(|service| Health { service, troubles: troubles(service, facts) })
}

/// Why a service can't do what it is asked for; empty = it can.
#[must_use]
pub fn troubles(service: Service, facts: &Facts) -> Vec<String> {
    let Facts { is_ending, has_leader, is_programmed, error } = facts;
    let mut troubles = Vec::new();
    if *is_ending {
        troubles.push("the node is ending".to_owned());
    }
    if service.needs_leader() && !has_leader {
        troubles.push(
            "the cluster has no leader with a quorum that this node reaches: `overlay cluster status` says which voters are missing, and what to do"
                .to_owned(),
        );
    }
    if service == Service::Node {
        match error {
            Some(error) => troubles
                .push(format!("the kernel does not hold what the cluster asks for: {error}")),
            None if !is_programmed => {
                troubles.push("the kernel does not hold what the cluster asks for yet".to_owned());
            }
            None => {}
        }
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Facts =
        Facts { is_ending: false, has_leader: true, is_programmed: true, error: None };

    #[test]
    fn a_service_serves_if_it_can_do_what_it_is_asked_for() {
        use Service::{Cluster, Endpoints, Networks, Node, Nodes, Watch};
        let error = || Some("no bpffs".to_owned());
        for (facts, ailing) in [
            (SOUND, &[][..]),
            (Facts { has_leader: false, ..SOUND }, &[Node, Networks, Endpoints, Nodes]),
            (Facts { is_programmed: false, ..SOUND }, &[Node]),
            (Facts { error: error(), ..SOUND }, &[Node]),
            (
                Facts { error: error(), has_leader: false, ..SOUND },
                &[Node, Networks, Endpoints, Nodes],
            ),
            (
                Facts { is_ending: true, ..SOUND },
                &[Node, Networks, Endpoints, Nodes, Cluster, Watch],
            ),
        ] {
            let found = health(&facts).into_iter().filter(|health| !health.serves());
            let found: Vec<Service> = found.map(|health| health.service).collect();
            assert_eq!(found, ailing, "{facts:?}");
        }
    }

    #[test]
    fn each_trouble_is_said_once() {
        let worst = Facts {
            is_ending: true,
            has_leader: false,
            is_programmed: false,
            error: Some("no bpffs".to_owned()),
        };
        let said = troubles(Service::Node, &worst);
        assert_eq!(said.len(), 3, "{said:?}");
        for (trouble, words) in said.iter().zip(["ending", "no leader", ": no bpffs"]) {
            assert!(trouble.contains(words), "{words} in {trouble}");
        }
    }
}
