//! What the arguments of `overlay endpoint …` ask for.

use super::*;
use crate::faces::cli::{Cli, Command as Verb};
use clap::{Parser as _, error::ErrorKind};

fn request(args: &str) -> CreateEndpointRequest {
    match Cli::try_parse_from(args.split(' ')).unwrap().command {
        Verb::Endpoint(Command::Create(args)) => args.into_request().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn refusal(args: &str) -> ErrorKind {
    Cli::try_parse_from(args.split(' ')).unwrap_err().kind()
}

#[test]
fn namespace_defaults_to_the_endpoints_name() {
    let request = request("overlay endpoint create web1 --network myoverlay");
    assert_eq!(request.netns, "web1");
    assert_eq!((request.node.as_str(), request.ip.as_str()), ("", ""));
    assert_eq!(request.request_id.len(), 16);
    assert!(!request.no_wait);
}

#[test]
fn namespace_name_is_left_to_the_node_and_a_path_is_made_absolute() {
    let name = request("overlay endpoint create web1 --network n --netns other");
    assert_eq!(name.netns, "other");
    let path = request("overlay endpoint create web1 --network n --netns ./ns/web1");
    let folder = std::env::current_dir().unwrap();
    assert_eq!(path.netns, folder.join("ns/web1").to_str().unwrap());
    let absolute = request("overlay endpoint create web1 --network n --netns /proc/7/ns/net");
    assert_eq!(absolute.netns, "/proc/7/ns/net");
}

#[test]
fn foreign_vtep_takes_mac_and_ip_and_no_namespace() {
    let all = "overlay endpoint create sw1 --network n --vtep 10.0.0.9 --mac 02:AA:00:00:00:09 --ip 172.16.16.9";
    let made = request(all);
    assert_eq!(made.vtep, "10.0.0.9");
    assert_eq!(made.mac, "02:aa:00:00:00:09");
    assert_eq!(made.ip, "172.16.16.9");
    assert_eq!(made.netns, "", "nor a namespace with its name");

    for (args, kind) in [
        ("--vtep 10.0.0.9", ErrorKind::MissingRequiredArgument),
        ("--vtep 10.0.0.9 --ip 172.16.16.9", ErrorKind::MissingRequiredArgument),
        ("--vtep 10.0.0.9 --mac 02:aa:00:00:00:09", ErrorKind::MissingRequiredArgument),
        ("--mac 02:aa:00:00:00:09", ErrorKind::MissingRequiredArgument),
    ] {
        let args = format!("overlay endpoint create sw1 --network n {args}");
        assert_eq!(refusal(&args), kind, "{args}");
    }
    assert_eq!(request(&format!("{all} --alias s")).aliases, ["s"], "it has names, too");
    for extra in ["--netns sw1", "--node host1", "-p 80", "-P", "--expose 80"] {
        assert_eq!(refusal(&format!("{all} {extra}")), ErrorKind::ArgumentConflict, "{extra}");
    }
}

#[test]
fn names_and_ports_are_asked_for_as_written() {
    let asked = request(
        "overlay endpoint create web1 --network n --alias www --alias db --expose 80 \
         --expose 53/udp -p 8080:80 -p 127.0.0.1::443 --publish 53:53/udp -P",
    );
    assert_eq!(asked.aliases, ["www", "db"]);
    assert_eq!(asked.exposed, ["80/tcp", "53/udp"]);
    let publish = |host_ip: &str, host_port, port: &str| PublishRequest {
        host_ip: host_ip.to_owned(),
        host_port,
        port: port.to_owned(),
    };
    assert_eq!(
        asked.publish,
        [
            publish("0.0.0.0", 8080, "80/tcp"),
            publish("127.0.0.1", 0, "443/tcp"),
            publish("0.0.0.0", 53, "53/udp"),
        ]
    );
    assert!(asked.publish_all);
    let plain = request("overlay endpoint create web1 --network n");
    assert!(plain.publish.is_empty() && plain.exposed.is_empty() && !plain.publish_all);
}

#[test]
fn permissions_are_asked_for_one_by_one_or_all_together() {
    let create = "overlay endpoint create r --network n";
    let asked = |args: &str| {
        let request = request(&format!("{create}{args}"));
        (request.permissions().collect::<Vec<_>>(), request.forwards)
    };
    let (routing, bridging) = (v1::Permission::Routing, v1::Permission::Bridging);
    assert_eq!(asked(""), (vec![], false));
    assert_eq!(asked(" --allow routing"), (vec![routing], false));
    assert_eq!(asked(" --allow bridging --allow routing"), (vec![bridging, routing], false));
    let all = vec![routing, bridging, v1::Permission::Advertising];
    assert_eq!(asked(" --allow routing,bridging,advertising"), (all, false));
    assert_eq!(asked(" --forwards"), (vec![], true));
    assert_eq!(refusal(&format!("{create} --allow trust")), ErrorKind::ValueValidation);
}

#[test]
fn malformed_ports_are_usage_errors_that_say_what_is_wrong() {
    for (args, words) in [
        ("-p 80:", "port \"\" is not a port from 1 to 65535"),
        ("-p x:80", "host port \"x\" is not a port"),
        ("-p 1.2.3:80:80", "host address \"1.2.3\" is not an IPv4 address"),
        ("-p 80/icmp", "protocol \"icmp\" is none of tcp, udp, sctp"),
        ("--expose 0", "port \"0\" is not a port"),
    ] {
        let line = format!("overlay endpoint create web1 --network n {args}");
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{args}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn malformed_addresses_are_usage_errors() {
    for args in ["--ip 172.16.16", "--ip fd00::1"] {
        let args = format!("overlay endpoint create web1 --network n {args}");
        assert_eq!(refusal(&args), ErrorKind::ValueValidation, "{args}");
    }
    for mac in ["02:aa:00:00:00", "02:aa:00:00:00:0g", "02:aa:00:00:00:009", "02-aa-00-00-00-09"] {
        assert!(mac.parse::<Mac>().is_err(), "{mac}");
    }
}

#[test]
fn last_of_wait_and_no_wait_counts() {
    let create = "overlay endpoint create web1 --network n";
    assert!(!request(&format!("{create} --wait")).no_wait);
    assert!(request(&format!("{create} --no-wait")).no_wait);
    assert!(request(&format!("{create} --wait --no-wait")).no_wait);
    assert!(!request(&format!("{create} --no-wait --wait")).no_wait);
}

#[test]
fn each_request_has_an_id_of_its_own() {
    let create = "overlay endpoint create web1 --network n";
    assert_ne!(request(create).request_id, request(create).request_id);
}
