//! Whom a node asks, and what it takes for an answer.

use super::*;

const LEASE: Duration = Duration::from_secs(30);

fn view(leases: &[Lease]) -> View {
    let node = |(id, lease): (NodeId, &Lease)| {
        let address = Ipv4Addr::new(127, 0, 7, u8::try_from(id).unwrap());
        let node = Node {
            id,
            name: format!("h{id}").parse().unwrap(),
            vtep: address.into(),
            listen: (address, 7400).into(),
            instance: [0; 16],
            epoch: 1,
            voter: false,
            gateway: None,
            metrics: None,
            local_listen: None,
            speaks: None,
            raft_id: None,
            lease: *lease,
            demoted: false,
        };
        (id, Arc::new(node))
    };
    View { nodes: (1..).zip(leases).map(node).collect(), ..View::default() }
}

fn asked(view: &View, results: &Results, random: impl FnMut(u64) -> u64) -> Vec<NodeId> {
    targets(view, 1, results, LEASE, random).into_keys().collect()
}

#[test]
fn one_at_random_is_asked_and_all_that_do_not_count_as_living() {
    let nothing = Results::new();
    let few = view(&[Lease::Held, Lease::Held, Lease::Doubted, Lease::Held, Lease::Lost]);
    assert_eq!(asked(&few, &nothing, |bound| bound.saturating_sub(1)), [3, 4, 5]);
    assert_eq!(asked(&few, &nothing, |_| 0), [2, 3, 5]);
    assert!(asked(&view(&[Lease::Lost]), &nothing, |_| 0).is_empty(), "a node alone");
    // In a large cluster some ask, and whoever got an answer.
    let mut leases = [Lease::Held; 200];
    leases[7] = Lease::Doubted;
    let many = view(&leases);
    assert_eq!(asked(&many, &nothing, |_| PROBERS), [19], "the random one alone");
    assert_eq!(asked(&many, &nothing, |_| PROBERS - 1), [8, 18]);
    let answered = |ago| {
        let at = Instant::now().checked_sub(ago);
        let probed = Probed { node: 8, asked: Instant::now(), answered: at, unanswered: 1 };
        Results::from([(8, probed)])
    };
    assert_eq!(asked(&many, &answered(LEASE / 2), |_| PROBERS), [8, 19]);
    assert_eq!(asked(&many, &answered(LEASE), |_| PROBERS), [19]);
    // Whoever is drawn counts as living, so that a node that hears at all hears somebody in each round.
    let dying = view(&[Lease::Held, Lease::Lost, Lease::Lost, Lease::Held]);
    for drawn in 0..3 {
        assert!(asked(&dying, &nothing, |bound| drawn.min(bound - 1)).contains(&4), "{drawn}");
    }
    let lost = view(&[Lease::Lost; 100]);
    assert_eq!(asked(&lost, &nothing, |_| 0).len(), ASKED);
    assert_ne!(asked(&lost, &nothing, |_| 0), asked(&lost, &nothing, |_| 15), "others next time");
}

