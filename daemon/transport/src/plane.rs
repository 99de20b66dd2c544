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
    /// Blobs, snapshots and live output. Served by the bulk endpoint.
    Bulk,
    /// New certificates, and nothing else: the one plane on which a certificate that has ended is good enough. Served by the
    /// control endpoint.
    Renew,
}

/// A swarm between two recoveries. A recovery begins the next epoch, which fences everybody who was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Realm {
    /// Which swarm.
    pub cluster: ClusterId,
    /// Recoveries so far.
    pub epoch: u32,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 4] = [Self::Control, Self::Raft, Self::Bulk, Self::Renew];

    /// Its word in ALPN and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Raft => "raft",
            Self::Bulk => "bulk",
            Self::Renew => "renew",
        }
    }

    /// `swarm-<plane>/<protocol>/<cluster>/<epoch>`: another swarm, a version too far away, or a swarm that was recovered since,
    /// cannot even complete a handshake.
    pub fn alpn(self, protocol: u16, realm: Realm) -> Vec<u8> {
        let Realm { cluster, epoch } = realm;
        format!("swarm-{self}/{protocol}/{cluster}/{epoch}").into_bytes()
    }

    /// One for each protocol, the newest first: that is the one which is agreed on.
    pub(crate) fn alpns(self, protocols: &RangeInclusive<u16>, realm: Realm) -> Vec<Vec<u8>> {
        protocols.clone().rev().map(|protocol| self.alpn(protocol, realm)).collect()
    }

    /// The plane and the protocol that were agreed on.
    pub(crate) fn from_alpn(alpn: &[u8], protocols: &RangeInclusive<u16>, realm: Realm) -> Option<(Self, u16)> {
        let known = Self::ALL.into_iter().flat_map(|plane| protocols.clone().map(move |protocol| (plane, protocol)));
        known.into_iter().find(|(plane, protocol)| plane.alpn(*protocol, realm) == alpn)
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
    fn alpn_names_plane_version_cluster_and_epoch() {
        let realm = Realm { cluster: ClusterId([0xab; 16]), epoch: 3 };
        assert_eq!(Plane::Raft.alpn(1, realm), format!("swarm-raft/1/{}/3", "ab".repeat(16)).into_bytes());
        for plane in Plane::ALL {
            assert_eq!(Plane::from_alpn(&plane.alpn(2, realm), &(1..=2), realm), Some((plane, 2)));
            assert_eq!(Plane::from_alpn(&plane.alpn(3, realm), &(1..=2), realm), None);
            assert_eq!(Plane::from_alpn(&plane.alpn(1, Realm { cluster: ClusterId([1; 16]), ..realm }), &(1..=2), realm), None);
            assert_eq!(Plane::from_alpn(&plane.alpn(1, Realm { epoch: 2, ..realm }), &(1..=2), realm), None);
        }
    }
}
