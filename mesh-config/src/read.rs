//! From a text and an environment to a [`Config`], or to every fault in them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use swarm_proto::limits;
use toml::de::{DeTable, DeValue};

use crate::{Config, Env, Fault, Place, Source, check, setting::Setting};

/// Every key there is: each is read by [`crate::check`], explained and written. A test holds the three together.
pub(crate) const KEYS: [&str; 35] = [
    "node.name",
    "node.state_dir",
    "node.labels",
    "node.voter",
    "mesh.kind",
    "mesh.interface",
    "mesh.address",
    "mesh.control_port",
    "mesh.bulk_port",
    "mesh.peers",
    "mesh.tag",
    "mesh.preset",
    "mesh.tailscale_socket",
    "mesh.certificate_life",
    "exec.enabled",
    "exec.sandbox",
    "exec.user",
    "exec.require_signed",
    "exec.stdout_limit",
    "resources.cores",
    "resources.memory",
    "resources.disk",
    "resources.gpus",
    "resources.named",
    "blobs.quota",
    "blobs.send_rate",
    "blobs.send_rate_per_node",
    "blobs.key_file",
    "blobs.scrub_every",
    "api.socket",
    "api.port",
    "api.group",
    "api.group_role",
    "log.level",
    "log.format",
];

/// Short names in the environment.
const ALIASES: [(&str, &str); 2] = [("node.state_dir", "SWARM_STATE_DIR"), ("api.socket", "SWARM_SOCKET")];

/// Below this likeness (Jaro-Winkler) two words have nothing to do with each other.
const ALIKE: f64 = 0.8;

/// The text of a configuration file.
///
/// # Errors
/// The file system's; that it is longer than [`limits::CONFIG`], of which no more is read; that it is not UTF-8.
pub(crate) fn file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::CONFIG + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::CONFIG {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {} KiB", limits::CONFIG >> 10)));
    }
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))
}

pub(crate) fn config(path: &Path, text: &str, env: &Env) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader::new(path, text, env);
    let config = check::config(&mut reader);
    let mut faults = reader.faults;
    match config {
        Some(config) if faults.is_empty() => Ok(Config { sources: reader.sources, ..config }),
        Some(_) | None => {
            faults.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
            Err(faults)
        }
    }
}

/// The values of one file and one environment, and what was found wrong with them so far.
pub(crate) struct Reader<'a> {
    path: PathBuf,
    env: &'a Env,
    /// Values of the file by key, with their lines.
    entries: BTreeMap<String, (usize, DeValue<'a>)>,
    /// Whether the file is TOML at all; if not, what seems absent may only be unreadable.
    is_sound: bool,
    faults: Vec<Fault>,
    sources: BTreeMap<&'static str, Source>,
}

