//! The program `guard_underlay`: the mode in which it runs, its cost, and the programs of others, which it
//! leaves alone.

use anyhow::{Result, bail, ensure};
use overlay_lab::{Host, Requirement, capture::Capture, eventually, text};
use std::time::Duration;

use super::{
    packets::vxlan,
    scene::{host_party, party},
};
use crate::{
    attack::Attack,
    frames::{self, Party},
    support::{Endpoint, NODES, pair, scenario, vni},
};

const MEASURED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("ethtool"),
    Requirement::Tool("iperf3"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];
/// A filter for frames that are longer than any sender's MTU: they are super-packets, or were merged by the
/// receiver.
const LONG: &str = "frame.len > 3000";
/// A little longer than the interval at which a node checks its devices.
const LOOKS: Duration = Duration::from_secs(15);

/// The guard's mode, and the reason why it is not native, as `overlay status` shows them.
fn guard(host: &Host) -> Result<(String, String)> {
    let status = host.overlay_json(&["status"])?;
    let datapath = &status["datapath"];
    Ok((text(datapath, "xdp").to_owned(), text(datapath, "xdp_reason").to_owned()))
}

/// The mode of the program on the host's underlay device, as the kernel tells it.
fn on_device(host: &Host) -> Result<String> {
    let links = host.netns.ip_json(&["link", "show", "dev", "eth0"])?;
    Ok(match links[0]["xdp"]["mode"].as_u64() {
        None => "off",
        Some(1) => "native",
        Some(2) => "generic",
        Some(_) => "another",
    }
    .to_owned())
}

/// A VXLAN packet from an address that belongs to no node, sent to `to` over the wire that `from` is on.
fn strangers(from: &Host, to: &Host, inner: (&Endpoint, &Endpoint)) -> Result<Vec<u8>> {
    let (from, to_party) = (host_party(from)?, host_party(to)?);
    let strange: Party = from.with([10, 10, 10, 66]);
    let inner = frames::udp(party(inner.0)?, party(inner.1)?, 7);
    Ok(vxlan(strange, to_party, vni(to)?.parse()?, &inner))
}

#[test]
fn a_guard_runs_where_it_is_asked_to_and_is_shown() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let forged = strangers(&h2, &h1, (&web2, &web1))?;
        // The requested mode, the mode that the node chooses, and the program that drops the packet then.
        for (asked, mode, dropper) in [
            ("auto", "off", "from_underlay"),
            ("native", "native", "guard_underlay"),
            ("generic", "generic", "guard_underlay"),
            ("native", "native", "guard_underlay"),
            ("off", "off", "from_underlay"),
        ] {
            h1.stop()?;
            h1.start_node(&["--xdp", asked])?;
            let (shown, why) = guard(&h1)?;
            ensure!(shown == mode && on_device(&h1)? == mode, "--xdp {asked}: {shown} ({why})");
            ensure!(why.is_empty() == (mode == "native"), "--xdp {asked}: {why:?}");
            let mut attack = Attack::default();
            attack.add("unknown_vtep", forged.clone());
            attack.is_counted((&h2.netns, "eth0"), &h1, &[dropper])?;
            web1.netns.reaches(web2.address)?;
        }
        // The guard stays when the process is killed, and goes when the node stops.
        h1.stop()?;
        h1.start_node(&["--xdp", "native"])?;
        h1.kill9()?;
        ensure!(on_device(&h1)? == "native", "it died with the process");
        web1.netns.reaches(web2.address)?;
        h1.restart()?;
        ensure!(on_device(&h1)? == "native" && guard(&h1)?.0 == "native");
        Ok(())
    });
}

