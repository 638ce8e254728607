//! A request's id is that of one request: repeated it is answered, and used for another it is refused.

use super::*;
use crate::model::{NetworkId, NodeId, SPEAKS};

fn replica() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/16", None).unwrap();
    r.network("other", "10.1.0.0/16", None).unwrap();
    r
}

/// One of version 1 and one of version 2, which remember requests in other forms.
fn replicas() -> [Replica; 2] {
    let (first, mut second) = (replica(), replica());
    second.raise();
    [first, second]
}

impl Replica {
    pub(super) fn raise(&mut self) {
        let speaks = self.state.nodes().map(|node| (node.id, SPEAKS)).collect();
        self.apply(Command::RaiseVersion { to: Version::V2, speaks }).unwrap();
    }

    /// How the removal of endpoint `name` is called where another request has its id.
    fn removal_of(&self, name: &str) -> String {
        match self.state.version() {
            Version::V1 => format!("the removal of endpoint {name}"),
            _ => "the removal of an endpoint at revision".to_owned(),
        }
    }

    /// Applies `command` as the request `id`.
    fn request(&mut self, id: u64, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply_entry(self.index, &envelope(id, command))
    }

    /// Applies `command` as the leader logs it, which looked up what it removes.
    fn as_logged(&mut self, id: u64, mut command: Command) -> Outcome {
        let request = Mutation::new(request_id(id), &command);
        if let Ok(decision) = self.state.decide(self.index + 1, command.clone()) {
            decision.bind(&mut command);
        }
        self.index += 1;
        self.state.apply_entry(self.index, &Envelope::new(request, command).encode().unwrap())
    }

    /// Another request makes no difference to anything but the revision.
    #[track_caller]
    fn changes_nothing(&mut self, id: u64, command: Command) -> Outcome {
        let mut before = self.state.clone();
        let outcome = self.request(id, command);
        before.revision = self.state.revision;
        assert_eq!(self.state, before);
        outcome
    }
}

