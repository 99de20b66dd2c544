//! What people type and write: words, job files, the daemon's own file.

use std::{fmt::Debug, path::Path, str::FromStr};

use mesh_config::{Config, Edit, Env, Seed, format_bytes, parse_bytes};
use swarm_client::Credentials;
use swarm_proto::{
    ClusterId, Cursor, Digest, Fence, JobId, NodeId, PeerKey, TaskId, TokenId, access::Role, admission::Rule, identity::NodeRole,
    manifest::check_path, settings::Key, token::Token,
};
use swarmctl::{
    job_file,
    words::{array, pair, retries, source, span},
};

use crate::input::Input;

/// The first byte of an input says which of these the rest is. The order is part of the corpus: append.
pub(crate) const KINDS: &[fn(&str)] = &[
    same::<Token>,
    same::<Digest>,
    same::<ClusterId>,
    same::<PeerKey>,
    same::<TokenId>,
    number::<JobId>,
    number::<TaskId>,
    number::<NodeId>,
    number::<Fence>,
    number::<Cursor>,
    same::<Rule>,
    |text| drop(text.parse::<Role>()),
    |text| drop(text.parse::<NodeRole>()),
    |text| drop(text.parse::<Seed>()),
    bytes,
    |text| drop(span::parse(text).map(span::short)),
    |text| drop(array::parse(text)),
    |text| drop(pair::text(text)),
    |text| drop(pair::count(text)),
    |text| drop(retries::parse(text)),
    |text| drop(source::parse(text)),
    path,
    setting,
    credentials,
];

pub(crate) fn words(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(text) {
        KINDS[usize::from(*kind) % KINDS.len()](text);
    }
}

/// What is read has one name: the one that was read, but for the size of letters.
fn same<T: FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().eq_ignore_ascii_case(text.trim()), "'{text}' is read as '{}'", value.to_string());
    }
}

/// Numbers may have zeros before them, and the last one may be left out; no sign.
fn number<T: FromStr + ToString + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse().ok().as_ref(), Some(&value));
        assert!(!text.contains(['+', '-', ' ']), "'{text}' is read as '{}'", value.to_string());
    }
}

fn bytes(text: &str) {
    if let Ok(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes), "{text}");
    }
}

fn path(text: &str) {
    if check_path(text).is_ok() {
        let mut parts = Path::new(text).components();
        assert!(parts.all(|part| matches!(part, std::path::Component::Normal(_))), "'{text}' leads out of its directory");
    }
}

fn setting(text: &str) {
    for key in Key::ALL {
        let _ = key.check(text);
    }
}

fn credentials(text: &str) {
    if let Ok(found) = serde_json::from_str::<Credentials>(text) {
        let _ = (found.own().is_ok(), found.trust().is_ok(), found.sign(b"").is_ok());
    }
}

/// The first byte says which ending the file has.
pub(crate) fn job_file(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    // a list of items may be in another file, which is not what this is about
    if text.contains('@') {
        return;
    }
    for job in job_file::jobs_in(text, ["", "toml", "json"][usize::from(*kind) % 3]).unwrap_or_default() {
        if let Ok((spec, array)) = job.request.into_job("linux") {
            assert_eq!((spec.check(), spec.check_array(&array)), (Ok(()), Ok(())), "a job that is taken and not acceptable");
        }
    }
}

/// A file, and what the environment says over it. What is taken is written back and taken again.
pub(crate) fn config(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut env = Env { host_name: Some("pi".into()), ..Env::default() };
    for _ in 0..input.below(4) {
        let described = mesh_config::reference();
        let key = described[input.below(described.len())].key;
        let value = input.byte();
        let value = String::from_utf8_lossy(input.take(value.into())).into_owned();
        env.vars.insert(mesh_config::variable(key), value);
    }
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    if let Ok(config) = Config::parse(Path::new("swarmd.toml"), text, &env) {
        let written = config.to_toml();
        let none = Env { host_name: Some("pi".into()), ..Env::default() };
        let again = Config::parse(Path::new("swarmd.toml"), &written, &none).unwrap_or_else(|faults| panic!("{faults:?} in\n{written}"));
        assert_eq!(again.to_toml(), written, "a config that changes");
        let _ = config.explain();
    }
    if let Ok(edited) = Edit::default().set(&["exec", "enabled"], true).set(&["node", "labels", "zone"], "attic").apply(text) {
        let table = edited.parse::<toml::Table>().unwrap_or_else(|e| panic!("{e} in\n{edited}"));
        assert_eq!(table["exec"]["enabled"].as_bool(), Some(true));
    }
}
