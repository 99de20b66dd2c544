//! Names of things. Each is its own type, so that a job is never taken for a node.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
    };
    (plain $(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    };
}

number! {
    /// A node, named by the log entry that admitted it. Never reused; 0 is nobody.
    NodeId(u64)
}
number! {
    /// A job, numbered from 1 in the order of the log; shown as `j17`.
    JobId(u64)
}
number! { plain
    /// One try at a task, numbered from 1. 0 means "not yet tried".
    AttemptNo(u32)
}
number! { plain
    /// Position of an entry in the replicated log, from 1. 0 is "before everything".
    LogIndex(u64)
}
number! { plain
    /// A leader's term of office (Raft section 5.1).
    Term(u64)
}
number! { plain
    /// A span of time in milliseconds.
    Millis(u64)
}
number! { plain
    /// Wall time in milliseconds since 1970 UTC. For people only: no decision depends on it.
    UnixMillis(u64)
}

impl Millis {
    /// The span as std's type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<Duration> for Millis {
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reads an id from its word, without keeping the word.
struct Word<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = BadId>> serde::de::Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<T, E> {
        word.parse().map_err(E::custom)
    }
}

/// Numbers that JSON carries as the word people type (`"j17"`), and postcard as themselves.
macro_rules! spoken {
    ($name:ident { $($field:tt: $inner:ty),+ }) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                if out.is_human_readable() { out.collect_str(self) } else { ($(self.$field,)+).serialize(out) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                if input.is_human_readable() {
                    input.deserialize_str(Word(std::marker::PhantomData))
                } else {
                    <($($inner,)+)>::deserialize(input).map(|parts| from_parts!($name parts $($field)+))
                }
            }
        }
    };
}

macro_rules! from_parts {
    ($name:ident $parts:ident $a:tt) => {
        $name { $a: $parts.0 }
    };
    ($name:ident $parts:ident $a:tt $b:tt) => {
        $name { $a: $parts.0, $b: $parts.1 }
    };
}

spoken!(NodeId { 0: u64 });
spoken!(JobId { 0: u64 });
spoken!(TaskId { job: JobId, index: u32 });
spoken!(Fence { index: LogIndex, attempt: AttemptNo });
spoken!(Cursor { index: LogIndex, sub: u32 });

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "j{}", self.0)
    }
}

/// A word that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct BadId {
    /// What was given.
    pub text: String,
    /// What it should look like.
    pub expected: &'static str,
}

fn number_after(prefix: char, text: &str, expected: &'static str) -> Result<u64, BadId> {
    text.strip_prefix(prefix).and_then(digits).ok_or_else(|| BadId { text: text.to_owned(), expected })
}

/// A number without a sign: std takes a plus as well, and one thing would have two names.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl FromStr for JobId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        number_after('j', text, "a job id such as j17").map(Self)
    }
}

impl FromStr for NodeId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        number_after('n', text, "a node id such as n3").map(Self)
    }
}

/// One task: a job and the index in it. `j17.3`; `j17` alone means index 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job it belongs to.
    pub job: JobId,
    /// Its index, from the array's first to its last.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl FromStr for TaskId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.to_owned(), expected: "a task id such as j17.3" };
        let (job, index) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { job: job.parse().map_err(|_| bad())?, index: digits(index).ok_or_else(bad)? })
    }
}

/// What makes a result acceptable: the attempt's number and the log index of its grant. A task's fences only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// Log index of the grant.
    pub index: LogIndex,
    /// Number of the attempt.
    pub attempt: AttemptNo,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index.0, self.attempt.0)
    }
}

/// A place in the stream of job events: an entry of the log and the event's position in it. "After this" is what a reader asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The log entry.
    pub index: LogIndex,
    /// The event within it, from 0.
    pub sub: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index.0, self.sub)
    }
}

impl FromStr for Fence {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.to_owned(), expected: "a fence such as 120.1" };
        let (index, attempt) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self { index: LogIndex(digits(index).ok_or_else(bad)?), attempt: AttemptNo(digits(attempt).ok_or_else(bad)?) })
    }
}

impl FromStr for Cursor {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.to_owned(), expected: "an event cursor such as 120.3, or a log index such as 120" };
        let (index, sub) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { index: LogIndex(digits(index).ok_or_else(bad)?), sub: digits(sub).ok_or_else(bad)? })
    }
}

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident($len:literal)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.to_owned(), expected: concat!($len, " bytes in hexadecimal") };
                if text.len() != 2 * $len || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let mut out = [0; $len];
                for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
                }
                Ok(Self(out))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                if out.is_human_readable() { out.collect_str(self) } else { self.0.serialize(out) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                if input.is_human_readable() {
                    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(input).map(Self)
                }
            }
        }
    };
}

bytes! {
    /// The raw Ed25519 public key of a node: its identity on every connection.
    PeerKey(32)
}
bytes! {
    /// Names one swarm. Two of them never merge.
    ClusterId(16)
}
bytes! {
    /// Names one raft directory; made when the directory is made. A wiped directory has another, and so another node id.
    RaftDir(16)
}
bytes! {
    /// Names one join token or login line; derived from its secret, which it does not give away.
    TokenId(8)
}
bytes! {
    /// Names one certificate authority: the first bytes of its certificate's BLAKE3.
    RootId(8)
}
bytes! {
    /// Names a blob: the BLAKE3 of its bytes, which is what `b3sum` prints.
    Digest(32)
}

impl Digest {
    /// Where the blob lies below a directory of blobs: `ab/abcd..`, so that no directory holds all of them.
    pub fn shelf(self) -> PathBuf {
        let name = self.to_string();
        Path::new(&name[..2]).join(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let task = TaskId { job: JobId(17), index: 3 };
        assert_eq!(task.to_string().parse(), Ok(task));
        assert_eq!("j17".parse(), Ok(TaskId { job: JobId(17), index: 0 }));
        assert_eq!("n4".parse(), Ok(NodeId(4)));
        assert_eq!("120".parse(), Ok(Cursor { index: LogIndex(120), sub: 0 }));
        let key = PeerKey([0xa7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn nonsense_is_not_an_id() {
        for text in ["", "j", "17", "j-1", "j+1", "j1.", "j1.x", "j1.+2", "j1.2.3", "j99999999999999999999"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
        assert!("120.+1".parse::<Fence>().is_err() && "+120.1".parse::<Cursor>().is_err());
        assert!("+7".repeat(32).parse::<PeerKey>().is_err());
        assert!("zz".repeat(32).parse::<PeerKey>().is_err());
        assert!("é".repeat(32).parse::<PeerKey>().is_err());
    }
}
