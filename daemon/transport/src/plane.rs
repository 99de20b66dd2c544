//! What a connection is for. Planes never share a connection, so nothing large delays a probe or a heartbeat.

use std::fmt;

use swarm_proto::{ClusterId, PROTOCOL};

/// The kind of traffic on a connection; part of its ALPN, so both sides agree on it before the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Gossip datagrams and calls. Served by the control endpoint.
    Control,
    /// Consensus. Served by the control endpoint, on connections of its own.
    Raft,
    /// Snapshots and live output. Served by the bulk endpoint.
    Bulk,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 3] = [Self::Control, Self::Raft, Self::Bulk];

    /// Its word in ALPN and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Raft => "raft",
            Self::Bulk => "bulk",
        }
    }

    /// `swarm-<plane>/<protocol>/<cluster>`: another swarm or another version cannot even complete a handshake.
    pub fn alpn(self, cluster: ClusterId) -> Vec<u8> {
        format!("swarm-{self}/{PROTOCOL}/{cluster}").into_bytes()
    }

    pub(crate) fn from_alpn(alpn: &[u8], cluster: ClusterId) -> Option<Self> {
        Self::ALL.into_iter().find(|plane| plane.alpn(cluster) == alpn)
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpn_names_plane_version_and_cluster() {
        let cluster = ClusterId([0xab; 16]);
        assert_eq!(Plane::Raft.alpn(cluster), format!("swarm-raft/1/{}", "ab".repeat(16)).into_bytes());
        for plane in Plane::ALL {
            assert_eq!(Plane::from_alpn(&plane.alpn(cluster), cluster), Some(plane));
            assert_eq!(Plane::from_alpn(&plane.alpn(ClusterId([1; 16])), cluster), None);
        }
    }
}