impl<'a> Reader<'a> {
    fn new(path: &Path, text: &'a str, env: &'a Env) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self {
            path: path.to_owned(),
            env,
            entries: BTreeMap::new(),
            is_sound: errors.is_empty(),
            faults: Vec::new(),
            sources: BTreeMap::new(),
        };
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            reader.fault(reader.line(line), "", format!("this is not TOML: {}", error.message()), "");
        }
        for (section, body) in root.into_inner() {
            reader.add_section(text, section.get_ref(), line_of(text, section.span().start), body.into_inner());
        }
        reader.find_unknown_vars();
        reader
    }

    fn add_section(&mut self, text: &str, section: &str, line: usize, body: DeValue<'a>) {
        if !sections().contains(&section) {
            let (what, hint) = unknown_section(section, &body);
            return self.fault(self.line(line), section, what, &hint);
        }
        let DeValue::Table(table) = body else {
            return self.fault(
                self.line(line),
                section,
                format!("a {} where a section is wanted", body.type_str()),
                &format!("[{section}]"),
            );
        };
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let key = format!("{section}.{}", name.get_ref());
            if KEYS.contains(&key.as_str()) {
                self.entries.insert(key, (line, value.into_inner()));
            } else {
                let hint = unknown_key_hint(section, name.get_ref());
                self.fault(self.line(line), &key, "there is no such key".into(), &hint);
            }
        }
    }

    /// Variables that look like ours and are none. Others (`SWARM_TASK_ID`, ...) belong to tasks.
    fn find_unknown_vars(&mut self) {
        let known: Vec<String> = KEYS.iter().map(|key| var_name(key)).collect();
        let env = self.env;
        for name in env.vars.keys().filter(|name| !known.contains(name)) {
            if sections().iter().any(|section| name.starts_with(&format!("SWARM_{}_", section.to_uppercase()))) {
                let hint = closest(name, known.iter().map(String::as_str)).unwrap_or_default();
                self.fault(Place::Env { name: name.clone() }, "", "there is no such setting".into(), &hint);
            }
        }
    }

    /// The value of a key, if it was set and can be read; the environment wins. Faults of either are noted.
    pub(crate) fn take<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let from_file = self.entries.get(key).map(|(line, value)| (*line, T::from_value(value)));
        let mut taken = None;
        match from_file {
            Some((line, Ok(value))) => {
                self.sources.insert(key, Source::File { path: self.path.clone(), line });
                taken = Some(value);
            }
            Some((line, Err(why))) => self.fault(self.line(line), key, why, ""),
            None => {}
        }
        if let Some((name, text)) = self.var(key) {
            match T::from_text(text) {
                Ok(value) => {
                    self.sources.insert(key, Source::Env(name));
                    taken = Some(value);
                }
                Err(why) => self.fault(Place::Env { name }, key, why, ""),
            }
        }
        taken
    }

    /// The variable that sets `key`. Its full name and its short one may not disagree.
    fn var(&mut self, key: &str) -> Option<(String, &'a str)> {
        let env = self.env;
        let full = var_name(key);
        let value = env.get(&full);
        let alias = ALIASES.into_iter().find(|(of, _)| *of == key).and_then(|(_, name)| env.get(name).map(|value| (name, value)));
        match (value, alias) {
            (Some(value), Some((name, other))) if value != other => {
                self.fault(
                    Place::Env { name: full.clone() },
                    key,
                    format!("{name} says '{other}', this says '{value}'"),
                    "set only one of them",
                );
                None
            }
            (Some(value), _) => Some((full, value)),
            (None, Some((name, value))) => Some((name.to_owned(), value)),
            (None, None) => None,
        }
    }

    /// Whether somebody tried to set it, well or not, or may have in a file that cannot be read.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        let alias = ALIASES.iter().any(|(of, name)| *of == key && self.env.get(name).is_some());
        !self.is_sound || alias || self.entries.contains_key(key) || self.env.get(&var_name(key)).is_some()
    }

    /// A fault of the value that counts for `key`, or of its absence.
    pub(crate) fn fault_in(&mut self, key: &'static str, what: impl Into<String>, hint: &str) {
        let place = match self.sources.get(key) {
            Some(Source::File { line, .. }) => self.line(*line),
            Some(Source::Env(name)) => Place::Env { name: name.clone() },
            Some(Source::Default | Source::Key(_)) | None => Place::File { path: self.path.clone() },
        };
        self.fault(place, key, what.into(), hint);
    }

    /// What the environment knows of the host.
    pub(crate) fn host_name(&self) -> Option<String> {
        self.env.host_name.clone()
    }

    fn line(&self, line: usize) -> Place {
        Place::Line { path: self.path.clone(), line }
    }

    fn fault(&mut self, place: Place, key: &str, what: String, hint: &str) {
        self.faults.push(Fault { place, key: key.into(), what, hint: hint.into() });
    }
}

/// `node.state_dir` is `SWARM_NODE_STATE_DIR`.
pub(crate) fn var_name(key: &str) -> String {
    format!("SWARM_{}", key.replace('.', "_").to_uppercase())
}

fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().filter_map(|key| key.split('.').next()).collect();
    sections.dedup();
    sections
}

fn unknown_section(name: &str, body: &DeValue<'_>) -> (String, String) {
    let home = KEYS.iter().find_map(|key| key.strip_suffix(name)?.strip_suffix('.'));
    match home {
        Some(section) if body.as_table().is_none() => (format!("this key belongs into [{section}]"), format!("[{section}] above it")),
        _ => {
            let list = sections().iter().map(|s| format!("[{s}]")).collect::<Vec<_>>().join(" ");
            let hint = closest(name, sections().into_iter()).map_or(list, |section| format!("[{section}]"));
            ("there is no such section".into(), hint)
        }
    }
}

fn unknown_key_hint(section: &str, name: &str) -> String {
    if section == "mesh" && name == "seeds" {
        return "peers".into();
    }
    if section == "node" && name == "zone" {
        return "write it as a label: [node.labels], zone = \"..\"".into();
    }
    let siblings = || KEYS.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'));
    if let Some(sibling) = closest(name, siblings()) {
        return sibling;
    }
    let elsewhere = KEYS.iter().find_map(|key| key.strip_suffix(name)?.strip_suffix('.'));
    elsewhere.map_or_else(|| format!("one of {}", siblings().collect::<Vec<_>>().join(", ")), |home| format!("it belongs into [{home}]"))
}

fn closest<'k>(word: &str, of: impl Iterator<Item = &'k str>) -> Option<String> {
    let likeness = of.map(|known| (strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase()), known));
    likeness.filter(|(likeness, _)| *likeness >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known.to_owned())
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count()
}
