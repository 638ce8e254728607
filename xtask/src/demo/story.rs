//! The steps of the demo, in order. Each claim is checked: the demo fails if one is not true.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Lab, eventually, probe::Prober, rows};

use super::{
    endpoint::{Endpoint, NETWORK},
    gateway::{self, Outside},
    shell::{Shell, heading},
};

const SUBNETS: &str = "
            container web1      container web2-2        container web2      container web4
            container web3
                 |                    |                      |                    |
          host h1                host h2              host h3               host h4
          10.10.10.101           10.10.10.102         192.168.50.101        192.168.50.102
                 |____________________|                      |____________________|
                    10.10.10.1 |________________ router ________________| 192.168.50.1
                                                   | 203.0.113.1
                                                outside, no node
                                                203.0.113.10
";

pub(super) fn tell(lab: &mut Lab) -> Result<()> {
    heading("Four hosts in two subnets, a router between them");
    println!("{SUBNETS}");
    let hosts = lab.four_hosts()?;
    let outside = Outside::new(lab)?;
    let [h1, _, h3, _] = &hosts;
    Shell::on_host(h1).run(&format!("ping -c 1 {}", h3.address))?;

    heading("A node on each: the first founds the cluster, the others join it");
    for (number, host) in hosts.iter().enumerate() {
        let join = ["--join".to_owned(), h1.listen()];
        let args: &[String] = if number == 0 { &[] } else { &join };
        let resolvers = ["--resolv-conf", outside.resolv_conf.as_str()];
        let args: Vec<&str> = args.iter().map(String::as_str).chain(resolvers).collect();
        let words = host.node_command(&args);
        Shell::on_host(host).print(&format!("overlay {} &", words[1..].join(" ")));
        host.start_node(&args)?;
    }
    eventually("all four nodes are ready", Duration::from_secs(20), || {
        let ready = h1.ready_nodes()?;
        if ready.len() == hosts.len() { Ok(()) } else { bail!("ready: {ready:?}") }
    })?;
    Shell::on_host(h1).run("overlay node ls")?;

    let endpoints = attach(lab, &hosts)?;
    look_inside(h1, &endpoints)?;
    talk(lab, h3, &endpoints)?;
    gateway::tell(lab, h1, &outside, &endpoints)?;
    look_into_the_kernel(&hosts)?;
    survive(lab, &hosts, &endpoints)?;
    Ok(())
}

/// Creates web1 on h1, web2 on h3, and on h2 an endpoint that may not be a second web2.
fn attach(lab: &Lab, [h1, h2, h3, _]: &[Arc<Host>; 4]) -> Result<[Endpoint; 3]> {
    let (on_h1, on_h2, on_h3) = (Shell::on_host(h1), Shell::on_host(h2), Shell::on_host(h3));
    heading("A network, and an endpoint of it on three of the hosts; two of them publish port 80");
    on_h1.run(&format!(
        "overlay network create {NETWORK} --subnet 172.16.16.0/24 --ip-range 172.16.16.128/25"
    ))?;
    let web1 = Endpoint::new(lab, "web1")?;
    let web2 = Endpoint::new(lab, "web2")?;
    let web2_2 = Endpoint::new(lab, "web2-2")?;
    on_h1.run(&web1.create_line("web1", "--alias web -p 8080:80"))?;
    on_h3.run(&web2.create_line("web2", "--alias web --expose 80 -P"))?;

    heading("A name is taken once in a network, whichever node is asked");
    let refusal = on_h2.refused(&web2_2.create_line("web2", ""))?;
    ensure!(
        refusal.contains("service endpoint with name web2 already exists"),
        "refused for another reason"
    );
    on_h2.run(&web2_2.create_line("web2-2", ""))?;

    heading("Any node answers for the cluster");
    on_h2.run("overlay network ls")?;
    on_h3.run(&format!("overlay network inspect {NETWORK}"))?;
    Ok([web1, web2, web2_2])
}

fn look_inside(h1: &Host, [web1, ..]: &[Endpoint; 3]) -> Result<()> {
    heading("Inside web1: eth0 on the overlay, eth1 to the outside; MACs made from the addresses");
    let address = web1.address(h1)?;
    let link = web1.shell.run("ip link show dev eth0")?;
    web1.shell.run("ip link show dev eth1")?;
    web1.shell.run("ip -4 -br addr")?;
    let routes = web1.shell.run("ip route")?;
    let [a, b, c, d] = address.octets();
    let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    ensure!(link.contains(&mac), "the MAC is not {mac}");
    ensure!(link.contains("mtu 1450"), "the MTU is not 1450");
    ensure!(routes.contains("default via 172.18.0.1 dev eth1"), "no default route by eth1");
    Ok(())
}

