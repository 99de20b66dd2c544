//! The way back: a [`Config`] as the file that makes it, and as a list that says where each value came from.

use toml::{Table, Value};

use crate::{Config, LogFormat, Sandbox, Source, Voter, format_bytes, read::KEYS};

/// One value and what set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `section.key`.
    pub key: &'static str,
    /// As it would be written; in brackets what stands for it where nothing is set.
    pub value: String,
    /// What set it.
    pub source: Source,
}

impl Config {
    /// Every key in the order of the file.
    pub fn explain(&self) -> Vec<Explained> {
        let explain = |key: &'static str| Explained {
            key,
            value: self.value(key).or_else(|| self.implied(key)).map_or_else(|| absent(key).to_owned(), |value| value.to_string()),
            source: self.source(key),
        };
        KEYS.into_iter().map(explain).collect()
    }

    fn source(&self, key: &'static str) -> Source {
        let by_default = || self.implied(key).map_or(Source::Default, |_| Source::Key("mesh.kind"));
        self.sources.get(key).cloned().unwrap_or_else(by_default)
    }

    /// What follows from another key, and is not written down for that reason.
    fn implied(&self, key: &str) -> Option<Value> {
        let kind = self.mesh.kind.filter(|_| key == "mesh.preset" && self.mesh.preset.is_none())?;
        Some(self.mesh.preset_on(kind).word().into())
    }

    /// A file that [`Config::load`] reads back to the same values. Says all that is not left to swarmd.
    pub fn to_toml(&self) -> String {
        let mut file = Table::new();
        for key in KEYS {
            let (section, name) = key.split_once('.').expect("every key has a section");
            if let Some(value) = self.value(key)
                && let Some(section) = file.entry(section).or_insert_with(|| Table::new().into()).as_table_mut()
            {
                section.insert(name.into(), value);
            }
        }
        file.to_string()
    }

    fn value(&self, key: &str) -> Option<Value> {
        let size = |bytes: Option<u64>| bytes.map(|bytes| format_bytes(bytes).into());
        let path = |path: &std::path::Path| Some(path.display().to_string().into());
        match key {
            "node.name" => Some(self.node.name.clone().into()),
            "node.state_dir" => path(&self.node.state_dir),
            "node.labels" => table(self.node.labels.iter().map(|(name, value)| (name, value.clone().into()))),
            "node.voter" => Some(voter_word(self.node.voter).into()),
            "mesh.kind" => Some(self.mesh.kind.map_or("auto", mesh_detect::Kind::word).into()),
            "mesh.interface" => self.mesh.interface.clone().map(Value::String),
            "mesh.address" => self.mesh.address.map(|address| address.to_string().into()),
            "mesh.control_port" => Some(i64::from(self.mesh.control_port).into()),
            "mesh.bulk_port" => Some(i64::from(self.mesh.bulk_port).into()),
            "mesh.peers" => Some(Value::Array(self.mesh.peers.iter().map(|seed| seed.to_string().into()).collect())),
            "mesh.tag" => self.mesh.tag.clone().map(Value::String),
            "mesh.preset" => self.mesh.preset.map(|preset| preset.word().into()),
            "mesh.tailscale_socket" => path(&self.mesh.tailscale_socket),
            "mesh.certificate_life" => Some(span(self.mesh.certificate_life).into()),
            "exec.enabled" => Some(self.exec.enabled.into()),
            "exec.require_signed" => Some(self.exec.require_signed.into()),
            "exec.stdout_limit" => size(self.exec.stdout_limit),
            "exec.sandbox" => self.exec.sandbox.map(|Sandbox::None| "none".into()),
            "exec.user" => self.exec.user.clone().map(Value::from),
            "resources.cores" => self.resources.cores.map(Value::Float),
            "resources.memory" => size(self.resources.memory),
            "resources.disk" => size(self.resources.disk),
            "resources.gpus" => self.resources.gpus.map(|gpus| i64::from(gpus).into()),
            "resources.named" => table(self.resources.named.iter().map(|(name, n)| (name, i64::try_from(*n).unwrap_or(i64::MAX).into()))),
            "blobs.quota" => size(self.blobs.quota),
            "blobs.send_rate" => size(self.blobs.send_rate),
            "blobs.send_rate_per_node" => size(self.blobs.send_rate_per_node),
            "blobs.key_file" => self.blobs.key_file.as_deref().and_then(path),
            "blobs.scrub_every" => self.blobs.scrub_every.map(|every| span(every).into()),
            "api.socket" => path(&self.api.socket),
            "api.group" => self.api.group.clone().map(Value::from),
            "api.group_role" => Some(self.api.group_role.word().into()),
            "api.port" => Some(i64::from(self.api.port).into()),
            "log.level" => Some(self.log.level.clone().into()),
            "log.format" => Some(if self.log.format == LogFormat::Json { "json" } else { "text" }.into()),
            _ => None,
        }
    }
}

fn table<'k>(entries: impl Iterator<Item = (&'k String, Value)>) -> Option<Value> {
    let table: Table = entries.map(|(name, value)| (name.clone(), value)).collect();
    (!table.is_empty()).then_some(Value::Table(table))
}

const fn voter_word(voter: Voter) -> &'static str {
    match voter {
        Voter::Auto => "auto",
        Voter::Never => "never",
    }
}

/// In the largest unit that leaves no rest.
fn span(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// What stands for a key without a value.
fn absent(key: &str) -> &'static str {
    match key {
        "mesh.interface" | "mesh.address" => "(found)",
        "mesh.preset" => "(wan on Tailscale, else lan)",
        "resources.named" => "(none)",
        "exec.stdout_limit" => "(1GiB)",
        "blobs.quota" => "(a quarter of the disk)",
        "blobs.send_rate" | "blobs.send_rate_per_node" => "(no bound)",
        "blobs.key_file" => "(blobs.key in state_dir)",
        "blobs.scrub_every" => "(168h)",
        _ if key.starts_with("resources.") => "(measured)",
        _ => "(none)",
    }
}
