//! QUIC's settings. Its defaults are made for the open internet (no receive window to speak of, 65,536 pending handshakes,
//! migration on, no keep-alive), so every bound of [`limits`] is set here, and every source of chance comes from the seed.
//!
//! The reset key and the key of connection ids belong to the node, not to one life of the daemon: so a restarted daemon can
//! tell its peers, by a stateless reset, that their old connections are dead, instead of leaving them to the idle time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{hkdf, hmac};
use quinn::{
    AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use swarm_proto::limits;

use crate::{
    congestion::ShortQueues,
    identity::{Identity, IdentityError},
    plane::Plane,
    tls::{self, Clock, Tongue},
};

/// First guess of a round trip where commits and probes run: a lost first packet is repeated after three of these. Too small
/// for a slow path costs a few repeated packets, once a connection.
const CONTROL_RTT: Duration = Duration::from_millis(30);
/// The same for bulk, which is in no hurry.
const BULK_RTT: Duration = Duration::from_millis(100);
/// Bulk packets that may overtake one before it counts as lost. A mesh reorders: a tunnel that works on several cores does, and so does
/// a virtual link. With QUIC's own 3 (RFC 9002, section 6.1.1) each time looks like a path that is full: a node that received at the
/// full rate of its link passed on at two thirds of it.
const REORDERED: u32 = 128;
/// How many round trips an overtaken bulk packet may be late; RFC 9002 has 9/8.
const LATE: f32 = 1.5;
/// Bulk packets that one acknowledgement may stand for, beyond the first (draft-ietf-quic-ack-frequency): six in all, fewer than are always
/// allowed to be under way, so that none of them waits for a timer. With QUIC's own two, half as many packets went back as came, over the
/// link on which a node of a chain passes on what it gets.
pub(crate) const ACKNOWLEDGED: u32 = 5;
/// How long the last few packets of a segment wait for theirs. The time until all of it is acknowledged tells how fast a link is; QUIC's own
/// 25 ms would make every quick one look slow.
const LAST: Duration = Duration::from_millis(2);
/// Fits every mesh (Tailscale's 1,280 less headers); discovery may find more.
const FIRST_MTU: u16 = 1200;
/// The largest bulk datagram that is looked for, and taken: that of a link with 9,000-byte frames, less the headers of IPv6 and UDP.
/// Most of what a transfer costs it costs a datagram, so loopback and links within a host or a rack carry a third to a half more. A
/// link that carries less costs some lost probes at the beginning of a connection, one at a time and none of them counted as a path
/// that is full; a path that carries less later is found out by what is lost, and begins again at the first size.
pub(crate) const BULK_MTU: u16 = 8952;
/// Bytes of one stream under way on the control endpoint: a few frames of the largest size.
const CONTROL_STREAM: u32 = 4 << 20;
/// Bytes kept of a handshake that is not yet accepted.
const INCOMING_BUFFER: u64 = 16 << 10;

fn transport(is_bulk: bool) -> Arc<TransportConfig> {
    let (window, stream, rtt) = match is_bulk {
        true => (limits::BULK_WINDOW, limits::BULK_WINDOW / 4, BULK_RTT),
        false => (limits::CONTROL_WINDOW, CONTROL_STREAM, CONTROL_RTT),
    };
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(window))
        .stream_receive_window(VarInt::from_u32(stream))
        .send_window(u64::from(window))
        .max_idle_timeout(Some(limits::IDLE.try_into().expect("the idle time fits a QUIC integer")))
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .initial_rtt(rtt)
        .initial_mtu(FIRST_MTU)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .datagram_receive_buffer_size((!is_bulk).then_some(limits::DATAGRAMS))
        .datagram_send_buffer_size(limits::DATAGRAMS);
    if is_bulk {
        config.packet_threshold(REORDERED).time_threshold(LATE).congestion_controller_factory(Arc::<ShortQueues>::default());
        let mut rarely = AckFrequencyConfig::default();
        rarely
            .max_ack_delay(Some(LAST))
            .ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGED))
            .reordering_threshold(VarInt::from_u32(REORDERED - 1));
        config.ack_frequency_config(Some(rarely));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(BULK_MTU);
        config.mtu_discovery_config(Some(discovery));
    }
    Arc::new(config)
}

