//! The one line that lets a node or a person in: `swarm1-` and base32.
//!
//! It names the swarm, pins the authority that the other side must show before anything is sent to it, holds the secret, and
//! says where to knock. The alphabet of RFC 4648 in lower case has no 0, 1, 8 or 9 to be misread; a checksum tells a line that was
//! copied badly from one that is not known any more.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ClusterId, RootId, TokenId, identity::Kind};

/// What every line begins with; the number is the version of what follows.
const HEAD: &str = "swarm1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bytes of BLAKE3 behind the rest.
const CHECKSUM: usize = 4;
/// Places to knock at.
pub const ADDRESSES: usize = 4;
/// Longest line that is read.
const LONGEST: usize = 2_048;

/// What the line says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub kind: Kind,
    pub cluster: ClusterId,
    /// BLAKE3 of the node CA's certificate that the other side must show.
    pub pin: [u8; 32],
    pub secret: [u8; 20],
    /// `host:port` of nodes that enrol.
    pub addresses: Vec<String>,
}

impl Token {
    /// Under which name the ledger keeps it.
    pub fn id(&self) -> TokenId {
        let hash = blake3::hash(&self.secret);
        TokenId(*hash.as_bytes().first_chunk().expect("32 bytes hold 8"))
    }

    /// What proves that somebody has the line; the ledger holds this, not the secret.
    pub fn key(&self) -> [u8; 32] {
        blake3::derive_key("swarm token key 1", &self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {} at {:?})", self.kind.word(), self.id(), self.addresses)
    }
}

/// The pin of a CA's certificate.
pub fn pin(certificate: &[u8]) -> [u8; 32] {
    *blake3::hash(certificate).as_bytes()
}

/// The short name of a CA's certificate.
pub fn root_id(certificate: &[u8]) -> RootId {
    RootId(*pin(certificate).first_chunk().expect("32 bytes hold 8"))
}

/// A line that is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("it does not begin with '{HEAD}'")]
    Head,
    #[error("'{0}' at place {1} is no letter of a token")]
    Letter(char, usize),
    #[error("it was not copied whole, or a letter is wrong")]
    Checksum,
    #[error("its content cannot be understood; it may come from another version")]
    Content,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(self).expect("a token is plain data");
        let sum = pin(&bytes);
        bytes.extend_from_slice(&sum[..CHECKSUM]);
        f.write_str(HEAD)?;
        for chunk in bytes.chunks(5) {
            let mut wide = [0; 8];
            wide[3..3 + chunk.len()].copy_from_slice(chunk);
            let bits = u64::from_be_bytes(wide);
            for n in 0..(chunk.len() * 8).div_ceil(5) {
                let letter = ALPHABET[usize::from((bits >> (35 - 5 * n)) as u8 & 31)];
                write!(f, "{}", char::from(letter))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let letters = text.trim().strip_prefix(HEAD).ok_or(BadToken::Head)?;
        if letters.len() > LONGEST {
            return Err(BadToken::Content);
        }
        let bytes = unbase32(letters)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(BadToken::Checksum)?;
        if pin(body)[..CHECKSUM] != sum[..] {
            return Err(BadToken::Checksum);
        }
        let token: Self = crate::frame::decode(body).map_err(|_| BadToken::Content)?;
        if token.addresses.len() > ADDRESSES || token.addresses.iter().any(|address| address.rsplit_once(':').is_none()) {
            return Err(BadToken::Content);
        }
        Ok(token)
    }
}

/// Bits that are left over at the end must be zero, so that each token has one line.
fn unbase32(letters: &str) -> Result<Vec<u8>, BadToken> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(letters.len() * 5 / 8), 0u32, 0);
    for (at, letter) in letters.chars().enumerate() {
        let value = ALPHABET.iter().position(|known| char::from(*known) == letter).ok_or(BadToken::Letter(letter, HEAD.len() + at + 1))?;
        bits = bits << 5 | u32::try_from(value).expect("there are 32 letters");
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    if held >= 5 || bits != 0 { Err(BadToken::Checksum) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(addresses: Vec<String>) -> Token {
        Token { kind: Kind::Node, cluster: ClusterId([7; 16]), pin: [9; 32], secret: [3; 20], addresses }
    }

    #[test]
    fn a_line_is_read_back() {
        for n in 0..=ADDRESSES {
            let token = token((0..n).map(|n| format!("host{n}.tail.ts.net:4749")).collect());
            let line = token.to_string();
            assert_eq!(line.parse(), Ok(token.clone()));
            assert_eq!(format!("  {line}\n").parse(), Ok(token));
        }
        assert_eq!(token(vec!["a:1".into(); ADDRESSES + 1]).to_string().parse::<Token>(), Err(BadToken::Content));
        assert_eq!(token(vec!["nowhere".into()]).to_string().parse::<Token>(), Err(BadToken::Content));
    }

    #[test]
    fn every_letter_counts() {
        let line = token(vec!["100.64.0.1:4749".into()]).to_string();
        for at in 0..line.len() {
            for other in ALPHABET.iter().map(|letter| char::from(*letter)).chain(['0', '1', 'A', ' ']) {
                let mut letters: Vec<char> = line.chars().collect();
                if std::mem::replace(&mut letters[at], other) == other {
                    continue;
                }
                let altered: String = letters.into_iter().collect();
                assert!(altered.parse::<Token>().is_err(), "letter {at} as {other}");
            }
            assert!(line[..at].parse::<Token>().is_err(), "cut at {at}");
        }
        assert!(format!("{line}a").parse::<Token>().is_err());
    }

    #[test]
    fn neither_name_nor_key_gives_the_secret_away() {
        let token = token(Vec::new());
        assert!(!format!("{token:?}").contains(&token.to_string()));
        assert_ne!(&token.key()[..20], &token.secret[..]);
        assert_ne!(token.id().0, token.secret[..8]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(swarm1-)?\\PC{0,200}") {
            let _ = text.parse::<Token>();
        }
    }
}
