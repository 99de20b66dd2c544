//! Where values come from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// What set a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody; this is what it is by itself.
    Default,
    /// Another key's value.
    Key(&'static str),
    /// A line of the file, from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Env(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Key(key) => write!(f, "default for this {key}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
        }
    }
}

/// What surrounds the file: the variables that override it, and the host's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// Those that begin with `SWARM_`; an empty value counts as absent.
    pub vars: BTreeMap<String, String>,
    /// Default of `node.name`.
    pub host_name: Option<String>,
}

impl Env {
    /// This process's.
    pub fn of_process() -> Self {
        let vars = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Self { vars: vars.filter(|(name, _)| name.starts_with("SWARM_")).collect(), host_name: host_name() }
    }

    /// One variable, if it says anything.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The host's own name without its domain, from where Linux or Windows keeps it.
fn host_name() -> Option<String> {
    let from_file = |path: &str| std::fs::read_to_string(path).ok();
    let full =
        from_file("/proc/sys/kernel/hostname").or_else(|| from_file("/etc/hostname")).or_else(|| std::env::var("COMPUTERNAME").ok())?;
    let short = full.trim().split('.').next().unwrap_or_default().to_owned();
    (!short.is_empty()).then_some(short)
}
