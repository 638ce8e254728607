//! The stream of events about dropped and forwarded packets, with the names that users know.

use overlay_ctl::proto::v1::{DropsRequest, Event, EventsRequest, InspectEndpointRequest};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::{
    fixture::{Api, BOUND, NETWORK, assert_refused, endpoint, with_node},
    lab::Netns,
};

/// Creates two endpoints of one network, and one of a second network.
async fn arrange(api: &mut Api) -> (Netns, Netns, Netns) {
    api.network(NETWORK, "172.16.16.0/24").await;
    api.network("other", "172.16.17.0/24").await;
    let netns = ["a", "b", "c"].map(Netns::new);
    for (name, netns) in [("web1", &netns[0]), ("web2", &netns[1])] {
        api.endpoints.create(endpoint(name, netns)).await.unwrap();
    }
    let mut web3 = endpoint("web3", &netns[2]);
    web3.network = "other".to_owned();
    api.endpoints.create(web3).await.unwrap();
    netns.into()
}

async fn listen(api: &mut Api, request: EventsRequest) -> Streaming<Event> {
    api.watch.events(request).await.unwrap().into_inner()
}

fn every_packet() -> EventsRequest {
    EventsRequest { sample: 1, ..EventsRequest::default() }
}

/// The next event that is wanted.
async fn until(events: &mut Streaming<Event>, mut is_wanted: impl FnMut(&Event) -> bool) -> Event {
    loop {
        let event = timeout(BOUND, events.message()).await.expect("an event comes in time");
        let event = event.unwrap().expect("the stream stands");
        if is_wanted(&event) {
            return event;
        }
    }
}

#[test]
fn a_drop_is_streamed_with_the_names_of_network_and_endpoint() {
    with_node(async |_, mut api| {
        let (web, ..) = arrange(&mut api).await;
        let web1 = InspectEndpointRequest { name: "web1".to_owned(), ..Default::default() };
        let made = api.endpoints.inspect(web1).await.unwrap().into_inner();
        // The older call, for a stream of drops alone.
        let mut drops = api.watch.drops(DropsRequest {}).await.unwrap().into_inner();
        // The stream has no gap from here on.
        assert!(!web.succeeds("ping -c 1 -W 1 172.16.16.77"), "somebody answered");
        let seen = until(&mut drops, |event| event.reason == "arp_unknown_target").await;
        assert_eq!((seen.network.as_str(), seen.endpoint.as_str()), (NETWORK, "web1"));
        assert_eq!(seen.source, format!("web1.{NETWORK}"));
        assert_eq!(seen.destination, "172.16.16.77");
        assert_eq!(seen.direction, "from_endpoint");
        assert_eq!((&seen.interface, &seen.src_mac), (&made.host_interface, &made.mac));
        assert_eq!((seen.ethertype, seen.dst_mac.as_str()), (0x0806, "ff:ff:ff:ff:ff:ff"));
        assert_eq!((seen.sample, seen.lost), (1, 0));
        assert!(seen.length >= 42 && seen.time_ns > 0, "{seen:?}");

        let counters = api.status().await.datapath.unwrap().counters;
        let counted = counters.iter().find(|counter| counter.reason == "arp_unknown_target");
        assert!(counted.is_some_and(|counter| counter.packets > 0), "{counters:?}");
    });
}

#[test]
fn a_flow_is_streamed_with_both_ends() {
    with_node(async |_, mut api| {
        let (web1, ..) = arrange(&mut api).await;
        let mut flows = listen(&mut api, every_packet()).await;
        web1.sh("ping -c 1 -W 5 172.16.16.3");
        let request = until(&mut flows, |event| event.protocol == 1).await;
        assert_eq!(request.reason, "forwarded");
        assert_eq!(
            (request.direction.as_str(), request.endpoint.as_str()),
            ("from_endpoint", "web1")
        );
        assert_eq!(request.source, format!("web1.{NETWORK}"));
        assert_eq!(request.destination, format!("web2.{NETWORK}"));
        let addresses = (request.src_ip.as_str(), request.dst_ip.as_str());
        assert_eq!(addresses, ("172.16.16.2", "172.16.16.3"));
        assert_eq!((request.network.as_str(), request.sample, request.length), (NETWORK, 1, 98));
        assert_eq!((request.vtep.as_str(), request.node.as_str()), ("", ""), "on this node");
        let answer = until(&mut flows, |event| event.protocol == 1).await;
        assert_eq!((answer.source, answer.destination), (request.destination, request.source));
    });
}

