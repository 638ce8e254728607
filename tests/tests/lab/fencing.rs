//! Checks of the frames that an endpoint sends: MAC, addresses, `--allow routing`, broadcast, and its network's borders.

use anyhow::{Result, ensure};
use overlay_lab::{Netns, attainable};

use crate::support::{NODES, attach, pair, scenario};

#[test]
fn an_endpoint_sends_from_its_own_address_only() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        web1.netns.reaches(web2.address)?;
        web1.netns.ip(&["addr", "add", "172.16.16.99/24", "dev", "eth0"])?;
        let before = h1.counter("spoofed_ip")?;
        let to = web2.address.to_string();
        let ping = ["ping", "-c", "3", "-i", "0.05", "-W", "1", "-I", "172.16.16.99", &to];
        ensure!(web1.netns.run(&ping).is_err(), "a foreign source address passed");
        ensure!(h1.counter("spoofed_ip")? >= before + 3);
        web1.netns.reaches(web2.address)?;
        Ok(())
    });
}

#[test]
fn an_endpoint_sends_from_its_own_mac_only() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let before = h1.counter("spoofed_mac")?;
        web1.netns.ip(&["link", "set", "eth0", "address", "02:42:ac:10:10:99"])?;
        neighbour(&web1.netns, &web2.address.to_string(), &web2.mac)?;
        ensure!(web1.netns.ping(web2.address, 3)?.received == 0, "a foreign MAC passed");
        ensure!(h1.counter("spoofed_mac")? >= before + 3);
        web1.netns.ip(&["link", "set", "eth0", "address", &web1.mac])?;
        web1.netns.reaches(web2.address)?;
        Ok(())
    });
}

#[test]
fn a_forwarding_endpoint_is_a_router_for_others() {
    scenario(NODES, |lab| {
        let ([h1, _], [_, web2]) = pair(lab)?;
        let router = attach(lab, &h1, "router1", &["--allow", "routing"])?;
        // router1 forwards for 10.1.1.1.
        router.netns.sysctl("net.ipv4.ip_forward", "1")?;
        router.netns.ip(&["addr", "add", "10.1.1.1/32", "dev", "lo"])?;
        web2.netns.ip(&["route", "add", "10.1.1.0/24", "via", &router.address.to_string()])?;
        web2.netns.reaches("10.1.1.1")?;
        Ok(())
    });
}

#[test]
fn a_router_sends_what_came_over_the_underlay_back_into_it() {
    scenario(NODES, |lab| {
        let ([h1, h2], [_, web2]) = pair(lab)?;
        let [router, far, behind] = [(&h1, "router1"), (&h2, "far"), (&h2, "behind")]
            .map(|(host, name)| attach(lab, host, name, &["--allow", "routing"]));
        let (router, far, behind) = (router?, far?, behind?);
        let via = router.address.to_string();
        router.netns.sysctl("net.ipv4.ip_forward", "1")?;
        // With redirects, router1 would tell web2 of the shorter way, and would receive no more packets.
        router.netns.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        router.netns.sysctl("net.ipv4.conf.eth0.send_redirects", "0")?;
        for (end, own, other) in [(&far, "10.8.8.8", "10.9.9.9"), (&behind, "10.9.9.9", "10.8.8.8")]
        {
            end.netns.ip(&["addr", "add", &format!("{own}/32"), "dev", "lo"])?;
            router.netns.ip(&["route", "add", own, "via", &end.address.to_string()])?;
            end.netns.ip(&["route", "add", other, "via", &via, "src", own])?;
        }
        far.netns.reaches("10.9.9.9")?;
        let server = behind.netns.iperf_server(None)?;
        let run = far.netns.iperf("10.9.9.9".parse()?, 1, &[])?;
        ensure!(run.bits_per_second > attainable(100e6), "{run:?}");
        drop(server);
        ensure!(h1.counter("encap_failed")? == 0);

        // A packet with an endpoint's own address would be taken for that endpoint's.
        let before = h1.counter("spoofed_ip")?;
        web2.netns.ip(&["route", "add", "10.9.9.9", "via", &via])?;
        ensure!(web2.netns.ping("10.9.9.9", 3)?.received == 0, "router1 spoke as web2");
        ensure!(h1.counter("spoofed_ip")? >= before + 3);
        Ok(())
    });
}

#[test]
fn broadcast_stays_at_home_and_is_counted() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, _]) = pair(lab)?;
        let before = h1.counter("broadcast_off")?;
        let ping = ["ping", "-b", "-c", "2", "-i", "0.05", "-W", "1", "172.16.16.255"];
        ensure!(web1.netns.run(&ping).is_err(), "somebody answered a broadcast");
        ensure!(h1.counter("broadcast_off")? >= before + 2);
        Ok(())
    });
}

/// A receiver takes a frame of VLAN 0 as untagged, so an ARP message in one must be checked as well.
#[test]
fn no_arp_hides_behind_a_priority_tag() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let before = h1.counter("priority_tag")?;
        let mut frame = mac(&web2.mac)?;
        frame.extend(mac(&web1.mac)?);
        frame.extend([0x81, 0x00, 0xe0, 0x00, 0x08, 0x06]);
        frame.resize(64, 0);
        for _ in 0..3 {
            web1.netns.send_frame("eth0", &frame)?;
        }
        ensure!(h1.counter("priority_tag")? >= before + 3);
        Ok(())
    });
}

#[test]
fn networks_do_not_mix() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, _]) = pair(lab)?;
        h1.overlay(&["network", "create", "other", "--subnet", "172.16.17.0/24"])?;
        let stranger = lab.container("stranger")?;
        h2.overlay(&[
            "endpoint",
            "create",
            "stranger",
            "--network",
            "other",
            "--netns",
            stranger.name(),
        ])?;
        // The stranger acts as if web1 were on the same link, and knows its MAC.
        let to = web1.address.to_string();
        stranger.ip(&["route", "add", "172.16.16.0/24", "dev", "eth0"])?;
        neighbour(&stranger, &to, &web1.mac)?;
        let before = h2.counter("unknown_destination")?;
        ensure!(stranger.ping(&to, 3)?.received == 0, "another network's endpoint was reached");
        ensure!(h2.counter("unknown_destination")? >= before + 3);
        Ok(())
    });
}

fn neighbour(netns: &Netns, address: &str, mac: &str) -> Result<()> {
    netns.ip(&["neigh", "replace", address, "lladdr", mac, "dev", "eth0"])?;
    Ok(())
}

fn mac(text: &str) -> Result<Vec<u8>> {
    text.split(':').map(|byte| Ok(u8::from_str_radix(byte, 16)?)).collect()
}
