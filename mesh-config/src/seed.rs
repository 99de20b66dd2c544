//! A member to ask first: a name for the mesh's DNS, or an address.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Longest name in DNS, and longest part of one.
const NAME: usize = 253;
const LABEL: usize = 63;

/// Where another member may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// Which host.
    pub host: Host,
    /// Its control port; `None`: the same as here.
    pub port: Option<u16>,
}

/// How a host is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// By its address.
    Ip(IpAddr),
    /// By a name, whole or within the search domain of the mesh.
    Name(String),
}

impl From<SocketAddr> for Seed {
    fn from(addr: SocketAddr) -> Self {
        Self { host: Host::Ip(addr.ip()), port: Some(addr.port()) }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (Host::Ip(ip), None) => ip.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }
    }
}

impl FromStr for Seed {
    type Err = String;

    /// `pi4`, `pi4:4747`, `100.64.0.2`, `100.64.0.2:4747`, `fd7a::2`, `[fd7a::2]:4747`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = if let Ok(addr) = text.parse::<SocketAddr>() {
            (Host::Ip(addr.ip()), Some(addr.port()))
        } else if let Ok(ip) = text.parse::<IpAddr>() {
            (Host::Ip(ip), None)
        } else {
            let (name, port) = match text.rsplit_once(':') {
                Some((name, port)) => {
                    (name, Some(port.parse::<u16>().map_err(|_| format!("'{}' ends with no port", text.escape_debug()))?))
                }
                None => (text, None),
            };
            if !is_name(name) {
                return Err(format!("'{}' is neither a name nor an address, with or without \":port\"", text.escape_debug()));
            }
            (Host::Name(name.to_owned()), port)
        };
        let is_somewhere = !matches!(&host, Host::Ip(ip) if ip.is_unspecified() || ip.is_multicast()) && port != Some(0);
        if is_somewhere { Ok(Self { host, port }) } else { Err(format!("'{text}' is nowhere to dial")) }
    }
}

/// A name that DNS can have. One that ends in a number would be a misspelt address.
fn is_name(text: &str) -> bool {
    let whole = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_number = whole.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    whole.len() <= NAME && whole.split('.').all(is_label) && !ends_in_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_a_port() {
        for text in
            ["pi4", "pi4:4747", "pi4.tail1234.ts.net", "h_1.lan.:5000", "100.64.0.2", "100.64.0.2:4747", "fd7a::2", "[fd7a::2]:4747"]
        {
            let seed: Seed = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(seed.to_string(), text);
        }
        let label = "a".repeat(63);
        assert!(label.parse::<Seed>().is_ok() && format!("{label}a").parse::<Seed>().is_err());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "",
            ":4747",
            "pi4:",
            "pi4:http",
            "pi4:70000",
            "pi4:0",
            "10.0.0.300",
            "1.2.3",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1",
            "a b",
            "a..b",
            "-a",
            "http://pi4",
            "pi4/24",
        ] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}