/// Starts web servers, and fetches pages over the overlay, without published ports.
fn talk(lab: &mut Lab, h3: &Host, [web1, web2, web2_2]: &[Endpoint; 3]) -> Result<()> {
    heading("A web server in each; on the overlay every port is reached, published or not");
    let xtask = env::current_exe()?;
    for endpoint in [web1, web2, web2_2] {
        let page = format!("hello from {}", endpoint.name);
        let words = [&xtask.to_string_lossy(), "serve-page", "--log", &page];
        let server = endpoint.netns.start(&words)?;
        endpoint.netns.wait_for_listener(80)?;
        lab.adopt(server);
    }
    let web2_address = web2.address(h3)?;
    let web2_2_address = web2_2.address(h3)?;
    let router = lab.router()?;
    let on_router = Shell::in_namespace("router", &router);
    for address in [web2_address, web2_2_address] {
        web1.shell.run(&format!("curl -sS http://{address}/"))?;
    }

    heading(
        "ARP on the overlay was answered in the kernel of the sender's host; each side knows the other's MAC",
    );
    web1.shell.run("ip neigh")?;
    web2.shell.run("ip neigh")?;

    heading("On the wire between the subnets: VXLAN");
    // On the router's device in the second subnet a packet to h3 is seen once.
    let line = "tcpdump -nn -c 1 -i lan1 udp dst port 4789";
    on_router.print(&format!("{line} &"));
    let words: Vec<&str> = line.split(' ').collect();
    let mut tcpdump = router.start(&words)?;
    eventually("tcpdump listens", Duration::from_secs(10), || {
        if tcpdump.log().contains("listening on") { Ok(()) } else { bail!("not yet") }
    })?;
    web1.shell.run(&format!("ping -c 1 {web2_address}"))?;
    tcpdump.wait(Duration::from_secs(10))?;
    let printed = tcpdump.log();
    println!("{}", printed.trim());
    ensure!(printed.contains("VXLAN"), "tcpdump does not read it as VXLAN");
    Ok(())
}

fn look_into_the_kernel([h1, ..]: &[Arc<Host>; 4]) -> Result<()> {
    heading("What the kernel of h1 holds: the maps, with named fields");
    for map in ["FDB", "NEIGH", "NODES", "GATEWAY_PORTS"] {
        let pin = h1.map_pin(map)?;
        let dump = Shell::on_host(h1).run(&format!("bpftool map dump pinned {}", pin.display()))?;
        ensure!(dump.contains("\"key\""), "{map} prints no named fields");
    }
    let fdb = h1.map_dump("FDB")?;
    let entries = fdb.matches("\"key\"").count();
    let endpoints = rows(&h1.overlay_json(&["endpoint", "ls"])?).len();
    ensure!(entries == endpoints, "{entries} entries for {endpoints} endpoints");
    Ok(())
}

/// Kills the leader, and shows that packets and cluster go on.
fn survive(lab: &Lab, hosts: &[Arc<Host>; 4], [web1, web2, _]: &[Endpoint; 3]) -> Result<()> {
    heading("The leader is killed while web1 pings web2 every 5 ms");
    let h4 = &hosts[3];
    let on_h4 = Shell::on_host(h4);
    let name = h4.leader()?;
    let leader = hosts.iter().find(|host| host.name == name).context("a host that leads")?;
    let web2_address = web2.address(h4)?;
    on_h4.run("overlay status")?;
    let probe = Prober::new(&web1.netns, web2_address)?.start(Duration::from_millis(5));
    let pid = leader.node_pid().context("the leader's process")?;
    Shell::on_host(leader).print(&format!("kill -9 {pid}"));
    leader.kill9()?;
    let new = eventually("another leads", Duration::from_secs(20), || {
        let new = h4.leader()?;
        if new == name { bail!("{name} still leads") } else { Ok(new) }
    })?;
    println!("(the leader was {name}; now it is {new})");
    on_h4.run("overlay node ls")?;

    heading("A new endpoint can be created, and is reached");
    let web4 = Endpoint::new(lab, "web4")?;
    on_h4.run(&web4.create_line("web4", ""))?;
    let web4_address = web4.address(h4)?;
    let reaching = if leader.name == "h3" { web1 } else { web2 };
    reaching.shell.run(&format!("ping -c 2 -i 0.2 {web4_address}"))?;
    let counted = probe.stop()?;
    println!(
        "(meanwhile web1 pinged web2 {} times; {} answers were missing)",
        counted.sent,
        counted.sent - counted.received
    );
    counted.none_lost()?;

    heading("The dead node comes back, takes its pins over and catches up");
    Shell::on_host(leader).print(&format!("overlay node run --name {} … &", leader.name));
    leader.restart()?;
    eventually("all four nodes are ready", Duration::from_secs(20), || {
        let ready = h4.ready_nodes()?;
        if ready.len() == hosts.len() { Ok(()) } else { bail!("ready: {ready:?}") }
    })?;
    on_h4.run("overlay node ls")?;
    eventually("web1 reaches web4", Duration::from_secs(10), || web1.netns.reaches(web4_address))?;
    web1.shell.run(&format!("ping -c 2 -i 0.2 {web4_address}"))?;
    Ok(())
}