/// On a veth a native program prevents the other end from sending super-packets, so `auto` uses none there.
#[test]
fn auto_costs_no_receiver_its_merging_and_no_sender_his_super_packets() {
    scenario(MEASURED, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let (mode, why) = guard(&h2)?;
        ensure!(mode == "off" && why == "--xdp off", "{mode}: {why}, unless asked for");
        h2.stop()?;
        h2.start_node(&["--xdp", "auto"])?;
        let (mode, why) = guard(&h2)?;
        ensure!(mode == "off" && why.contains("eth0 is no hardware"), "{mode}: {why}");
        let sends_long = || -> Result<bool> {
            let features = h1.netns.run(&["ethtool", "-k", "eth0"])?;
            Ok(features.contains("tcp-segmentation-offload: on"))
        };
        // Super-packets cross the wire.
        ensure!(sends_long()?);
        ensure!(long_out_of(&h1, (&web1, &web2))? > 0, "no super-packet");
        // Frames of ordinary size cross the wire and are merged before decapsulation, so that long ones
        // arrive.
        h1.netns.run(&["ethtool", "-K", "eth0", "tso", "off", "gso", "off"])?;
        h2.netns.run(&["ethtool", "-K", "eth0", "gro", "on"])?;
        ensure!(long_at(&web2, (&web1, &web2))? > 0, "nothing is merged");
        h1.netns.run(&["ethtool", "-K", "eth0", "tso", "on", "gso", "on"])?;
        ensure!(sends_long()?);

        // The cost of a native program.
        h2.stop()?;
        h2.start_node(&["--xdp", "native"])?;
        ensure!(!sends_long()?, "a native program costs nothing here: then auto may have it");
        ensure!(long_out_of(&h1, (&web1, &web2))? == 0, "super-packets in spite of it");
        // Without the native program, super-packets are possible again.
        h2.stop()?;
        h2.start_node(&["--xdp", "auto"])?;
        ensure!(sends_long()?, "lost for good");
        Ok(())
    });
}

/// Number of long frames that a host puts on the wire while one endpoint sends to another at full speed.
fn long_out_of(host: &Host, ends: (&Endpoint, &Endpoint)) -> Result<usize> {
    let capture = Capture::start(&host.netns, "eth0", "outbound")?;
    stream(ends)?;
    Ok(capture.stop()?.fields(LONG, &["frame.number"])?.len())
}

/// Number of long frames that an endpoint receives while one endpoint sends to another at full speed.
fn long_at(endpoint: &Endpoint, ends: (&Endpoint, &Endpoint)) -> Result<usize> {
    let capture = Capture::start(&endpoint.netns, "eth0", "inbound")?;
    stream(ends)?;
    Ok(capture.stop()?.fields(LONG, &["frame.number"])?.len())
}

/// Sends a TCP stream for a second, at full speed.
fn stream((from, to): (&Endpoint, &Endpoint)) -> Result<()> {
    let mut server = to.netns.iperf_server(None)?;
    from.netns.iperf(to.address, 1, &[])?;
    server.wait(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn a_program_of_others_stays_and_its_absence_is_noticed() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        // The guard of another node's folder is pinned in this one. The kernel does not tell which node
        // attached a program.
        h1.stop()?;
        h1.start_node(&["--xdp", "native"])?;
        let links = h1.pins()?;
        let ours = links.iter().find(|pin| pin.to_string_lossy().contains("guard-native"));
        let Some(ours) = ours else { bail!("no guard among {links:?}") };
        h1.stop()?;
        let theirs = h1.bpffs.join("theirs");
        std::fs::rename(ours, &theirs)?;
        for asked in ["native", "generic"] {
            h1.start_node(&["--xdp", asked])?;
            let (mode, why) = guard(&h1)?;
            ensure!(mode == "off" && why.contains("another XDP program"), "{mode}: {why}");
            eventually("it is among the fall-backs", LOOKS, || {
                let status = h1.overlay(&["status"])?;
                ensure!(status.contains("no XDP guard: another XDP program"), "{status}");
                Ok(())
            })?;
            ensure!(on_device(&h1)? == "native", "theirs is gone");
            web1.netns.reaches(web2.address)?;
            h1.stop()?;
        }
        h1.start_node(&["--xdp", "native"])?;
        std::fs::remove_file(&theirs)?;
        eventually("ours takes the place that is free", LOOKS, || match guard(&h1)?.0.as_str() {
            "native" if on_device(&h1)? == "native" => Ok(()),
            mode => bail!("it is {mode}"),
        })?;
        // The node attaches the guard again after somebody detached it.
        let links = h1.pins()?;
        let ours = links.iter().find(|pin| pin.to_string_lossy().contains("guard-native"));
        let Some(ours) = ours else { bail!("no guard among {links:?}") };
        h1.netns.run(&["bpftool", "link", "detach", "pinned", &ours.display().to_string()])?;
        eventually("it is back", LOOKS, || {
            if on_device(&h1)? == "native" { Ok(()) } else { bail!("not yet") }
        })?;
        let mut attack = Attack::default();
        attack.add("unknown_vtep", strangers(&h2, &h1, (&web2, &web1))?);
        attack.is_counted((&h2.netns, "eth0"), &h1, &["guard_underlay"])
    });
}
