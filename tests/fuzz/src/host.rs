//! What other programs of the host say: tailscaled, and wg.

use mesh_detect::fuzzing;

pub(crate) fn answers(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(tailnet) = fuzzing::tailnet(bytes) {
                let _ = tailnet.is_running();
                for address in tailnet.peers.iter().flat_map(|peer| &peer.addresses) {
                    assert!(tailnet.owner_of(*address).is_some(), "an address that nobody owns");
                }
            }
        }
        1 => drop(fuzzing::whois(bytes)),
        2 => drop(fuzzing::answer(bytes)),
        _ => {
            let peers = fuzzing::wireguard(&String::from_utf8_lossy(bytes), "wg0").unwrap_or_default();
            assert!(peers.iter().all(|peer| !peer.addresses.is_empty()), "a peer without an address");
        }
    }
}
