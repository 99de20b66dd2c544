//! WireGuard interfaces, and the peers that they know.
//!
//! `wg show IF allowed-ips` is asked and never `dump`, whose first line is the private key.

use std::net::IpAddr;

use crate::{
    ANSWER, Look, Peer, TIME,
    command::{self, Silence},
};

/// Whether an interface is WireGuard's: the kernel's own says so, one of a program outside the kernel has a control socket.
pub(crate) fn is_interface(look: &Look, name: &str) -> bool {
    let uevent = std::fs::read_to_string(look.class_net.join(name).join("uevent")).unwrap_or_default();
    uevent.lines().any(|line| line == "DEVTYPE=wireguard") || look.wireguard_sockets.join(format!("{name}.sock")).exists()
}

/// The peers of an interface that are one host each.
pub(crate) fn peers(look: &Look, interface: &str) -> Result<Vec<Peer>, String> {
    #[cfg(unix)]
    if let Some(told) = at_the_door(look, interface) {
        return told;
    }
    let question = format!("`wg show {interface} allowed-ips`");
    match command::ask(&look.wg, &["show", interface, "allowed-ips"], ANSWER, TIME) {
        Ok(said) if said.is_success => Ok(parse(String::from_utf8_lossy(&said.out).lines())),
        Ok(said) => Err(format!("{question}: {}", if said.complaint.is_empty() { "it fails without a word" } else { &said.complaint })),
        Err(Silence::Missing) => Err(format!("{question}: {MISSING}")),
        Err(Silence::Failed(why)) => Err(format!("{question}: {why}")),
    }
}

const MISSING: &str = "there is no program wg (package wireguard-tools)";

/// What `wg show all allowed-ips` says where a service runs it for us. `None`: there is no such service, or not for us.
#[cfg(unix)]
fn at_the_door(look: &Look, interface: &str) -> Option<Result<Vec<Peer>, String>> {
    use std::io::ErrorKind;
    let door = look.wireguard_door.display();
    match crate::socket::hear(&look.wireguard_door, ANSWER) {
        Ok(said) if said.is_empty() && matches!(command::ask(&look.wg, &["--version"], ANSWER, TIME), Err(Silence::Missing)) => {
            Some(Err(format!("{door}: {MISSING}")))
        }
        Ok(said) => Some(parse_all(&String::from_utf8_lossy(&said), interface).map_err(|why| format!("{door}: {why}"))),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused) => None,
        Err(e) => Some(Err(format!("{door}: {}", crate::socket::told(&e)))),
    }
}

/// Lines of `INTERFACE<TAB>KEY<TAB>10.0.0.2/32 fd00::2/128`, of which those of one interface count; any other is a complaint.
#[cfg(unix)]
pub(crate) fn parse_all(text: &str, interface: &str) -> Result<Vec<Peer>, String> {
    if let Some(complaint) = text.lines().find(|line| !line.contains('\t')) {
        return Err(complaint.to_owned());
    }
    Ok(parse(text.lines().filter_map(|line| line.split_once('\t')).filter(|(of, _)| *of == interface).map(|(_, line)| line)))
}

/// Lines of `KEY<TAB>10.0.0.2/32 fd00::2/128`. A network of more than one address is a route, and names nobody.
fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Peer> {
    let peers = lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(_, nets)| Peer { addresses: nets.split_whitespace().filter_map(single_host).collect(), ..Peer::default() });
    peers.filter(|peer| !peer.addresses.is_empty()).collect()
}

fn single_host(net: &str) -> Option<IpAddr> {
    let (address, bits) = net.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let is_host = bits == if address.is_ipv4() { "32" } else { "128" };
    is_host.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_peers_and_networks_are_not() {
        let text = "k1=\t10.0.0.2/32 fd00::2/128\nk2=\t10.0.0.3/32 192.168.7.0/24\nk3=\t10.9.0.0/16\nk4=\t(none)\nrubbish\n";
        let found: Vec<Vec<IpAddr>> = parse(text.lines()).into_iter().map(|peer| peer.addresses).collect();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(found, [vec![ip("10.0.0.2"), ip("fd00::2")], vec![ip("10.0.0.3")]]);
    }

    #[test]
    fn an_interface_is_known_by_the_kernel_or_by_its_socket() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let look = Look { class_net: dir.path().into(), wireguard_sockets: dir.path().join("wireguard"), ..Look::default() };
        for (name, uevent) in [("wg0", "INTERFACE=wg0\nDEVTYPE=wireguard\n"), ("eth0", "INTERFACE=eth0\n"), ("tun7", "INTERFACE=tun7\n")] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
            std::fs::write(dir.path().join(name).join("uevent"), uevent).expect("written");
        }
        std::fs::create_dir(dir.path().join("wireguard")).expect("made");
        std::fs::write(dir.path().join("wireguard/tun7.sock"), "").expect("written");
        let found: Vec<&str> = ["wg0", "eth0", "tun7", "gone"].into_iter().filter(|name| is_interface(&look, name)).collect();
        assert_eq!(found, ["wg0", "tun7"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_wg_refuses_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let wg = dir.path().join("wg");
        let script = "#!/bin/sh\n[ \"$*\" = 'show wg0 allowed-ips' ] || { echo 'Unable to access interface: Operation not permitted' >&2; exit 1; }\nprintf 'k=\\t10.0.0.2/32\\n'\n";
        std::fs::write(&wg, script).expect("written");
        std::fs::set_permissions(&wg, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let look = Look { wg, wireguard_door: dir.path().join("none"), ..Look::default() };
        assert_eq!(peers(&look, "wg0").expect("it tells").len(), 1);
        assert!(peers(&look, "wg1").expect_err("it refuses").contains("Operation not permitted"));
        let nowhere = Look { wg: dir.path().join("none"), ..look };
        assert!(peers(&nowhere, "wg0").expect_err("it is not there").contains("wireguard-tools"));
    }

    #[cfg(unix)]
    #[test]
    fn a_service_is_asked_first_where_there_is_one() {
        use std::{io::Write as _, os::unix::net::UnixListener};
        let dir = tempfile::tempdir().expect("a temporary directory");
        let look = Look { wg: dir.path().join("none"), wireguard_door: dir.path().join("door"), ..Look::default() };
        let listener = UnixListener::bind(&look.wireguard_door).expect("bound");
        let service = std::thread::spawn(move || {
            for said in ["wg0\tk=\t10.0.0.2/32\nwg1\tk=\t10.0.1.2/32\nwg0\tl=\t10.0.0.3/32\n", "Unable to access: not permitted\n", ""] {
                let (mut client, _) = listener.accept().expect("it came");
                client.write_all(said.as_bytes()).expect("it listens");
            }
        });
        let found = peers(&look, "wg0").expect("it tells").into_iter().map(|peer| peer.addresses);
        let wanted = ["10.0.0.2", "10.0.0.3"].map(|ip| vec![ip.parse::<IpAddr>().expect("an address")]);
        assert_eq!(found.collect::<Vec<_>>(), wanted);
        assert!(peers(&look, "wg0").expect_err("it complains").contains("not permitted"));
        assert!(peers(&look, "wg0").expect_err("it has nothing to say it with").contains("wireguard-tools"));
        service.join().expect("it served");
    }
}
