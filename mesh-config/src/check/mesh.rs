//! `[mesh]`: each key alone, and what they say together. What contradicts the machine is found out by swarmd.

use std::{net::IpAddr, time::Duration};

use crate::{CONTROL_PORT, Config, Kind, Mesh, fault::EXAMPLE_ADDRESS, read::Reader, setting::KindOrAuto};

/// Longest name of an interface; Linux takes 15 bytes, Windows a sentence.
const INTERFACE: usize = 255;
/// Longest tag.
const TAG: usize = 128;

pub(super) fn read(reader: &mut Reader<'_>) -> Mesh {
    let default = Config::new(String::new()).mesh;
    let kind: Option<KindOrAuto> = reader.take("mesh.kind");
    let kind = kind.and_then(|kind| kind.0);
    let mesh = Mesh {
        kind,
        interface: interface(reader),
        address: address(reader, kind),
        control_port: reader.take("mesh.control_port").unwrap_or(default.control_port),
        bulk_port: reader.take("mesh.bulk_port").unwrap_or(default.bulk_port),
        peers: reader.take("mesh.peers").unwrap_or_default(),
        tag: tag(reader),
        preset: reader.take("mesh.preset"),
        tailscale_socket: reader.take("mesh.tailscale_socket").unwrap_or(default.tailscale_socket),
        certificate_life: certificate_life(reader),
    };
    together(reader, &mesh);
    ports(reader, &mesh, default.bulk_port);
    mesh
}

fn interface(reader: &mut Reader<'_>) -> Option<String> {
    let key = "mesh.interface";
    let name: String = reader.take(key)?;
    let fits = (1..=INTERFACE).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == '/');
    if !fits {
        reader.fault_in(
            key,
            format!("'{}' is no name of an interface", name.escape_debug()),
            "one that `ip addr` shows, such as wg0 or zt0",
        );
    }
    Some(name)
}

fn address(reader: &mut Reader<'_>, kind: Option<Kind>) -> Option<IpAddr> {
    let key = "mesh.address";
    let write = format!("address = \"{EXAMPLE_ADDRESS}\", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)");
    let address: IpAddr = reader.take(key)?;
    if address.is_unspecified() {
        reader.fault_in(key, format!("{address} would listen on every network, the internet included"), &write);
    } else if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        reader.fault_in(key, format!("{address} belongs to no single host"), &write);
    } else if is_link_local(address) {
        reader.fault_in(key, format!("{address} means nothing without its interface"), &write);
    } else if address.is_loopback() && kind != Some(Kind::Explicit) {
        let hint = "for a throw-away swarm on one machine write kind = \"address\" beside it";
        reader.fault_in(key, format!("no other host can reach {address}"), hint);
    }
    Some(address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn tag(reader: &mut Reader<'_>) -> Option<String> {
    let key = "mesh.tag";
    let tag: String = reader.take(key)?;
    let name = tag.strip_prefix("tag:");
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    match name {
        Some(name) if is_name(name) && tag.len() <= TAG => {}
        None if is_name(&tag) => reader.fault_in(key, format!("'{tag}' is no tag"), &format!("tag = \"tag:{tag}\"")),
        Some(_) | None => reader.fault_in(key, format!("'{}' is no tag", tag.escape_debug()), "tag = \"tag:swarm\""),
    }
    Some(tag)
}

/// Shorter than this, a certificate ends before it is renewed; longer, a lost key is good for too long.
const LIVES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(366 * 24 * 3600));

fn certificate_life(reader: &mut Reader<'_>) -> Duration {
    let life = reader.take("mesh.certificate_life").unwrap_or(crate::CERTIFICATE_LIFE);
    if !(LIVES.0..=LIVES.1).contains(&life) {
        let what = format!("{} is not between 10s and a year", humantime::format_duration(life));
        reader.fault_in("mesh.certificate_life", what, "certificate_life = \"24h\"");
    }
    life
}

/// What does not go with what.
fn together(reader: &mut Reader<'_>, mesh: &Mesh) {
    match mesh.kind {
        Some(Kind::Explicit) => {
            if mesh.address.is_none() && !reader.is_set("mesh.address") {
                reader.fault_in(
                    "mesh.kind",
                    "kind is \"address\", and there is none",
                    &format!("address = \"{EXAMPLE_ADDRESS}\" beside it"),
                );
            }
            if mesh.interface.is_some() {
                reader.fault_in("mesh.interface", "with kind = \"address\" no interface is followed", "leave one of them out");
            }
        }
        Some(Kind::Interface) if mesh.interface.is_none() && !reader.is_set("mesh.interface") => {
            reader.fault_in("mesh.kind", "kind is \"interface\", and none is named", "interface = \"zt0\" beside it");
        }
        Some(Kind::Interface | Kind::Wireguard | Kind::Tailscale) | None => {}
    }
    let has_tags = matches!(mesh.kind, None | Some(Kind::Tailscale));
    if mesh.tag.is_some() && !has_tags {
        reader.fault_in("mesh.tag", "only a tailnet has tags", "leave it out, or kind = \"tailscale\"");
    }
}

fn ports(reader: &mut Reader<'_>, mesh: &Mesh, bulk_default: u16) {
    if mesh.control_port == mesh.bulk_port {
        let key = if reader.is_set("mesh.bulk_port") { "mesh.bulk_port" } else { "mesh.control_port" };
        let other = if mesh.bulk_port == CONTROL_PORT { bulk_default } else { CONTROL_PORT };
        reader.fault_in(key, format!("control_port and bulk_port are both {}", mesh.bulk_port), &format!("{} = {other}", &key[5..]));
    }
}
