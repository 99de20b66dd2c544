//! What a connection is for. Planes never share a connection, so nothing large delays a probe or a heartbeat.

use std::{fmt, ops::RangeInclusive};

use swarm_proto::ClusterId;

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

    /// `swarm-<plane>/<protocol>/<cluster>`: another swarm or a version too far away cannot even complete a handshake.
    pub fn alpn(self, protocol: u16, cluster: ClusterId) -> Vec<u8> {
        format!("swarm-{self}/{protocol}/{cluster}").into_bytes()
    }

    /// One for each protocol, the newest first: that is the one which is agreed on.
    pub(crate) fn alpns(self, protocols: &RangeInclusive<u16>, cluster: ClusterId) -> Vec<Vec<u8>> {
        protocols.clone().rev().map(|protocol| self.alpn(protocol, cluster)).collect()
    }

    /// The plane and the protocol that were agreed on.
    pub(crate) fn from_alpn(alpn: &[u8], protocols: &RangeInclusive<u16>, cluster: ClusterId) -> Option<(Self, u16)> {
        let known = Self::ALL.into_iter().flat_map(|plane| protocols.clone().map(move |protocol| (plane, protocol)));
        known.into_iter().find(|(plane, protocol)| plane.alpn(*protocol, cluster) == alpn)
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
        assert_eq!(Plane::Raft.alpn(1, cluster), format!("swarm-raft/1/{}", "ab".repeat(16)).into_bytes());
        for plane in Plane::ALL {
            assert_eq!(Plane::from_alpn(&plane.alpn(2, cluster), &(1..=2), cluster), Some((plane, 2)));
            assert_eq!(Plane::from_alpn(&plane.alpn(3, cluster), &(1..=2), cluster), None);
            assert_eq!(Plane::from_alpn(&plane.alpn(1, ClusterId([1; 16])), &(1..=2), cluster), None);
        }
    }
}
