//! `recover`: one voter goes on alone, after a majority of voters is lost for ever. Needs the daemon stopped.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use serde::Serialize;
use swarm_proto::{Code, Problem};

use crate::{failure::Outcome, output::Out};

/// `recover`
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The stopped voter's state directory
    #[arg(long, value_name = "DIR", env = "SWARM_STATE_DIR", default_value = mesh_config::STATE_DIR)]
    pub state_dir: PathBuf,
    /// That the other voters are lost, and that what only they know is lost with them
    #[arg(long)]
    pub yes: bool,
}

#[derive(Serialize)]
struct Told {
    state_dir: String,
    epoch: i64,
}

pub(super) fn call(out: &Out, args: &Args) -> Outcome {
    let refused = |code, why: String| Problem::new(code, "the swarm is not recovered", why);
    if !args.yes {
        let why = "what only the lost voters know is lost, and every other host must join again".to_owned();
        return Err(refused(Code::BadRequest, why).hint("say --yes if no majority of voters will ever come back").into());
    }
    let path = args.state_dir.join("cluster.toml");
    let unusable = |why: String| refused(Code::NotFound, format!("{}: {why}", path.display()));
    let text = fs::read_to_string(&path).map_err(|e| unusable(e.to_string()))?;
    let lock = File::options().write(true).open(args.state_dir.join("lock")).map_err(|e| unusable(e.to_string()))?;
    if lock.try_lock().is_err() {
        return Err(refused(Code::Conflict, "the daemon runs".into()).hint("systemctl stop swarmd").into());
    }
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| unusable(e.message().to_owned()))?;
    let epoch = next_epoch(table.get("epoch").and_then(toml::Value::as_integer).unwrap_or(0)).map_err(|e| unusable(e.to_string()))?;
    table.insert("epoch".into(), epoch.into());
    table.insert("recover".into(), true.into());
    // it stays its owner's: root types this, the daemon is another user
    mesh_config::write(&path, &table.to_string()).map_err(|e| unusable(e.to_string()))?;
    let told = Told { state_dir: args.state_dir.display().to_string(), epoch };
    Ok(out.either(&told, |_| {
        format!(
            "epoch {epoch} begins with this voter alone when its daemon starts: systemctl start swarmd\n\
             every other host joins again: stop it, remove its state directory, start it, swarmctl mesh join TOKEN\n"
        )
    })?)
}

/// A number that no other recovery has: two voters that are recovered by mistake make two swarms, which know nothing of each other.
fn next_epoch(old: i64) -> Result<i64, rand::rand_core::OsError> {
    use rand::TryRngCore as _;
    Ok(((old >> 16) + 1) << 16 | i64::from(rand::rngs::OsRng.try_next_u32()? & 0xffff))
}
