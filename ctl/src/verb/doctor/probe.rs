//! Whether a daemon answers at an address, and how large a packet reaches it; without any certificate.
//!
//! A QUIC server answers a long packet of a version that it does not speak with the list of those that it does (RFC 9000 section
//! 6.1), but only if the packet has at least 1,200 bytes: so every answer proves a path both ways and a size on the way there.
//! The sizes asked for are what common meshes leave of their MTU. Fragmentation is forbidden where the system can do that.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

/// What QUIC needs at least; less is never answered.
pub(super) const LEAST: usize = 1_200;
/// Payloads that fit: Tailscale with IPv6 and IPv4 (1,280), WireGuard (1,420), Ethernet (1,500).
const SIZES: [usize; 5] = [LEAST, 1_232, 1_252, 1_392, 1_452];
/// How long one answer may take, and how often it is asked for again: packets get lost.
const PATIENCE: Duration = Duration::from_millis(700);
const TRIES: usize = 3;
/// How often for the first one where somebody should be there, so that a path that nobody has used yet is no silent one. WireGuard
/// makes a handshake again that crossed the other side's, or was lost, after 5.334 s at the latest (whitepaper section 6.1,
/// `Rekey-Timeout` and its jitter). Of two that crossed, wireguard-go may also come out with a session in which one side hears nothing:
/// it forgets the index of its own initiation when it answers the other's while that one's answer comes in. That side makes a new one
/// after 15.334 s without a packet (section 6.5, `Keepalive-Timeout` + `Rekey-Timeout`). One of each is 20.668 s.
const FIRST_TRIES: usize = 30;
/// A version that RFC 9000 section 15 reserves: nobody speaks it.
const NO_VERSION: u32 = 0x1a2a_3a4a;
/// Ours; the answer carries it back.
const CONNECTION_ID: [u8; 8] = *b"swarmdoc";

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// Somebody who speaks QUIC is there.
    Answered {
        /// The fastest round trip.
        rtt: Duration,
        /// The largest of the sizes that were answered.
        largest: usize,
    },
    /// The host is there and says that nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
    /// This host has no way there.
    NoRoute,
}

/// Probes one control endpoint: for 2.1 s, and where somebody `should_be_there` for 21 s.
pub(super) async fn probe(addr: SocketAddr, should_be_there: bool) -> Probed {
    let first_tries = if should_be_there { FIRST_TRIES } else { TRIES };
    probe_within(addr, PATIENCE, first_tries).await.unwrap_or(Probed::NoRoute)
}

async fn probe_within(addr: SocketAddr, patience: Duration, first_tries: usize) -> io::Result<Probed> {
    let any: SocketAddr = if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    forbid_fragments(&socket, addr);
    socket.connect(addr).await?;
    let mut best: Option<(Duration, usize)> = None;
    for size in SIZES {
        let tries = if best.is_none() { first_tries } else { TRIES };
        match ask(&socket, size, patience, tries).await {
            Ok(Some(rtt)) => best = Some((best.map_or(rtt, |(known, _)| known.min(rtt)), size)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(Probed::Refused),
            // larger than this host's own interface takes, or lost on the way: so is everything above it
            Ok(None) | Err(_) => break,
        }
    }
    Ok(best.map_or(Probed::Silent, |(rtt, largest)| Probed::Answered { rtt, largest }))
}

/// One size, some tries.
async fn ask(socket: &UdpSocket, size: usize, patience: Duration, tries: usize) -> io::Result<Option<Duration>> {
    let packet = packet(size);
    for _ in 0..tries {
        let asked = Instant::now();
        socket.send(&packet).await?;
        match timeout(patience, answer(socket)).await {
            Ok(answered) => return answered.map(|()| Some(asked.elapsed())),
            Err(_) => continue,
        }
    }
    Ok(None)
}

async fn answer(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2_048];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..len]) {
            return Ok(());
        }
    }
}

/// A long header of no version, and padding.
fn packet(size: usize) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend(NO_VERSION.to_be_bytes());
    for id in [CONNECTION_ID, CONNECTION_ID] {
        packet.push(8);
        packet.extend(id);
    }
    packet.resize(size, 0);
    packet
}

/// A version negotiation packet for us: a long header, version 0, our id first.
fn is_answer(packet: &[u8]) -> bool {
    packet.len() > 14 && packet[0] & 0x80 != 0 && packet[1..5] == [0; 4] && packet[5] == 8 && packet[6..14] == CONNECTION_ID
}

#[cfg(target_os = "linux")]
fn forbid_fragments(socket: &UdpSocket, addr: SocketAddr) {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
    // Where it cannot be forbidden the sizes are told as they are asked for, as on other systems.
    let _ = if addr.is_ipv4() {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)
    } else {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)
    };
}

#[cfg(not(target_os = "linux"))]
fn forbid_fragments(_: &UdpSocket, _: SocketAddr) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// The answer: a list of one version.
    fn versions() -> Vec<u8> {
        [&[0x80, 0, 0, 0, 0, 8][..], &CONNECTION_ID, &[8], &CONNECTION_ID, &[0, 0, 0, 1]].concat()
    }

    /// Answers as a QUIC server must, to what is at most `largest` long.
    async fn server(largest: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                if (LEAST..=largest).contains(&len) && buffer[..23] == packet(23) {
                    socket.send_to(&[9; 40], from).await.unwrap();
                    socket.send_to(&versions(), from).await.unwrap();
                }
            }
        });
        addr
    }

    #[test]
    fn the_largest_packet_that_is_answered_is_told() {
        block_on(async {
            for (largest, told) in [(1_200, 1_200), (1_300, 1_252), (9_000, 1_452)] {
                let probed = probe_within(server(largest).await, Duration::from_millis(30), TRIES).await.unwrap();
                assert!(matches!(probed, Probed::Answered { largest, .. } if largest == told), "{largest}: {probed:?}");
            }
        });
    }

    #[test]
    fn a_path_that_opens_after_the_longest_quarrel_over_a_handshake_is_no_silent_one() {
        assert!(PATIENCE * u32::try_from(FIRST_TRIES).unwrap() > Duration::from_millis(5_334 + 15_334));
        block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = server.local_addr().unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 2_048];
                for asked in 1.. {
                    let (_, from) = server.recv_from(&mut buffer).await.unwrap();
                    if asked >= FIRST_TRIES {
                        server.send_to(&versions(), from).await.unwrap();
                    }
                }
            });
            let patience = Duration::from_millis(20);
            assert_eq!(probe_within(addr, patience, TRIES).await.unwrap(), Probed::Silent);
            let probed = probe_within(addr, patience, FIRST_TRIES).await.unwrap();
            assert!(matches!(probed, Probed::Answered { .. }), "{probed:?}");
        });
    }

    #[test]
    fn silence_and_refusal_are_told_apart() {
        block_on(async {
            let quiet = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = quiet.local_addr().unwrap();
            assert_eq!(probe_within(addr, Duration::from_millis(5), TRIES).await.unwrap(), Probed::Silent);
            drop(quiet);
            assert_eq!(probe_within(addr, Duration::from_millis(500), TRIES).await.unwrap(), Probed::Refused);
        });
    }
}
