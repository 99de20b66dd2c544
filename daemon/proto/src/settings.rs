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
    pub const ALL: [Self; 4] = [Self::LogLevel, Self::Preset, Self::CertificateLife, Self::Admit];

    /// Its name; it wins over the key of that name in `swarmd.toml`, where there is one.
    pub const fn word(self) -> &'static str {
        match self {
            Self::LogLevel => "log.level",
            Self::Preset => "mesh.preset",
            Self::CertificateLife => "mesh.certificate_life",
            Self::Admit => "mesh.admit",
        }
    }

    /// When a changed value counts.
    pub const fn applies(self) -> Applies {
        match self {
            Self::LogLevel | Self::CertificateLife | Self::Admit => Applies::Now,
            Self::Preset => Applies::AtRestart,
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
            (Key::CertificateLife, &["10s", "24h", "90d"], &["", "9s", "91d", "24", "-1h", "1.5h", "99999999999999999999d", "é"]),
        ] {
            assert_eq!(Key::named(key.word()), Ok(key));
            good.iter().for_each(|value| assert_eq!(key.check(value), Ok(()), "{value}"));
            bad.iter().for_each(|value| assert_eq!(key.check(value).map_err(|p| p.code), Err(Code::BadRequest), "{value}"));
        }
        assert_eq!(Key::named("node.name").map_err(|problem| problem.code), Err(Code::NotFound));
        let long = format!("info,{}=warn", "x".repeat(VALUE));
        assert!(Key::LogLevel.check(&long).is_err());
    }
}
