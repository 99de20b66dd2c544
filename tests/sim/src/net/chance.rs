//! The cryptography of simulated hosts: the real one, but that its chance comes from the world's seed. Otherwise a packet that outlives
//! its connection, which its receiver reads with the wrong key, would become something else each time.
//!
//! The hybrid key exchange has the sizes of X25519MLKEM768 on the wire, so that a hello takes the two packets that it takes, and the
//! secret of X25519 alone: the library makes no ML-KEM key from a seed. All hosts of a world are on one thread, and share its chance.

use std::{cell::RefCell, sync::Arc};

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rustls::{
    Error, NamedGroup,
    crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup},
};

/// Bytes before the key of X25519 in what a client sends: a key of ML-KEM-768 (FIPS 203, table 3).
const ENCAPSULATION_KEY: usize = 1_184;
/// And in what a server answers.
const CIPHERTEXT: usize = 1_088;

thread_local! {
    static CHANCE: RefCell<ChaCha12Rng> = RefCell::new(ChaCha12Rng::seed_from_u64(0));
}

/// Begins this thread's chance anew.
pub(super) fn begin(seed: u64) {
    CHANCE.set(ChaCha12Rng::seed_from_u64(seed));
}

fn draw(bytes: &mut [u8]) {
    CHANCE.with_borrow_mut(|chance| chance.fill_bytes(bytes));
}

/// What simulated endpoints are bound with.
pub fn crypto() -> Arc<CryptoProvider> {
    let real = swarm_transport::crypto();
    let others = real.kx_groups.iter().copied().filter(|group| group.name() != NamedGroup::X25519MLKEM768);
    let kx_groups = [&Hybrid as &dyn SupportedKxGroup].into_iter().chain(others).collect();
    Arc::new(CryptoProvider { kx_groups, secure_random: &Seeded, ..(*real).clone() })
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        draw(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Hybrid;

/// One side of an exchange.
struct Side {
    key: PrivateKey,
    /// What the other is sent; its end is the key of X25519.
    share: Vec<u8>,
    before: usize,
}

impl Side {
    fn new(before: usize) -> Result<Self, Error> {
        let mut secret = [0; 32];
        draw(&mut secret);
        let key = PrivateKey::from_private_key(&X25519, &secret).map_err(|_| GetRandomFailed)?;
        let mut share = vec![0; before];
        draw(&mut share);
        share.extend_from_slice(key.compute_public_key().map_err(|_| GetRandomFailed)?.as_ref());
        Ok(Self { key, share, before })
    }

    fn agree(&self, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let failed = || Error::General("no X25519 key".to_owned());
        agree(&self.key, UnparsedPublicKey::new(&X25519, theirs), failed(), |secret| Ok(SharedSecret::from(secret)))
    }
}

/// The last 32 bytes, after as many as must be before them.
fn classical(share: &[u8], before: usize) -> Result<&[u8], Error> {
    share.get(before..).filter(|key| key.len() == 32).ok_or_else(|| Error::General("a share of another size".to_owned()))
}

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Side::new(ENCAPSULATION_KEY)?))
    }

    fn start_and_complete(&self, theirs: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let ours = Side::new(CIPHERTEXT)?;
        let secret = ours.agree(classical(theirs, ENCAPSULATION_KEY)?)?;
        Ok(CompletedKeyExchange { group: self.name(), pub_key: ours.share, secret })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

impl ActiveKeyExchange for Side {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        self.agree(classical(theirs, CIPHERTEXT)?)
    }

    /// A client offers the classical half by itself too.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((NamedGroup::X25519, &self.share[self.before..]))
    }

    fn complete_hybrid_component(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        self.agree(theirs)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}
