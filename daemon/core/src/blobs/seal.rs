//! How a blob is kept where nobody is to read it from the disk.
//!
//! ```text
//!   key of the store --BLAKE3, with the salt of a file--> key of the file --AES-256-CTR--> what is on the disk
//!   the file: the blob's bytes, each at its place | MARK | salt | check of the key
//! ```
//! **No tag, no header.** A segment is checked against the blob's name before it is written and after it is read, which proves more than
//! a tag would; so a file keeps the size, the places and the alignment of its blob, and any part of it can be opened alone. Tags
//! (AES-GCM, a segment each) would cost these and prove nothing new. **A key and a counter never cover two plaintexts**: each file
//! has a salt of its own, what is written to a file is what its name says, and the counter is the place. A key made from the name
//! alone would need no salt, but a blob that is put gets its name after its last byte. **What it does not hide**: the size, and,
//! from whoever can guess the bytes, that they are these, since a blob's name is their hash. The key is as safe as the file that it
//! is in.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    iv::FixedLength,
};
use serde::{Deserialize, Serialize};

/// Bytes of a salt.
pub const SALT: usize = 16;
/// Bytes of what stands behind a blob's own.
pub const SEAL: usize = MARK.len() + SALT + CHECK;

const MARK: &[u8; 16] = b"swarm sealed v1\n";
const CHECK: usize = 16;
const BLOCK: usize = 16;
/// What the keys are for, so that no other use of the same bytes gives the same keys.
const FILE_KEY: &str = "swarm 2026-11 blobs at rest: the key of a file";
const KEY_CHECK: &str = "swarm 2026-11 blobs at rest: whether it is the key";

/// What opens all that a node keeps encrypted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreKey([u8; Self::LEN]);

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

impl StoreKey {
    /// Bytes of it.
    pub const LEN: usize = 32;

    /// From bytes that nobody can guess.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    fn derive(&self, context: &str, salt: [u8; SALT]) -> [u8; 32] {
        let mut material = [0; Self::LEN + SALT];
        material[..Self::LEN].copy_from_slice(&self.0);
        material[Self::LEN..].copy_from_slice(&salt);
        blake3::derive_key(context, &material)
    }
}

/// Makes plain bytes of a file encrypted ones, and the other way round.
#[derive(Debug)]
pub struct Cipher {
    key: EncryptingKey,
    seal: [u8; SEAL],
}

impl Cipher {
    /// Of a new file. `salt`: random, and used for nothing else.
    pub fn new(store: &StoreKey, salt: [u8; SALT]) -> Self {
        let check = store.derive(KEY_CHECK, salt);
        let mut seal = [0; SEAL];
        let (mark, rest) = seal.split_at_mut(MARK.len());
        mark.copy_from_slice(MARK);
        rest[..SALT].copy_from_slice(&salt);
        rest[SALT..].copy_from_slice(&check[..CHECK]);
        let key = UnboundCipherKey::new(&AES_256, &store.derive(FILE_KEY, salt)).and_then(EncryptingKey::ctr);
        Self { key: key.expect("32 bytes are a key of AES-256"), seal }
    }

    /// Of a file with this seal; `None`: it was not sealed with this key.
    pub fn open(store: &StoreKey, seal: &[u8; SEAL]) -> Option<Self> {
        let salt = *seal[MARK.len()..].first_chunk()?;
        Some(Self::new(store, salt)).filter(|cipher| cipher.seal == *seal)
    }

    /// What stands behind the blob's bytes.
    pub const fn seal(&self) -> &[u8; SEAL] {
        &self.seal
    }

    /// Encrypts what is at that place of the blob, or decrypts it.
    pub fn apply(&self, at: u64, data: &mut [u8]) {
        let (first, skip) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        if skip == 0 {
            return self.apply_blocks(first, data);
        }
        let (head, rest) = data.split_at_mut(data.len().min(BLOCK - skip));
        let mut block = [0; BLOCK];
        let within = skip..skip + head.len();
        block[within.clone()].copy_from_slice(head);
        self.apply_blocks(first, &mut block);
        head.copy_from_slice(&block[within]);
        self.apply_blocks(first + 1, rest);
    }

    fn apply_blocks(&self, first: u64, data: &mut [u8]) {
        let counter = EncryptionContext::Iv128(FixedLength::from(u128::from(first).to_be_bytes()));
        let done = self.key.less_safe_encrypt(data, counter);
        done.expect("counter mode takes any length, and a counter of its own size");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> StoreKey {
        StoreKey::new([n; 32])
    }

    #[test]
    fn a_key_opens_its_own_seals_alone() {
        let cipher = Cipher::new(&key(1), [7; SALT]);
        assert_eq!(Cipher::open(&key(1), cipher.seal()).map(|again| *again.seal()), Some(*cipher.seal()));
        assert!(Cipher::open(&key(2), cipher.seal()).is_none());
        for at in 0..SEAL {
            let mut seal = *cipher.seal();
            seal[at] ^= 1;
            assert!(Cipher::open(&key(1), &seal).is_none(), "{at}");
        }
        assert_eq!(format!("{:?}", key(1)), "StoreKey(..)");
    }

    #[test]
    fn files_have_nothing_in_common() {
        let of = |store: u8, salt: u8, at| {
            let mut data = vec![0; 64];
            Cipher::new(&key(store), [salt; SALT]).apply(at, &mut data);
            data
        };
        let all = [of(1, 1, 0), of(2, 1, 0), of(1, 2, 0), of(1, 1, 64), of(1, 1, 1 << 35)];
        for (at, one) in all.iter().enumerate() {
            assert!(one.iter().any(|byte| *byte != 0) && !all[..at].contains(one), "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_part_opens_alone(len in 0usize..300, from in 0usize..300, to in 0usize..300, base in prop_oneof![Just(0u64), 0u64..1 << 36]) {
            let cipher = Cipher::new(&key(3), [9; SALT]);
            let plain: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut sealed = plain.clone();
            cipher.apply(base, &mut sealed);
            let (from, to) = (from.min(len), to.min(len));
            let part = from.min(to)..from.max(to);
            let mut opened = sealed[part.clone()].to_vec();
            cipher.apply(base + part.start as u64, &mut opened);
            prop_assert_eq!(&opened, &plain[part]);
        }
    }
}
