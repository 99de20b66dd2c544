//! `config check|explain`: what the operator wrote, as the daemon would read it; works while the daemon is down. `config show|set`:
//! what counts for the whole swarm, whatever the hosts' files say.

use std::{future::Future, path::PathBuf};

use clap::Subcommand;
use mesh_config::{CONFIG_FILE, Config, Env, Explained, Fault};
use serde::Serialize;
use swarm_proto::{
    api::SettingView,
    settings::{Applies, Key},
};

use crate::{
    failure::{Failure, Outcome},
    output::{Card, Look, Out, Row, View, note, table::text},
    session::{Session, patiently},
    view::instant,
};

/// `config ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Every fault of a configuration, environment included
    Check(Args),
    /// Each value, and what set it: the file, the environment, or the swarm where a daemon runs
    Explain(Args),
    /// What is set for the whole swarm, and who set it
    Show,
    /// Set something for the whole swarm
    Set(SetArgs),
}

/// `config set`.
#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// Such as log.level; `config show` lists them
    pub key: String,
    /// What every node shall take, whatever its file says
    #[arg(required_unless_present = "default", conflicts_with = "default")]
    pub value: Option<String>,
    /// Set it no more: each host's file counts again, where it has the key
    #[arg(long)]
    pub default: bool,
}

/// Which file.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file
    #[arg(env = "SWARM_CONFIG", default_value = CONFIG_FILE)]
    pub file: PathBuf,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    faults: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    place: String,
    key: String,
    what: String,
    hint: String,
}

impl From<&Fault> for Told {
    fn from(fault: &Fault) -> Self {
        Self { place: fault.place.to_string(), key: fault.key.clone(), what: fault.what.clone(), hint: fault.hint.clone() }
    }
}

/// A line of `config explain`.
#[derive(Serialize)]
struct Line {
    key: &'static str,
    value: String,
    source: String,
}

impl From<Explained> for Line {
    fn from(explained: Explained) -> Self {
        Self { key: explained.key, value: explained.value, source: explained.source.to_string() }
    }
}

impl View for Line {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["KEY", "VALUE", "SET BY"]
    }

    fn row(&self, _: Look) -> Row {
        vec![text(self.key), text(&self.value), text(&self.source)]
    }

    fn card(&self, _: Look) -> Card {
        Card::default().line(self.key, text(&self.value)).line("set by", text(&self.source))
    }
}

impl View for SettingView {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["KEY", "VALUE", "SET BY", "SET AT", "APPLIES"]
    }

    fn row(&self, _: Look) -> Row {
        vec![
            text(&self.key),
            text(self.value.clone().unwrap_or_else(|| format!("({})", unset(&self.key)))),
            text(self.by.as_deref().unwrap_or_default()),
            text(self.at.map(instant).unwrap_or_default()),
            text(applies(self.applies)),
        ]
    }

    fn card(&self, look: Look) -> Card {
        let names = Self::columns(look.is_wide);
        names.into_iter().zip(self.row(look)).fold(Card::default(), |card, (name, value)| card.line(&name.to_lowercase(), value))
    }
}

/// A key that this program does not know is one of a later version.
fn unset(key: &str) -> &'static str {
    Key::named(key).map_or("not set", Key::unset)
}

const fn applies(applies: Applies) -> &'static str {
    match applies {
        Applies::Now => "at once",
        Applies::AtRestart => "at each node's next start",
    }
}

/// Prints what is set then, and says when it counts.
async fn set(session: &Session, args: &SetArgs) -> Outcome {
    session.client.set(&args.key, args.value.as_deref()).await?;
    let settings = patiently(async || session.client.settings().await).await?;
    let Some(setting) = settings.into_iter().find(|setting| setting.key == args.key) else { return Ok(()) };
    session.out.one(&setting)?;
    if setting.applies == Applies::AtRestart {
        note("the nodes that run go on as they are: restart them one after the other");
    }
    Ok(())
}

pub(super) async fn call<F: Future<Output = Outcome<Session>>>(out: &Out, verb: Verb, session: impl FnOnce() -> F) -> Outcome {
    match verb {
        Verb::Show => {
            let session = session().await?;
            Ok(session.out.list(&session.client.settings().await?)?)
        }
        Verb::Set(args) => set(&session().await?, &args).await,
        Verb::Check(args) => check(out, &args, &Env::of_process()),
        Verb::Explain(args) => {
            let config = Config::load(&args.file, &Env::of_process()).map_err(|faults| mesh_config::problem(&faults))?;
            let mut lines: Vec<Line> = config.explain().into_iter().map(Line::from).collect();
            match async { Ok::<_, Failure>(session().await?.client.settings().await?) }.await {
                Ok(settings) => overlay(&mut lines, settings),
                Err(_) => note("no daemon said what is set for the whole swarm, which would win over this"),
            }
            Ok(out.list(&lines)?)
        }
    }
}

