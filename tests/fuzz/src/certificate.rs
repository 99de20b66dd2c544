//! What a peer shows and says before it is anybody.

use std::sync::OnceLock;

use rustls::pki_types::CertificateDer;
use swarm_proto::{
    ClusterId, NodeId, PROTOCOL, PeerKey,
    identity::{Authority, Secret},
    ledger::Addrs,
    peer::Hello,
};
use swarm_transport::{Ca, SecretKey, Validity, certificate_end, fuzzing, peer_key};

use crate::input::Input;

/// An authority that is always the same.
pub(crate) fn authority() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(|| Ca::create(ClusterId([1; 16]), SecretKey::from_seed(&[1; 32]).expect("a seed")).expect("an authority"))
}

/// A certificate that it issued.
pub(crate) fn issued() -> &'static CertificateDer<'static> {
    static LEAF: OnceLock<CertificateDer<'static>> = OnceLock::new();
    LEAF.get_or_init(|| authority().issue(&PeerKey([7; 32]), Validity::CENTURY).expect("a certificate"))
}

fn verifier() -> &'static fuzzing::Verifier {
    static VERIFIER: OnceLock<fuzzing::Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| fuzzing::Verifier::new(authority().root().clone()).expect("an authority is believed"))
}

pub(crate) fn ours() -> Hello {
    let at = |port| ([127, 0, 0, 1], port).into();
    let addrs = Addrs { control: at(1), bulk: at(2) };
    Hello { protocol: PROTOCOL, cluster: ClusterId([1; 16]), node: Some(NodeId(3)), name: "pi".into(), addrs, life: 1 }
}

pub(crate) fn shown(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.below(5) {
        0 => leaf(input.rest().to_vec()),
        1 => leaf(changed(&mut input)),
        2 => drop(fuzzing::hello(input.rest(), &ours())),
        3 => drop(SecretKey::from_pkcs8(input.rest())),
        _ => {
            let key = Secret(input.piece().to_vec().into());
            let _ = Ca::from_authority(&Authority { certificate: input.rest().to_vec().into(), key });
        }
    }
}

/// A good one, of which some bytes are other ones.
fn changed(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = issued().to_vec();
    while !input.is_empty() {
        let at = (usize::from(input.byte()) | usize::from(input.byte()) << 8) % bytes.len();
        match input.below(4) {
            0 => bytes.truncate(at.max(1)),
            1 => drop(bytes.splice(at..at, input.take(2).iter().copied())),
            _ => bytes[at] = input.byte(),
        }
    }
    bytes
}

fn leaf(bytes: Vec<u8>) {
    let leaf = CertificateDer::from(bytes);
    let key = peer_key(&leaf);
    assert_eq!(key.is_ok(), certificate_end(&leaf).is_ok());
    if verifier().takes(&leaf) {
        assert_eq!(key, Ok(PeerKey([7; 32])), "a certificate that the authority did not issue");
    }
}