#[test]
fn each_listener_hears_what_it_asked_for() {
    with_node(async |_, mut api| {
        let (web1, _web2, web3) = arrange(&mut api).await;
        let mut all = listen(&mut api, every_packet()).await;
        let mut drops = listen(&mut api, EventsRequest::default()).await;
        let asked = EventsRequest { endpoint: "web3.other".to_owned(), ..every_packet() };
        let mut of_web3 = listen(&mut api, asked).await;
        let asked = EventsRequest { network: "other".to_owned(), ..every_packet() };
        let mut of_other = listen(&mut api, asked).await;
        let reasons = vec!["forwarded".to_owned(), "arp_own_address".to_owned()];
        let asked = EventsRequest { reasons, ..every_packet() };
        let mut of_reasons = listen(&mut api, asked).await;

        web1.sh("ping -c 1 -W 5 172.16.16.3");
        assert!(!web3.succeeds("ping -c 1 -W 1 172.16.17.77"), "somebody answered");
        let last = |event: &Event| event.dst_ip == "172.16.17.77";
        until(&mut all, |event| event.protocol == 1).await;
        until(&mut all, last).await;
        let hears = async |events: &mut Streaming<Event>, is_wanted: fn(&Event) -> bool| {
            let wanted = |event: &Event| {
                assert!(is_wanted(event), "{event:?}");
                last(event)
            };
            until(events, wanted).await;
        };
        hears(&mut drops, |event| event.reason != "forwarded").await;
        hears(&mut of_web3, |event| event.endpoint == "web3").await;
        hears(&mut of_other, |event| event.source == "web3.other").await;
        // The last event of the other streams is not wanted in this one, so a wanted one follows.
        web1.sh("ping -c 1 -W 5 172.16.16.3");
        let mut forwarded = 0;
        until(&mut of_reasons, |event| {
            assert!(["forwarded", "arp_own_address"].contains(&event.reason.as_str()), "{event:?}");
            forwarded += u32::from(event.protocol == 1);
            forwarded == 4
        })
        .await;
    });
}

#[test]
fn what_could_never_be_heard_is_refused() {
    with_node(async |_, mut api| {
        let _netns = arrange(&mut api).await;
        let nothing = EventsRequest::default;
        let reasons = |reason: &str| vec![reason.to_owned()];
        for (request, code, words) in [
            (
                EventsRequest { reasons: reasons("spoofed"), ..nothing() },
                Code::InvalidArgument,
                ["reasons", "`spoofed`", "spoofed_ip"],
            ),
            (
                EventsRequest { reasons: reasons("forwarded"), ..nothing() },
                Code::InvalidArgument,
                ["reasons", "`forwarded`", "one in how many"],
            ),
            (
                EventsRequest { network: "lan".to_owned(), ..nothing() },
                Code::NotFound,
                ["network", "lan", "a node that has one"],
            ),
            (
                EventsRequest { endpoint: "web9".to_owned(), ..nothing() },
                Code::NotFound,
                ["endpoint", "web9", "a node that has"],
            ),
            (
                EventsRequest { endpoint: "web1.other".to_owned(), ..nothing() },
                Code::NotFound,
                ["endpoint", "web1", "other"],
            ),
        ] {
            assert_refused(api.watch.events(request).await, code, &words);
        }
    });
}

#[test]
fn a_forged_source_is_laid_at_the_door_of_who_sent_it() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let (web, victim) = (Netns::new("web"), Netns::new("victim"));
        api.endpoints.create(endpoint("web1", &web)).await.unwrap();
        api.endpoints.create(endpoint("victim", &victim)).await.unwrap();
        web.sh("ip addr add 172.16.16.3/24 dev eth0");
        // With this entry the forged address is in an IP packet, and not in an ARP request.
        web.sh("ip neigh add 172.16.16.4 lladdr 02:42:ac:10:10:04 dev eth0");
        let mut drops = listen(&mut api, EventsRequest::default()).await;
        web.succeeds("ping -c 1 -W 1 -I 172.16.16.3 172.16.16.4");
        let seen = until(&mut drops, |event| event.src_ip == "172.16.16.3").await;
        assert_eq!(seen.reason, "spoofed_ip", "{seen:?}");
        assert_eq!(seen.endpoint, "web1", "{seen:?}");
    });
}
