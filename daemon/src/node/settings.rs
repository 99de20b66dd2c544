//! What is set for the whole swarm, as this node applies it.
//!
//! A value that this version does not understand (a newer one may have set it) changes nothing here; the file counts.

use std::{sync::Arc, time::Duration};

use mesh_config::Preset;
use swarm_proto::{
    admission::Rule,
    ledger::View,
    settings::{Key, life},
};

use super::{Env, Node, roster::Roster};

fn value(view: &View, key: Key) -> Option<&str> {
    view.settings.get(key.word()).map(|record| record.value.as_str()).filter(|value| key.check(value).is_ok())
}

/// What a node starts with: its own configuration, and what of the swarm's settings counts from a start on.
pub(crate) fn at_start(mut env: Env, roster: &Roster) -> Env {
    if let Some(preset) = preset(&roster.current()) {
        (env.settings.preset, env.settings.timing) = (preset, preset.timing());
    }
    env
}

fn preset(view: &View) -> Option<Preset> {
    match value(view, Key::Preset)? {
        "lan" => Some(Preset::Lan),
        "wan" => Some(Preset::Wan),
        _ => None,
    }
}

/// Who is let in without a token.
pub(crate) fn admit(view: &View) -> Option<Rule> {
    value(view, Key::Admit)?.parse().ok()
}

/// How long the certificates live that this node issues now.
pub(crate) fn certificate_life(node: &Node) -> Duration {
    value(&node.roster.current(), Key::CertificateLife).and_then(life).unwrap_or(node.settings.certificate_life)
}

/// Applies what can be applied while the node runs, whenever it changes.
pub(crate) async fn run(node: Arc<Node>) {
    let mut views = node.roster.changes();
    let mut applied = None;
    loop {
        let level = value(&views.borrow_and_update(), Key::LogLevel).map(str::to_owned);
        if level != applied {
            (node.settings.set_log_level)(level.as_deref());
            let whose = if level.is_some() { "the swarm's setting" } else { "this host's file" };
            node.journal.info(format!("what is logged follows {whose}"));
            applied = level;
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::{LogIndex, UnixMillis, settings::SettingRecord};

    use super::*;

    #[test]
    fn a_value_that_is_not_understood_changes_nothing() {
        let mut view = View::default();
        assert_eq!(preset(&view), None);
        for (word, meant) in [("wan", Some(Preset::Wan)), ("lan", Some(Preset::Lan)), ("mars", None)] {
            let record = SettingRecord { value: word.into(), by: "ann".into(), at: UnixMillis(1), changed: LogIndex(1) };
            view.settings.insert("mesh.preset".into(), record);
            assert_eq!(preset(&view), meant);
        }
    }
}