#[tokio::test]
async fn what_comes_back_turned_and_from_there_is_an_answer() {
    // The others are where nobody listens, or send something else back.
    let at = |last| Ipv4Addr::new(127, 0, 7, last);
    let bind = async |last, port| Arc::new(UdpSocket::bind((at(last), port)).await.unwrap());
    let honest = bind(2, 0).await;
    let vxlan_port = honest.local_addr().unwrap().port();
    let (forger, elsewhere) = (bind(3, vxlan_port).await, bind(4, vxlan_port).await);
    let (sender, reflector) = (bind(4, 0).await, bind(6, vxlan_port).await);
    let answer = |socket: Arc<UdpSocket>, by: Arc<UdpSocket>, changed: u8, turns: bool| {
        tokio::spawn(async move {
            let mut buffer = [0; 200];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                buffer[len - 1] ^= changed;
                assert_eq!(buffer[8..20], [&NOBODY[..], &PROBE_MAC[..]].concat());
                if turns {
                    buffer[8..20].rotate_left(6);
                }
                by.send_to(&buffer[..len], from).await.unwrap();
            }
        })
    };
    answer(Arc::clone(&honest), honest, 0, true);
    answer(Arc::clone(&forger), forger, 1, true);
    answer(elsewhere, sender, 0, true);
    answer(Arc::clone(&reflector), reflector, 0, false);
    let (status, _seen) = watch::channel(LocalStatus::default());
    let view = view(&[Lease::Lost; 6]);
    let probing = Probing {
        id: 1,
        lease: LEASE,
        vxlan_port,
        views: watch::channel(None).1,
        own: watch::channel(at(1)).1,
        status,
    };
    let asked = targets(&view, 1, &Results::new(), LEASE, |_| 0);
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let begun = Instant::now();
    let answered = ask(&probing, &asked, begun + Duration::from_millis(500)).await.unwrap();
    assert_eq!(answered, [2].into());

    let mut results = Results::new();
    for _ in 0..2 {
        note(&mut results, &asked, &answered, begun);
    }
    let of = |node| {
        let Probed { answered, unanswered, .. } = results[&node];
        (answered, unanswered)
    };
    assert_eq!((of(2), of(3)), ((Some(begun), 0), (None, 2)));
}

fn probed(node: NodeId, answered: Option<Duration>, unanswered: u32) -> (NodeId, Probed) {
    let answered = answered.and_then(|ago| Instant::now().checked_sub(ago));
    (node, Probed { node, asked: Instant::now(), answered, unanswered })
}

/// A node to which no answers come, because its own host drops them, must not make others lose their place.
#[test]
fn a_node_that_hears_nobody_testifies_against_nobody() {
    let unanswered = |results: &Results| -> Vec<(NodeId, u32)> {
        let reported = reported(results, LEASE);
        reported.iter().map(|probed| (probed.node, probed.unanswered)).collect()
    };
    let dead = probed(2, None, 7);
    assert_eq!(unanswered(&Results::from([dead, probed(3, None, 4)])), [(2, 0), (3, 0)]);
    let long_ago = probed(3, Some(LEASE), 4);
    assert_eq!(unanswered(&Results::from([dead, long_ago])), [(2, 0), (3, 0)]);
    let lately = probed(3, Some(LEASE / 2), 4);
    assert_eq!(unanswered(&Results::from([dead, lately])), [(2, 7), (3, 4)]);
    // What is not reported any more shows all the same that this node hears.
    let mut results = Results::from([dead, lately]);
    results.get_mut(&3).unwrap().asked = Instant::now().checked_sub(LEASE / 2).unwrap();
    assert_eq!(unanswered(&results), [(2, 7)]);
}

#[test]
fn a_node_that_hears_nobody_for_a_lease_says_so_until_it_hears_somebody() {
    let asked: BTreeMap<NodeId, Vtep> = [(2, Ipv4Addr::new(127, 0, 7, 2).into())].into();
    let (nobody, port) = (BTreeSet::new(), 4789);
    let mut hearing = Hearing::default();
    for _ in 1..ROUNDS {
        hearing.note(&asked, &nobody, port);
        hearing.note(&BTreeMap::new(), &nobody, port);
    }
    assert_eq!(hearing.trouble(port), None, "who asked nobody, or not often, knows nothing");
    hearing.note(&asked, &nobody, port);
    let said = hearing.trouble(port).unwrap();
    assert!(
        said.contains(
            "no VTEP answers this node's probes: a firewall may drop UDP from the VXLAN port 4789"
        ),
        "{said}"
    );
    hearing.note(&asked, &[2].into(), port);
    assert_eq!(hearing.trouble(port), None);
}

/// Two probes are never the same, and a number is below its bound.
#[test]
fn what_is_random_is_within_its_bounds() {
    let drawn: BTreeSet<u64> = (0..100).map(|_| random(u64::MAX)).collect();
    assert_eq!(drawn.len(), 100);
    assert!((0..100).all(|_| random(3) < 3));
    assert_eq!(random(0), 0);
}