/// What is set for the whole swarm wins over a host's file.
fn overlay(lines: &mut [Line], settings: Vec<SettingView>) {
    for SettingView { key, value, by, .. } in settings {
        if let (Some(line), Some(value)) = (lines.iter_mut().find(|line| line.key == key), value) {
            line.value = format!("\"{value}\"");
            line.source = by.map_or_else(|| "the swarm".into(), |by| format!("the swarm ({by})"));
        }
    }
}

fn check(out: &Out, args: &Args, env: &Env) -> Outcome {
    let file = args.file.display().to_string();
    let faults = Config::load(&args.file, env).err().unwrap_or_default();
    let checked = Checked { file, faults: faults.iter().map(Told::from).collect() };
    if faults.is_empty() || out.is_json() {
        out.either(&checked, |_| format!("{}: ok\n", checked.file))?;
    }
    if faults.is_empty() { Ok(()) } else { Err(mesh_config::problem(&faults).into()) }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::{output::Format, view::samples::shown_list};

    #[test]
    fn what_is_set_for_the_swarm_wins() {
        let env = Env { host_name: Some("pi4".into()), ..Env::default() };
        let config = Config::parse("swarmd.toml".as_ref(), "[log]\nlevel = 'warn'\n[mesh]\npreset = 'lan'", &env).unwrap();
        let mut lines: Vec<Line> = config.explain().into_iter().map(Line::from).collect();
        let set = |key: &str, value: Option<&str>| SettingView {
            key: key.into(),
            value: value.map(str::to_owned),
            by: value.map(|_| "ann".into()),
            at: None,
            applies: Applies::Now,
        };
        overlay(&mut lines, vec![set("log.level", None), set("mesh.preset", Some("wan")), set("mesh.admit", Some("tag:swarm"))]);
        let said = |key| lines.iter().find(|line| line.key == key).map(|line| (line.value.as_str(), line.source.as_str()));
        assert_eq!(said("log.level"), Some(("\"warn\"", "swarmd.toml:2")));
        assert_eq!(said("mesh.preset"), Some(("\"wan\"", "the swarm (ann)")));
        assert_eq!(said("mesh.admit"), None);
    }

    #[test]
    fn values_with_their_sources_as_a_table() {
        let env = Env { vars: [("SWARM_STATE_DIR".into(), "/srv/swarm".into())].into(), host_name: Some("pi4".into()) };
        let config = Config::parse("swarmd.toml".as_ref(), "[mesh]\naddress = '100.64.0.1'\n[log]\nlevel = 'warn'", &env).unwrap();
        let lines: Vec<Line> = config.explain().into_iter().map(Line::from).collect();
        assert_snapshot!(shown_list(&lines, Format::Table), @r#"
KEY                       VALUE                                 SET BY
node.name                 "pi4"                                 default
node.state_dir            "/srv/swarm"                          SWARM_STATE_DIR
node.labels               (none)                                default
node.voter                "auto"                                default
mesh.kind                 "auto"                                default
mesh.interface            (found)                               default
mesh.address              "100.64.0.1"                          swarmd.toml:2
mesh.control_port         4747                                  default
mesh.bulk_port            4748                                  default
mesh.peers                []                                    default
mesh.tag                  (none)                                default
mesh.preset               (wan on Tailscale, else lan)          default
mesh.tailscale_socket     "/var/run/tailscale/tailscaled.sock"  default
mesh.certificate_life     "24h"                                 default
exec.enabled              false                                 default
exec.sandbox              (none)                                default
exec.user                 (none)                                default
exec.require_signed       false                                 default
exec.stdout_limit         (1GiB)                                default
resources.cores           (measured)                            default
resources.memory          (measured)                            default
resources.disk            (measured)                            default
resources.gpus            (measured)                            default
resources.named           (none)                                default
blobs.quota               (a quarter of the disk)               default
blobs.send_rate           (no bound)                            default
blobs.send_rate_per_node  (no bound)                            default
blobs.key_file            (blobs.key in state_dir)              default
blobs.scrub_every         (168h)                                default
api.socket                "/run/swarmd/swarmd.sock"             default
api.port                  4749                                  default
api.group                 (none)                                default
api.group_role            "submitter"                           default
log.level                 "warn"                                swarmd.toml:4
log.format                "text"                                default
"#);
    }
}
