//! What a tailnet may say of a host so that it is let in without a token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `tag:swarm`: the host carries this tag. `cap:example.com/cap/swarm`: a grant gives it this capability here.
///
/// Both are set by whoever writes the tailnet's policy file, and told by each host's own tailscaled (LocalAPI `whois`), so
/// whoever makes this choice trusts the tailnet's control server to say who may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rule {
    /// With its `tag:`, as Tailscale writes it.
    Tag(String),
    /// Without `cap:`.
    Capability(String),
}

/// Longest rule.
pub const LONGEST: usize = 128;

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &str, more: &str| {
            !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter) || more.contains(letter))
        };
        let rule = if let Some(name) = text.strip_prefix("tag:") {
            is_word(name, "").then(|| Self::Tag(text.to_owned()))
        } else {
            text.strip_prefix("cap:").filter(|name| is_word(name, "/:")).map(|name| Self::Capability(name.to_owned()))
        };
        rule.filter(|_| text.len() <= LONGEST)
            .ok_or_else(|| "a tag such as tag:swarm, or a capability such as cap:example.com/cap/swarm".into())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Capability(name) => write!(f, "cap:{name}"),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_tag_or_a_capability() {
        for good in ["tag:swarm", "tag:a-b", "cap:example.com/cap/swarm", "cap:https://example.com/x"] {
            assert_eq!(good.parse::<Rule>().map(|rule| rule.to_string()), Ok(good.into()));
        }
        let long = format!("tag:{}", "x".repeat(LONGEST));
        for bad in ["", "tag:", "cap:", "swarm", "tag:a b", "tag:a,tag:b", "tag:a/b", "TAG:a", "cap:a\n", &long] {
            assert!(bad.parse::<Rule>().is_err(), "{bad:?}");
        }
    }
}
