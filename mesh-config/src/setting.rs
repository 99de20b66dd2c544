//! How one value is read, from the file and from the environment.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use toml::de::DeValue;

use crate::{Kind, LogFormat, Preset, Role, Sandbox, Seed, Voter, parse_bytes};

/// A type that a key can have.
pub(crate) trait Setting: Sized {
    /// What to write, with an article.
    const WANTED: &'static str;

    /// From an environment variable. `Err`: why not, as the end of a sentence.
    fn from_text(text: &str) -> Result<Self, String>;

    /// From the file. By default a string that [`Setting::from_text`] takes.
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map_or_else(|| Err(wrong_type::<Self>(value)), Self::from_text)
    }
}

fn wrong_type<T: Setting>(value: &DeValue<'_>) -> String {
    let article = if value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {} where {} is wanted", value.type_str(), T::WANTED)
}

fn not_a<T: Setting>(text: &str) -> String {
    format!("'{}' is not {}", text.escape_debug(), T::WANTED)
}

fn integer<T: Setting + FromStr>(value: &DeValue<'_>) -> Result<T, String> {
    let integer = value.as_integer().ok_or_else(|| wrong_type::<T>(value))?;
    // Other bases are rare in such a file, and refused by the parse rather than misread.
    let text = integer.as_str();
    if integer.radix() == 10 {
        text.parse().map_err(|_| not_a::<T>(text))
    } else {
        Err(format!("{} is wanted, written in base 10", T::WANTED))
    }
}

impl Setting for String {
    const WANTED: &'static str = "a string";
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Setting for PathBuf {
    const WANTED: &'static str = "an absolute path";
    fn from_text(text: &str) -> Result<Self, String> {
        Some(Self::from(text)).filter(|path| path.is_absolute()).ok_or_else(|| not_a::<Self>(text))
    }
}

impl Setting for IpAddr {
    const WANTED: &'static str = "an IP address";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| not_a::<Self>(text))
    }
}

impl Setting for bool {
    const WANTED: &'static str = "true or false";
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(not_a::<Self>(text)),
        }
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong_type::<Self>(value))
    }
}

impl Setting for u16 {
    const WANTED: &'static str = "a port (1 to 65535)";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|port| *port > 0).ok_or_else(|| not_a::<Self>(text))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        integer::<Self>(value).and_then(|port| if port > 0 { Ok(port) } else { Err(not_a::<Self>("0")) })
    }
}

impl Setting for u32 {
    const WANTED: &'static str = "a whole number from 0 on";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| not_a::<Self>(text))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        integer(value)
    }
}

impl Setting for u64 {
    const WANTED: &'static str = "a whole number from 0 on";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| not_a::<Self>(text))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        integer(value)
    }
}

impl Setting for f64 {
    const WANTED: &'static str = "a number of cores above 0, such as 4 or 0.5";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|n| *n >= 0.001 && *n <= 1e6).ok_or_else(|| not_a::<Self>(text))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_float().map(|f| f.as_str()).or_else(|| value.as_integer().map(|i| i.as_str()));
        text.map_or_else(|| Err(wrong_type::<Self>(value)), Self::from_text)
    }
}

impl Setting for Duration {
    const WANTED: &'static str = "a time such as \"24h\"";
    fn from_text(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|_| not_a::<Self>(text))
    }
}

/// Bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl Setting for Bytes {
    const WANTED: &'static str = "a size such as \"8GiB\"";
    fn from_text(text: &str) -> Result<Self, String> {
        parse_bytes(text).map(Self)
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().or_else(|| value.as_integer().filter(|i| i.radix() == 10).map(|i| i.as_str()));
        text.map_or_else(|| Err(wrong_type::<Self>(value)), Self::from_text)
    }
}

impl Setting for Vec<Seed> {
    const WANTED: &'static str = "a list of names or addresses, each with or without \":port\"";
    /// Separated by commas.
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(|seed| seed.trim().parse()).collect()
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| wrong_type::<Self>(value))?;
        list.iter().map(|seed| seed.get_ref().as_str().ok_or_else(|| wrong_type::<Self>(seed.get_ref())).and_then(str::parse)).collect()
    }
}

/// `auto` is a kind to write, and none to be.
#[derive(Clone, Copy)]
pub(crate) struct KindOrAuto(pub(crate) Option<Kind>);

impl Setting for KindOrAuto {
    const WANTED: &'static str = "\"auto\", \"tailscale\", \"wireguard\", \"interface\" or \"address\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let kinds = [Kind::Tailscale, Kind::Wireguard, Kind::Interface, Kind::Explicit];
        let kind = kinds.into_iter().find(|kind| kind.word() == text);
        if kind.is_none() && text != "auto" { Err(not_a::<Self>(text)) } else { Ok(Self(kind)) }
    }
}

/// `key=value` pairs by commas in the environment, a table in the file.
impl<T: Setting> Setting for BTreeMap<String, T> {
    const WANTED: &'static str = "a table";
    fn from_text(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("'{}' is not key=value", pair.escape_debug()))?;
            T::from_text(value.trim()).map(|value| (key.trim().to_owned(), value))
        };
        text.split(',').map(pair).collect()
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| wrong_type::<Self>(value))?;
        let entry = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
            let key = key.get_ref();
            T::from_value(value.get_ref()).map(|value| (key.to_string(), value)).map_err(|why| format!("'{key}': {why}"))
        };
        table.iter().map(entry).collect()
    }
}

macro_rules! word {
    ($type:ty, $wanted:literal, $($word:literal => $value:expr),+) => {
        impl Setting for $type {
            const WANTED: &'static str = $wanted;
            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(not_a::<Self>(text)),
                }
            }
        }
    };
}

word!(Voter, "\"auto\" or \"never\"", "auto" => Self::Auto, "never" => Self::Never);
word!(Preset, "\"lan\" or \"wan\"", "lan" => Self::Lan, "wan" => Self::Wan);
word!(Sandbox, "\"none\", the only sandbox there is", "none" => Self::None);
word!(Role, "\"observer\", \"submitter\", \"operator\" or \"admin\"",
    "observer" => Self::Observer, "submitter" => Self::Submitter, "operator" => Self::Operator, "admin" => Self::Admin);
word!(LogFormat, "\"text\" or \"json\"", "text" => Self::Text, "json" => Self::Json);