/// Settings for connections dialled on a plane.
pub(crate) fn client(
    identity: &Identity,
    tongue: &Tongue,
    plane: Plane,
    clock: &Clock,
    seed: [u8; 32],
) -> Result<quinn::ClientConfig, IdentityError> {
    let tls = tls::client(identity, tongue, plane, clock)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| IdentityError::Mismatch(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let dialled = AtomicU64::new(0);
    config.transport_config(transport(plane == Plane::Bulk)).token_store(Arc::new(quinn::NoneTokenStore)).initial_dst_cid_provider(
        Arc::new(move || {
            let count = dialled.fetch_add(1, Ordering::Relaxed);
            let bytes = blake3::keyed_hash(&seed, &[plane.word().as_bytes(), &count.to_le_bytes()].concat());
            ConnectionId::new(&bytes.as_bytes()[..16])
        }),
    );
    Ok(config)
}

/// Settings for connections that come in. The planes of an endpoint share them, since the plane is known only afterwards.
pub(crate) fn server(
    identity: &Identity,
    tongue: &Tongue,
    planes: &[Plane],
    clock: &Clock,
    token_seed: [u8; 32],
) -> Result<quinn::ServerConfig, IdentityError> {
    let tls = tls::server(identity, tongue, planes, clock)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| IdentityError::Mismatch(e.to_string()))?;
    let tokens = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token_seed);
    let mut unused = quinn::ValidationTokenConfig::default();
    unused.sent(0);
    let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(tokens));
    config
        .transport_config(transport(planes.iter().all(|plane| *plane == Plane::Bulk)))
        .validation_token_config(unused)
        .retry_token_lifetime(limits::HANDSHAKE_TIME)
        .time_source(Arc::new(clock.clone()))
        .migration(false)
        .max_incoming(limits::HANDSHAKES)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * limits::HANDSHAKES as u64);
    Ok(config)
}

/// Makes ids of connections: four bytes of chance, and four by which the node knows them for its own, in all its lives. Quinn's own
/// generator takes its chance from the operating system; a packet that outlives its connection is read with a key made of its id, so what
/// becomes of it would differ from one run of a seed to the next.
struct ConnectionIds {
    /// Of the node.
    key: [u8; 32],
    /// Of this life of the daemon.
    seed: [u8; 32],
    made: u64,
}

impl ConnectionIds {
    const LEN: usize = 8;

    fn sign(&self, nonce: &[u8]) -> [u8; 4] {
        *blake3::keyed_hash(&self.key, nonce).as_bytes().first_chunk().expect("32 bytes hold 4")
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let chance = blake3::keyed_hash(&self.seed, &self.made.to_le_bytes());
        let nonce = &chance.as_bytes()[..4];
        ConnectionId::new(&[nonce, &self.sign(nonce)].concat())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(4) {
            Some((nonce, signature)) if signature == self.sign(nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        Self::LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Settings of the endpoint itself. `is_bulk`: its socket is for that alone.
pub(crate) fn endpoint(identity: &Identity, is_bulk: bool, seed: [u8; 32]) -> EndpointConfig {
    let reset = identity.key().derive("swarm stateless reset 1");
    let key = identity.key().derive("swarm connection ids 2");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    let of_ids = blake3::derive_key("swarm connection ids of a life 1", &seed);
    config.cid_generator(move || Box::new(ConnectionIds { key, seed: of_ids, made: 0 }));
    config.rng_seed(Some(seed));
    if is_bulk {
        config.max_udp_payload_size(BULK_MTU).expect("it is more than QUIC's least");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(key: u8, seed: u8) -> ConnectionIds {
        ConnectionIds { key: [key; 32], seed: [seed; 32], made: 0 }
    }

    #[test]
    fn a_node_knows_its_ids_in_every_life_and_no_other_does() {
        let (mut first, mut again, other) = (ids(1, 1), ids(1, 2), ids(2, 1));
        let made: Vec<ConnectionId> = (0..100).flat_map(|_| [first.generate_cid(), again.generate_cid()]).collect();
        for id in &made {
            assert!(first.validate(id).is_ok() && again.validate(id).is_ok(), "{id}");
            assert!(other.validate(id).is_err(), "{id}");
            assert_eq!(made.iter().filter(|one| *one == id).count(), 1, "{id} came twice");
        }
        for strange in [&[][..], &[0; 4], &[0; 8], &made[0][..7], &[&made[0][..], &[0]].concat()] {
            assert!(first.validate(&ConnectionId::new(strange)).is_err(), "{strange:?}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_ids() {
        let (mut one, mut same) = (ids(1, 3), ids(1, 3));
        (0..10).for_each(|_| assert_eq!(one.generate_cid(), same.generate_cid()));
    }
}