fn external(name: &str, network: &str, address: &str) -> Command {
    let address: Ipv4Addr = address.parse().unwrap();
    Command::CreateEndpoint {
        name: name.parse().unwrap(),
        network: network.parse().unwrap(),
        placement: Placement::External {
            vtep: Ipv4Addr::new(203, 0, 113, 77).into(),
            mac: Mac::of_endpoint(address),
            addresses: address.into(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    }
}

fn remove_endpoint(name: &str, network: Option<&str>, only: Option<EndpointId>) -> Command {
    let network = network.map(|network| network.parse().unwrap());
    Command::RemoveEndpoint { name: name.parse().unwrap(), network, only }
}

fn remove_network(name: &str, only: Option<NetworkId>) -> Command {
    Command::RemoveNetwork { name: name.parse().unwrap(), only }
}

fn remove_node(name: &str, only: Option<NodeId>) -> Command {
    Command::RemoveNode { name: name.parse().unwrap(), only, with_endpoints: false }
}

fn network(name: &str, pool: Option<&str>, vni: Option<u32>, options: NetworkOptions) -> Command {
    Command::CreateNetwork {
        name: name.parse().unwrap(),
        pool: pool.map(|pool| Pool::whole(pool.parse().unwrap())),
        vni: vni.map(|vni| Vni::try_from(vni).unwrap()),
        options,
    }
}

fn node(number: u8, change: impl FnOnce(&mut Command)) -> Command {
    let mut command = Command::RegisterNode {
        instance: [number; 16],
        name: format!("h{number}").parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, number).into(),
        listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    };
    change(&mut command);
    command
}

/// Commands of which no two ask for the same: each verb, and each of its parameters on its own.
fn all_different() -> Vec<Command> {
    let plain = NetworkOptions::default();
    let web = Wish::new("web1");
    let wishes = [
        web.clone(),
        Wish { network: "other", ..web.clone() },
        Wish { node: "h2", ..web.clone() },
        Wish { netns: "x", ..web.clone() },
        Wish { aliases: &["www"], ..web.clone() },
        Wish { exposed: &["80/tcp"], ..web.clone() },
        Wish { publish: &["80"], ..web.clone() },
        Wish { publish: &["80", "81"], ..web.clone() },
        Wish { exposed: &["80/tcp"], publish_all: true, ..web.clone() },
        Wish::new("web2"),
    ];
    let mut commands: Vec<Command> = wishes.iter().map(Wish::command).collect();
    let sets = [&Permission::ALL[..], &Permission::ALL[..1], &Permission::ALL[1..2]];
    commands.extend(sets.map(|set| {
        let mut command = web.command();
        if let Command::CreateEndpoint { permissions, .. } = &mut command {
            *permissions = set.iter().copied().collect();
        }
        command
    }));
    let mut asks_for_an_address = web.command();
    if let Command::CreateEndpoint { placement: Placement::Node { addresses, .. }, .. } =
        &mut asks_for_an_address
    {
        *addresses = Ipv4Addr::new(10, 0, 0, 9).into();
    }
    commands.push(asks_for_an_address);
    commands.extend([
        external("web1", "net", "10.0.0.9"),
        external("web1", "net", "10.0.0.10"),
        remove_endpoint("web1", None, None),
        remove_endpoint("web1", Some("net"), None),
        remove_endpoint("web1", Some("other"), None),
        remove_endpoint("web1", None, Some(4)),
        remove_endpoint("web1", None, Some(5)),
        remove_endpoint("web2", None, None),
        network("web1", None, None, plain),
        network("web1", Some("10.3.0.0/24"), None, plain),
        network("web1", None, Some(7000), plain),
        network("web1", None, None, NetworkOptions { icc: false, ..plain }),
        network("web1", None, None, NetworkOptions { internal: true, ..plain }),
        network("web1", None, None, NetworkOptions { multicast: true, ..plain }),
        network("web1", None, None, NetworkOptions { mtu: Some(1400), ..plain }),
        network("web2", None, None, plain),
        remove_network("web1", None),
        remove_network("web1", Some(4)),
        remove_network("web2", None),
        node(7, |_| {}),
        node(8, |_| {}),
        remove_node("web1", None),
        remove_node("web1", Some(4)),
        remove_node("web2", None),
        Command::RemoveNode { name: "web1".parse().unwrap(), only: None, with_endpoints: true },
    ]);
    commands
}

#[test]
fn requests_that_differ_in_anything_have_different_digests() {
    let commands = all_different();
    let digests: BTreeSet<Digest> = commands.iter().map(Command::digest).collect();
    assert_eq!(digests.len(), commands.len());
}

#[test]
fn an_id_that_was_used_is_refused_for_anything_else() {
    for mut r in replicas() {
        let first = Wish::new("web1").command();
        let made = r.request(77, first.clone());
        assert!(made.is_ok(), "{made:?}");
        for other in all_different().into_iter().filter(|command| *command != first) {
            let refusal = r.changes_nothing(77, other.clone()).unwrap_err();
            let Refusal::RequestIdUsed { request, .. } = &refusal else {
                panic!("{other:?}: {refusal}")
            };
            assert_eq!(request.into_bytes(), request_id(77));
            assert!(refusal.to_string().contains("the creation of endpoint web1"), "{refusal}");
        }
        assert_eq!(r.changes_nothing(77, first), made);
    }
}

#[test]
fn one_id_for_several_removals_removes_one() {
    for mut r in replicas() {
        r.request(101, external("a", "net", "10.0.0.8")).unwrap();
        r.request(102, external("b", "net", "10.0.0.9")).unwrap();
        let gone = r.request(77, remove_endpoint("a", Some("net"), None)).unwrap();
        let used_for = r.removal_of("a");
        for other in [
            remove_endpoint("b", Some("net"), None),
            remove_endpoint("a", Some("other"), None),
            remove_network("other", None),
            remove_node("h1", None),
        ] {
            let refusal = r.changes_nothing(77, other).unwrap_err().to_string();
            assert!(refusal.contains(&used_for) && refusal.contains("request_id"), "{refusal}");
        }
        assert_eq!(r.changes_nothing(77, remove_endpoint("a", Some("net"), None)), Ok(gone));
        // Not even what was registered, or what is gone.
        let unused = r.request(78, remove_endpoint("b", None, None)).unwrap();
        let made = r.changes_nothing(102, network("x", None, None, NetworkOptions::default()));
        assert!(matches!(made, Err(Refusal::RequestIdUsed { .. })), "{made:?}");
        assert_eq!(r.changes_nothing(78, remove_endpoint("b", None, None)), Ok(unused));
    }
}

#[test]
fn a_removal_repeated_after_many_other_requests_leaves_the_successor() {
    for mut r in replicas() {
        r.request(1_000_000, external("victim", "net", "10.0.0.9")).unwrap();
        let gone = r.as_logged(77, remove_endpoint("victim", None, None)).unwrap();
        for n in 0..4_100u32 {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 1, 0)) + n);
            let command = external(&format!("f{n}"), "other", &address.to_string());
            r.request(2_000_000 + u64::from(n), command).unwrap();
        }
        r.request(1_000_001, external("victim", "net", "10.0.0.9")).unwrap();
        // Also where a snapshot, and a raise, were in between.
        r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
        if r.state.version() == Version::V1 {
            r.raise();
        }
        assert_eq!(r.as_logged(77, remove_endpoint("victim", None, None)), Ok(gone));
        r.state.endpoint_named(&"victim".parse().unwrap(), None).unwrap();
    }
}

/// Makes something, and removes it: the name of what is removed, and both commands.
fn made_and_removed() -> Vec<(&'static str, Command, Command)> {
    let plain = NetworkOptions::default();
    vec![
        ("endpoint x", external("x", "net", "10.0.0.9"), remove_endpoint("x", None, None)),
        ("network x", network("x", Some("10.9.0.0/24"), None, plain), remove_network("x", None)),
        ("node h9", node(9, |_| {}), remove_node("h9", None)),
    ]
}

