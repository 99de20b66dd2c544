//! What is set once for the whole swarm: kept in the ledger, carried in the view, applied by every node.
//!
//! Few things are: whatever belongs to a host is in that host's own file, and a setting of the swarm wins over the file. Each says
//! whether a running node applies it or only the next start: what the timers of a consensus stand on is not exchanged under them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Code, LogIndex, Problem, UnixMillis, admission::Rule};

/// Longest value.
pub const VALUE: usize = 256;
/// Shortest and longest life of a node's certificate.
pub const CERTIFICATE_LIFE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(90 * 24 * 3600));
/// Least and most that the ledger takes, in MiB; the most is what all of [`crate::limits`] come to.
pub const LEDGER_MEMORY: (u32, u32) = (16, 1024);
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Everything that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// What daemons write about themselves.
    LogLevel,
    /// How patient the swarm is.
    Preset,
    /// How long a node's certificate lives.
    CertificateLife,
    /// What a tailnet says of hosts that need no token.
    Admit,
    /// What the ledger may take of each voter's memory; the leader sets it where a voter has little and nobody set it.
    LedgerMemory,
}

/// When a changed value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applies {
    /// On every node that hears of it, at once.
    Now,
    /// On each node from its next start on.
    AtRestart,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::LogLevel, Self::Preset, Self::CertificateLife, Self::Admit, Self::LedgerMemory];

    /// Its name; it wins over the key of that name in `swarmd.toml`, where there is one.
    pub const fn word(self) -> &'static str {
        match self {
            Self::LogLevel => "log.level",
            Self::Preset => "mesh.preset",
            Self::CertificateLife => "mesh.certificate_life",
            Self::Admit => "mesh.admit",
            Self::LedgerMemory => "ledger.memory",
        }
    }

    /// When a changed value counts.
    pub const fn applies(self) -> Applies {
        match self {
            Self::LogLevel | Self::CertificateLife | Self::Admit | Self::LedgerMemory => Applies::Now,
            Self::Preset => Applies::AtRestart,
        }
    }

    /// What counts while it is not set, for people.
    pub const fn unset(self) -> &'static str {
        match self {
            Self::LogLevel | Self::Preset | Self::CertificateLife => "each host's file",
            Self::Admit => "nobody",
            Self::LedgerMemory => "as much as it needs",
        }
    }

    /// Which key a word is.
    ///
    /// # Errors
    /// [`Code::NotFound`], with the words that are keys.
    pub fn named(word: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|key| key.word() == word).ok_or_else(|| {
            let known = Self::ALL.map(Self::word).join(", ");
            Problem::new(Code::NotFound, format!("'{word}' cannot be set for the swarm"), format!("what can be: {known}"))
                .hint("what belongs to one host is set in its swarmd.toml: swarmctl config explain")
        })
    }

    /// Whether a value can be this key's.
    ///
    /// # Errors
    /// [`Code::BadRequest`], saying what is wanted.
    pub fn check(self, value: &str) -> Result<(), Problem> {
        let is_level = |part: &str| LEVELS.contains(&part.rsplit('=').next().unwrap_or_default());
        let (is_fit, wanted) = match self {
            Self::LogLevel => {
                let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:=,.-".contains(&b));
                (is_plain && value.split(',').all(is_level), "a level such as info, or a list such as info,quinn=warn")
            }
            Self::Preset => (matches!(value, "lan" | "wan"), "lan or wan"),
            Self::CertificateLife => {
                let is_within = |life| (CERTIFICATE_LIFE.0..=CERTIFICATE_LIFE.1).contains(&life);
                (life(value).is_some_and(is_within), "10s to 90d, such as 24h")
            }
            Self::Admit => {
                (value.parse::<Rule>().is_ok(), "what a tailnet says of a host: tag:NAME, or cap:NAME of a capability that a grant gives")
            }
            Self::LedgerMemory => (mebibytes(value).is_some(), "16MiB to 1024MiB, in whole MiB"),
        };
        if is_fit && value.len() <= VALUE {
            return Ok(());
        }
        let shown: String = value.chars().take(64).collect();
        Err(Problem::new(Code::BadRequest, format!("{} was not set", self.word()), format!("'{shown}' is not {wanted}")))
    }
}

/// A whole number and one of `s`, `m`, `h`, `d`.
pub fn life(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// What [`Key::LedgerMemory`] says, in MiB: within [`LEDGER_MEMORY`].
pub fn mebibytes(text: &str) -> Option<u32> {
    let number = text.strip_suffix("MiB")?;
    number.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    number.parse().ok().filter(|mebibytes| (LEDGER_MEMORY.0..=LEDGER_MEMORY.1).contains(mebibytes))
}

/// What the ledger should take where the voter with the least memory has so many bytes: a quarter of it, as a power of two. `None`: as
/// much as it ever takes.
pub fn ledger_memory_for(smallest: u64) -> Option<u32> {
    let quarter = u32::try_from(smallest >> 22).unwrap_or(u32::MAX).max(LEDGER_MEMORY.0);
    (quarter < LEDGER_MEMORY.1).then(|| 1 << quarter.ilog2())
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    pub key: String,
    /// `None`: what each host's file says counts again.
    pub value: Option<String>,
    /// Who asked for it.
    pub by: String,
}

/// One value, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRecord {
    pub value: String,
    pub by: String,
    pub at: UnixMillis,
    /// Log index of the entry that set it.
    pub changed: LogIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_takes_its_values_and_no_others() {
        for (key, good, bad) in [
            (Key::LogLevel, &["info", "info,quinn=warn", "off"][..], &["", "loud", "info,,x=1", "info\n", "a b=info"][..]),
            (Key::Preset, &["lan", "wan"], &["", "LAN", "man"]),
            (Key::Admit, &["tag:swarm", "cap:example.com/swarm"], &["", "swarm", "tag:", "tag:a,tag:b"]),
            (
                Key::LedgerMemory,
                &["16MiB", "64MiB", "1024MiB"],
                &["", "15MiB", "1025MiB", "64", "64MB", "1GiB", "+64MiB", "99999999999MiB"],
            ),
            (Key::CertificateLife, &["10s", "24h", "90d"], &["", "9s", "91d", "24", "-1h", "1.5h", "99999999999999999999d", "é"]),
        ] {
            assert_eq!(Key::named(key.word()), Ok(key));
            good.iter().for_each(|value| assert_eq!(key.check(value), Ok(()), "{value}"));
            bad.iter().for_each(|value| assert_eq!(key.check(value).map_err(|p| p.code), Err(Code::BadRequest), "{value}"));
        }
        let gib = |n: u64| n << 30;
        for (smallest, memory) in
            [(0, Some(16)), (gib(1) / 4, Some(64)), (gib(1) - 1, Some(128)), (gib(1), Some(256)), (gib(4) - 1, Some(512))]
        {
            assert_eq!(ledger_memory_for(smallest), memory, "{smallest}");
        }
        assert_eq!([gib(4), u64::MAX].map(ledger_memory_for), [None; 2]);
        assert_eq!(Key::named("node.name").map_err(|problem| problem.code), Err(Code::NotFound));
        let long = format!("info,{}=warn", "x".repeat(VALUE));
        assert!(Key::LogLevel.check(&long).is_err());
    }
}
