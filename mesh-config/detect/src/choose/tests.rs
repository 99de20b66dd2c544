use super::*;
use crate::Peer;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn interface(name: &str, is_wireguard: bool, addresses: &[&str]) -> Interface {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    Interface { name: name.into(), is_loopback: name == "lo", is_wireguard, addresses, peers: Vec::new() }
}

/// A laptop: loopback and a home network.
fn plain() -> Sighting {
    Sighting {
        interfaces: vec![interface("eth0", false, &["192.168.1.5"]), interface("lo", false, &["127.0.0.1", "::1"])],
        tailscale: Err(NoTailnet::Absent { socket: "/var/run/tailscale/tailscaled.sock".into() }),
    }
}

fn with(mut seen: Sighting, name: &str, is_wireguard: bool, addresses: &[&str]) -> Sighting {
    seen.interfaces.push(interface(name, is_wireguard, addresses));
    seen
}

/// The same on a tailnet.
fn tailnet() -> Sighting {
    let mut seen = with(plain(), "tailscale0", false, &["100.64.0.1", "fd7a:115c:a1e0::1"]);
    seen.tailscale = Ok(Tailnet {
        state: "Running".into(),
        addresses: vec![ip("fd7a:115c:a1e0::1"), ip("100.64.0.1")],
        has_interface: true,
        domain: Some("tail1234.ts.net".into()),
        peers: vec![Peer { name: "h2.tail1234.ts.net".into(), addresses: vec![ip("100.64.0.2")], ..Peer::default() }],
    });
    seen
}

fn wish(kind: Option<Kind>, interface: &str, address: &str) -> Wish {
    Wish { kind, interface: Some(interface.to_owned()).filter(|name| !name.is_empty()), address: address.parse().ok() }
}

fn chosen(wish: &Wish, seen: &Sighting) -> (Kind, Option<String>, IpAddr) {
    let mesh = wish.choose(seen).unwrap_or_else(|no| panic!("{no:?}"));
    (mesh.kind, mesh.interface.clone(), mesh.address())
}

/// What is said, and the way out; empty while it is only late.
fn no(wish: &Wish, seen: &Sighting) -> (String, String) {
    match wish.choose(seen).expect_err("there is no mesh") {
        NoMesh::Late(what) => (what, String::new()),
        NoMesh::Refused { what, hint } => {
            assert!(!hint.is_empty(), "{what}: without a way out");
            (what, hint)
        }
    }
}

#[test]
fn left_alone_the_tailnet_is_taken() {
    let mesh = Wish::default().choose(&tailnet()).expect("there is one");
    assert_eq!(
        (mesh.kind, mesh.interface.as_deref(), mesh.domain.as_deref()),
        (Kind::Tailscale, Some("tailscale0"), Some("tail1234.ts.net"))
    );
    assert_eq!(mesh.addresses, [ip("100.64.0.1"), ip("fd7a:115c:a1e0::1")], "IPv4 first");
    // a WireGuard interface beside it changes nothing
    assert_eq!(chosen(&Wish::default(), &with(tailnet(), "wg0", true, &["10.9.0.1"])).0, Kind::Tailscale);
}

#[test]
fn left_alone_without_tailscale_the_one_wireguard_interface_is_taken() {
    let seen = with(plain(), "wg0", true, &["10.9.0.1"]);
    assert_eq!(chosen(&Wish::default(), &seen), (Kind::Wireguard, Some("wg0".into()), ip("10.9.0.1")));
    let two = with(seen, "wg1", true, &["10.8.0.1"]);
    let (what, hint) = no(&Wish::default(), &two);
    assert!(what.contains("wg0, wg1") && hint.contains("interface = \"wg0\""), "{what} / {hint}");
    assert_eq!(chosen(&wish(None, "wg1", ""), &two), (Kind::Wireguard, Some("wg1".into()), ip("10.8.0.1")));
    assert_eq!(chosen(&wish(None, "", "10.8.0.1"), &two), (Kind::Wireguard, Some("wg1".into()), ip("10.8.0.1")));
}

#[test]
fn a_tailscale_that_is_only_late_is_not_passed_over() {
    let mut seen = with(plain(), "wg0", true, &["10.9.0.1"]);
    seen.tailscale = Err(NoTailnet::Silent { socket: "/s".into(), why: "nobody listens there".into() });
    let (what, hint) = no(&Wish::default(), &seen);
    assert!(what.contains("nobody listens") && what.contains("kind = \"wireguard\"") && hint.is_empty(), "{what}");
    assert_eq!(chosen(&wish(Some(Kind::Wireguard), "", ""), &seen).2, ip("10.9.0.1"));
    for state in ["NeedsLogin", "Stopped", "Starting", ""] {
        let mut seen = tailnet();
        seen.tailscale.as_mut().expect("it is there").state = state.into();
        let (what, hint) = no(&Wish::default(), &seen);
        assert!(what.contains(state) && hint.is_empty(), "{what}");
    }
}

