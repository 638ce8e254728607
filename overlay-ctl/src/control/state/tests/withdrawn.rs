//! What removed endpoints had is held back until it is known to be forgotten.

use super::*;

/// A cluster at version 2 with nodes 1 to 3, and a network of five addresses for endpoints, of which `a` on h1 and `b` on h2 have
/// the first two.
fn replica() -> Replica {
    let mut r = Replica::default();
    for number in 1..=3 {
        r.node(number).unwrap();
    }
    r.raise();
    r.network("net", "10.0.0.0/29", None).unwrap();
    for wish in [Wish::new("a"), Wish { node: "h2", ..Wish::new("b") }] {
        r.apply(wish.command()).unwrap();
    }
    r
}

fn create(name: &str, ip: Option<&str>) -> Command {
    Command::CreateEndpoint {
        name: name.parse().unwrap(),
        network: "net".parse().unwrap(),
        placement: Placement::Node {
            node: "h1".parse().unwrap(),
            netns: PathBuf::from(format!("/run/netns/{name}")),
            addresses: ip.map(addresses).unwrap_or_default(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::default(),
        ports: PortsWanted::default(),
    }
}

impl Replica {
    /// Applies the command as a leader logs it that knows what is programmed up to `confirmed`.
    fn confirmed(&mut self, confirmed: Revision, command: Command) -> Outcome {
        let noted = Noted { confirmed: Some(confirmed), ..Noted::default() };
        let decided = self.state.decide_noting(self.index + 1, command.clone(), noted).map(drop);
        self.index += 1;
        let request = Mutation::new(request_id(self.index), &command);
        let entry = self.state.entry_noting(request, command, noted).encode().unwrap();
        let outcome = self.state.apply_entry(self.index, &entry);
        assert_eq!(decided, outcome.clone().map(drop), "decide foretells apply");
        let restored = State::from_snapshot(&self.state.snapshot()).unwrap();
        assert_eq!(restored, self.state, "a snapshot holds what is held back");
        outcome
    }

    fn network_id(&self) -> NetworkId {
        self.state.networks().next().unwrap().id
    }
}

#[test]
fn a_name_and_an_address_are_free_when_they_are_forgotten() {
    for command in [create("new", Some("10.0.0.2")), create("A", None)] {
        let mut r = replica();
        let Ok(Applied::Removed(gone)) = r.remove("a") else { panic!("it is there") };
        let refusal = r.confirmed(gone - 1, command.clone()).unwrap_err();
        assert_eq!(refusal.held_back_since(), Some(gone), "{refusal}");
        let text = refusal.to_string();
        assert!(text.contains("of network net was withdrawn at revision"), "{text}");
        assert!(text.starts_with("address 10.0.0.2") || text.starts_with("name A"), "{text}");
        // Another is given out meanwhile.
        assert_eq!(address(r.confirmed(gone - 1, create("other", None))), "10.0.0.4");
        r.confirmed(gone, command).unwrap();
    }
}

#[test]
fn a_pool_that_is_full_but_for_what_is_held_back_says_so() {
    let mut r = replica();
    for name in ["c", "d", "e"] {
        r.apply(create(name, None)).unwrap();
    }
    let full = r.confirmed(r.index, create("f", None)).unwrap_err();
    assert!(matches!(full, Refusal::AddressesExhausted { .. }), "{full}");
    r.remove("a").unwrap();
    let Ok(Applied::Removed(gone)) = r.remove("c") else { panic!("it is there") };
    let refusal = r.confirmed(gone - 2, create("f", None)).unwrap_err();
    let (range, network) = ("10.0.0.0/29".to_owned(), "net".parse().unwrap());
    let expected = Refusal::AddressesHeldBack { range, network, count: 2, revision: gone };
    assert_eq!(refusal, expected);
    // One of the two is forgotten.
    assert_eq!(address(r.confirmed(gone - 1, create("f", None))), "10.0.0.2");
    assert_eq!(address(r.confirmed(gone, create("g", None))), "10.0.0.4");
}

#[test]
fn those_that_are_to_forget_are_the_owners_and_the_members() {
    let mut r = replica();
    let net = r.network_id();
    assert_eq!(r.state.to_forget(net), BTreeSet::new(), "nothing is held back");
    let Ok(Applied::Removed(gone)) = r.remove("b") else { panic!("it is there") };
    assert_eq!(r.state.to_forget(net), [1, 2].into(), "h2 had it, and h1 is on the network");
    // Known to be forgotten, it is nobody's business any more.
    r.confirmed(gone, create("c", None)).unwrap();
    assert_eq!(r.state.to_forget(net), BTreeSet::new());
    // The endpoints of a node that is removed: it does not come back as the same.
    let name = "h1".parse().unwrap();
    let remove = Command::RemoveNode { name, only: None, with_endpoints: true };
    let Ok(Applied::Removed(gone)) = r.apply(remove) else { panic!("it is there") };
    assert_eq!(r.state.to_forget(net), BTreeSet::new(), "nobody is left there");
    let on_h3 = Wish { node: "h3", ..Wish::new("a") }.command();
    r.confirmed(gone - 1, on_h3.clone()).unwrap_err();
    r.confirmed(gone, on_h3).unwrap();
}

#[test]
fn nothing_is_held_back_at_version_1_and_where_nobody_looked() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/29", None).unwrap();
    r.apply(create("a", None)).unwrap();
    r.remove("a").unwrap();
    r.confirmed(0, create("a", Some("10.0.0.2"))).unwrap();
    let mut r = replica();
    r.remove("a").unwrap();
    r.apply(create("a", Some("10.0.0.2"))).unwrap();
    // It is removed once more, and the later removal counts.
    let Ok(Applied::Removed(gone)) = r.remove("a") else { panic!("it is there") };
    r.confirmed(gone - 1, create("a", Some("10.0.0.2"))).unwrap_err();
    r.confirmed(gone, create("a", Some("10.0.0.2"))).unwrap();
}
