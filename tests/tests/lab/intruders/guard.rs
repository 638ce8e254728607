//! `guard_underlay`: where it runs, what it costs, and that nobody else's program is touched.

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
/// No sender makes one packet of more than its MTU and an Ethernet header: longer ones were merged, or
/// are super-packets.
const LONG: &str = "frame.len > 3000";
/// How often a node looks at its devices, and more.
const LOOKS: Duration = Duration::from_secs(15);

/// How the guard stands: its mode, and why it is not native.
fn guard(host: &Host) -> Result<(String, String)> {
    let status = host.overlay_json(&["status"])?;
    let datapath = &status["datapath"];
    Ok((text(datapath, "xdp").to_owned(), text(datapath, "xdp_reason").to_owned()))
}

/// What the kernel says of the host's underlay device: `xdp` for native, `xdpgeneric`.
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

/// VXLAN of no node, sent to `to` over the wire that `from` is on.
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
        // What is asked for, and who drops then.
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
        // It goes on without the process, and goes with the node.
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

/// A native program on a veth takes the other end's super-packets away; so auto has none there.
#[test]
fn auto_costs_no_receiver_its_merging_and_no_sender_his_super_packets() {
    scenario(MEASURED, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        let (mode, why) = guard(&h2)?;
        ensure!(mode == "off" && why.contains("eth0 is no hardware"), "{mode}: {why}");
        let sends_long = || -> Result<bool> {
            let features = h1.netns.run(&["ethtool", "-k", "eth0"])?;
            Ok(features.contains("tcp-segmentation-offload: on"))
        };
        // Super-packets cross the wire.
        ensure!(sends_long()?);
        ensure!(long_out_of(&h1, (&web1, &web2))? > 0, "no super-packet");
        // Real ones do, and are merged before they are stripped: long ones come out.
        h1.netns.run(&["ethtool", "-K", "eth0", "tso", "off", "gso", "off"])?;
        h2.netns.run(&["ethtool", "-K", "eth0", "gro", "on"])?;
        ensure!(long_at(&web2, (&web1, &web2))? > 0, "nothing is merged");
        h1.netns.run(&["ethtool", "-K", "eth0", "tso", "on", "gso", "on"])?;
        ensure!(sends_long()?);

        // What it would cost.
        h2.stop()?;
        h2.start_node(&["--xdp", "native"])?;
        ensure!(!sends_long()?, "a native program costs nothing here: then auto may have it");
        ensure!(long_out_of(&h1, (&web1, &web2))? == 0, "super-packets in spite of it");
        // Who leaves it again has everything back.
        h2.stop()?;
        h2.start_node(&["--xdp", "auto"])?;
        ensure!(sends_long()?, "lost for good");
        Ok(())
    });
}

/// Long frames that a host puts on the wire, of one endpoint that sends to another at full speed.
fn long_out_of(host: &Host, ends: (&Endpoint, &Endpoint)) -> Result<usize> {
    let capture = Capture::start(&host.netns, "eth0", "outbound")?;
    stream(ends)?;
    Ok(capture.stop()?.fields(LONG, &["frame.number"])?.len())
}

/// The same, of what comes out at the endpoint.
fn long_at(endpoint: &Endpoint, ends: (&Endpoint, &Endpoint)) -> Result<usize> {
    let capture = Capture::start(&endpoint.netns, "eth0", "inbound")?;
    stream(ends)?;
    Ok(capture.stop()?.fields(LONG, &["frame.number"])?.len())
}

/// As fast as it goes.
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
        // Whose it is, the kernel can't tell: the guard of another node's folder, pinned there.
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
        // And taken off by somebody, it comes back.
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