#[test]
fn a_tailnet_address_that_no_interface_carries_yet_is_waited_for() {
    let mut seen = tailnet();
    seen.interfaces.retain(|interface| interface.name != "tailscale0");
    assert!(no(&Wish::default(), &seen).0.contains("no interface carries"));
    seen.tailscale.as_mut().expect("it is there").has_interface = false;
    assert!(no(&Wish::default(), &seen).0.contains("userspace"));
}

#[test]
fn nothing_at_all_is_waited_for_with_a_way_out() {
    let (what, hint) = no(&Wish::default(), &plain());
    assert!(what.contains("eth0 192.168.1.5") && what.contains("interface = ") && hint.is_empty(), "{what}");
}

#[test]
fn any_interface_by_its_name() {
    let seen = with(plain(), "zt0", false, &["10.147.17.5", "fd80::5"]);
    assert_eq!(chosen(&wish(None, "zt0", ""), &seen), (Kind::Interface, Some("zt0".into()), ip("10.147.17.5")));
    assert_eq!(chosen(&wish(Some(Kind::Interface), "zt0", "fd80::5"), &seen).2, ip("fd80::5"));
    assert!(no(&wish(None, "zt1", ""), &seen).0.contains("no interface zt1 yet"));
    assert!(no(&wish(None, "zt0", ""), &with(plain(), "zt0", false, &[])).0.contains("no address yet"));
    let (what, hint) = no(&wish(None, "zt0", "192.168.1.5"), &seen);
    assert!(what.contains("192.168.1.5 is on eth0, not on zt0") && hint.contains("eth0"), "{what} / {hint}");
    assert!(no(&wish(None, "lo", ""), &seen).1.contains("kind = \"address\""));
    assert!(no(&wish(Some(Kind::Interface), "", ""), &seen).1.contains("zt0"));
}

#[test]
fn a_named_interface_that_is_tailscales_is_known_as_such() {
    assert_eq!(chosen(&wish(None, "tailscale0", ""), &tailnet()).0, Kind::Tailscale);
    let (what, hint) = no(&wish(Some(Kind::Tailscale), "wg0", ""), &tailnet());
    assert!(what.contains("tailscale0, not on wg0") && hint.contains("tailscale0"), "{what} / {hint}");
    let (what, _) = no(&wish(Some(Kind::Wireguard), "eth0", ""), &tailnet());
    assert!(what.contains("eth0 is no WireGuard interface"), "{what}");
}

#[test]
fn an_address_of_the_ordinary_network_is_refused() {
    let (what, hint) = no(&wish(None, "", "192.168.1.5"), &tailnet());
    assert!(what.contains("eth0") && hint.contains("interface = \"eth0\"") && hint.contains("kind = \"address\""), "{what} / {hint}");
    assert_eq!(
        chosen(&wish(Some(Kind::Explicit), "", "192.168.1.5"), &tailnet()),
        (Kind::Explicit, Some("eth0".into()), ip("192.168.1.5"))
    );
}

#[test]
fn an_address_of_another_host_is_refused_whatever_the_kind() {
    for kind in [None, Some(Kind::Tailscale), Some(Kind::Explicit)] {
        let (what, hint) = no(&wish(kind, "", "100.64.0.2"), &tailnet());
        assert!(what.contains("h2.tail1234.ts.net") && hint.contains("100.64.0.1"), "{kind:?}: {what} / {hint}");
    }
    let mut wireguard = with(plain(), "wg0", true, &["10.0.0.1"]);
    wireguard.interfaces.last_mut().expect("wg0").peers.push(ip("10.0.0.2"));
    for kind in [None, Some(Kind::Wireguard), Some(Kind::Explicit)] {
        let (what, hint) = no(&wish(kind, "", "10.0.0.2"), &wireguard);
        assert!(what.contains("a peer of wg0") && hint.contains("10.0.0.1"), "{kind:?}: {what} / {hint}");
    }
    // nobody known has it: it may be this host's in a moment
    let (what, hint) = no(&wish(Some(Kind::Explicit), "", "100.64.0.9"), &tailnet());
    assert!(what.contains("another host's") && hint.is_empty(), "{what}");
    assert!(no(&wish(None, "", "100.64.0.9"), &tailnet()).0.contains("another host's"));
    assert!(no(&wish(Some(Kind::Tailscale), "", "100.64.0.9"), &tailnet()).1.contains("leave address out"));
}

#[test]
fn the_loopback_has_to_be_written_out() {
    assert!(no(&wish(None, "", "127.0.0.9"), &tailnet()).1.contains("kind = \"address\""));
    assert_eq!(chosen(&wish(Some(Kind::Explicit), "", "127.0.0.9"), &plain()), (Kind::Explicit, None, ip("127.0.0.9")));
}

#[test]
fn the_wished_address_is_bound() {
    let mesh = wish(None, "", "fd7a:115c:a1e0::1").choose(&tailnet()).expect("it is there");
    assert_eq!(mesh.addresses, [ip("fd7a:115c:a1e0::1"), ip("100.64.0.1")]);
    assert_eq!(mesh.kind, Kind::Tailscale);
}
