//! What is wrong with a configuration, one value of it at a time.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use swarm_proto::{Code, Problem};

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// `section.key`; empty when the fault is in no key.
    pub key: String,
    /// What is wrong, in one sentence without a full stop.
    pub what: String,
    /// A way out; empty where there is none.
    pub hint: String,
}

/// Where a fault stands. The order is the order in which faults are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, from 1.
    Line { path: PathBuf, line: usize },
    /// The file as a whole: something that should be in it.
    File { path: PathBuf },
    /// An environment variable.
    Env { name: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Self::File { path } => write!(f, "{}", path.display()),
            Self::Env { name } => f.write_str(name),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, "\n    try: {}", self.hint)?;
        }
        Ok(())
    }
}

/// All faults as one problem, for the edge that prints it. Of a single fault the way out is the problem's own.
pub fn problem(faults: &[Fault]) -> Problem {
    if let [fault] = faults {
        let alone = Fault { hint: String::new(), ..fault.clone() };
        return Problem::new(Code::BadRequest, "the configuration has a fault", alone.to_string()).hint(&fault.hint);
    }
    let why = faults.iter().map(|fault| fault.to_string().replace('\n', "\n     ")).collect::<Vec<_>>().join("\n       ");
    Problem::new(Code::BadRequest, format!("the configuration has {} faults", faults.len()), why)
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let hint = if error.kind() == io::ErrorKind::NotFound {
        "make it; an empty one is enough where there is Tailscale or one WireGuard interface, else it names the mesh:  [mesh] interface = \"zt0\"".into()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "run as the user the file belongs to".into()
    } else {
        String::new()
    };
    Fault { place: Place::File { path: path.to_owned() }, key: String::new(), what: format!("the file cannot be read: {error}"), hint }
}

/// Stands in hints; of Tailscale's range, where most swarms live.
pub(crate) const EXAMPLE_ADDRESS: &str = "100.64.0.1";