#[test]
fn a_removal_names_what_it_removes_and_no_successor() {
    for (what, make, remove) in made_and_removed() {
        let mut r = replica();
        let make = |r: &mut Replica, id: u64| {
            let mut make = make.clone();
            if let Command::RegisterNode { instance, .. } = &mut make {
                // Another machine of the same name.
                *instance = [u8::try_from(id).unwrap(); 16];
            }
            r.request(id, make).unwrap()
        };
        make(&mut r, 101);
        let mut logged = remove.clone();
        r.state.decide(r.index + 1, remove.clone()).unwrap().bind(&mut logged);
        assert_ne!(logged, remove);
        // Somebody else is faster, and a successor is there when the entry is applied.
        r.request(102, remove.clone()).unwrap();
        make(&mut r, 103);
        let refusal = r.changes_nothing_but_memory(104, logged.clone()).unwrap_err();
        assert!(matches!(refusal, Refusal::Replaced { .. }), "{refusal}");
        assert!(refusal.to_string().starts_with(what), "{refusal}");
        // The one that it names is not there, and neither is another.
        r.request(105, remove.clone()).unwrap();
        let refusal = r.changes_nothing_but_memory(106, logged).unwrap_err();
        assert!(!matches!(refusal, Refusal::Replaced { .. }), "{refusal}");
        // What the caller names itself is kept to.
        make(&mut r, 107);
        let now = r.index;
        let mut named = remove.clone();
        r.state.decide(now + 1, remove).unwrap().bind(&mut named);
        r.as_logged(108, named).unwrap();
    }
}

impl Replica {
    #[track_caller]
    fn changes_nothing_but_memory(&mut self, id: u64, command: Command) -> Outcome {
        let mut before = self.state.clone();
        let outcome = self.request(id, command);
        (before.revision, before.dedup) = (self.state.revision, self.state.dedup.clone());
        assert_eq!(self.state, before);
        outcome
    }
}

#[test]
fn what_a_request_made_is_not_made_anew_by_its_repetition() {
    for (what, make, remove) in made_and_removed() {
        let mut r = replica();
        r.request(77, make.clone()).unwrap();
        r.request(78, remove).unwrap();
        let refusal = r.changes_nothing(78, make.clone()).unwrap_err();
        assert!(refusal.to_string().contains(&format!("the removal of {what}")), "{refusal}");
        let refusal = r.changes_nothing(77, make).unwrap_err();
        match &refusal {
            Refusal::Gone { .. } => assert!(refusal.to_string().starts_with(what), "{refusal}"),
            Refusal::NodeRemoved(name) => assert_eq!(format!("node {name}"), what),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_the_node_adds_to_a_creation_is_not_asked_for() {
    let mut r = replica();
    r.node_at(1, "172.18.0.0/16").unwrap();
    let asked = Wish { publish: &["80"], ..Wish::new("web1") };
    let request = Mutation::new(request_id(77), &asked.command());
    let mut logged = |busy: &'static [(Transport, u16)]| {
        let command = Wish { busy, ..asked.clone() }.command();
        r.index += 1;
        r.state.apply_entry(r.index, &Envelope::new(request, command).encode().unwrap())
    };
    let made = logged(&[(Transport::Tcp, 32_768)]).unwrap();
    assert_eq!(logged(&[(Transport::Tcp, 32_769)]), Ok(made));
}

/// An id alone does not tell what the caller means: the name and the network must be those of the row.
#[test]
fn a_removal_keeps_to_the_name_the_network_and_the_id() {
    let mut r = replica();
    let mut make = |request: u64, name: &str, network: &str, address: &str| match r
        .request(request, external(name, network, address))
    {
        Ok(Applied::Endpoint(endpoint)) => endpoint.id,
        other => panic!("{other:?}"),
    };
    let a = make(101, "a", "net", "10.0.0.8");
    let b = make(102, "b", "net", "10.0.0.9");
    let elsewhere = make(103, "a", "other", "10.1.0.8");
    for (asked, found) in [
        (remove_endpoint("b", None, Some(a)), b),
        (remove_endpoint("a", Some("other"), Some(a)), elsewhere),
        (remove_endpoint("a", Some("net"), Some(elsewhere)), a),
    ] {
        let refusal = r.changes_nothing_but_memory(104 + found, asked).unwrap_err();
        assert!(matches!(refusal, Refusal::Replaced { found: f, .. } if f == found), "{refusal}");
    }
    r.request(200, remove_endpoint("a", None, Some(elsewhere))).unwrap();
    let left: Vec<EndpointId> = r.state.endpoints().map(|endpoint| endpoint.id).collect();
    assert_eq!(left, [a, b], "the id says which of two with one name");
}
