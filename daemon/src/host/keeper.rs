//! `swarmd keeper`: the process under which this host's tasks run. What it is, and why it is apart: `swarm_executors::keeper`.

use swarm_proto::{Code, Problem};

use crate::args::Keeper;

/// Below the state directory.
pub(crate) const DIR: &str = "keeper";

/// Runs until there is nothing left to do.
///
/// # Errors
/// What keeps it from starting, and what it cannot live with.
#[cfg(target_os = "linux")]
pub fn keeper(args: Keeper) -> Result<(), Problem> {
    use swarm_executors::keeper;

    let listener = keeper::listener_on_stdin();
    match place_and_user(args) {
        Ok((dir, user)) => {
            keeper::main(keeper::Start { dir, user, listener }).map_err(|e| Problem::new(Code::Internal, "the keeper ended", e.to_string()))
        }
        Err(problem) => {
            listener.iter().for_each(keeper::turn_away);
            Err(problem)
        }
    }
}

#[cfg(target_os = "linux")]
fn place_and_user(args: Keeper) -> Result<(std::path::PathBuf, Option<swarm_executors::TaskUser>), Problem> {
    let (dir, user) = match (args.config, args.dir) {
        (Some(path), _) => {
            let env = mesh_config::Env::of_process();
            let config = mesh_config::Config::load(&path, &env).map_err(|faults| mesh_config::problem(&faults))?;
            (config.node.state_dir.join(DIR), user_of(args.user, config.exec.user)?)
        }
        (None, Some(dir)) => (dir, args.user),
        (None, None) => return Err(Problem::new(Code::BadRequest, "the keeper does not start", "it needs --dir or --config")),
    };
    let user = user.map(|name| swarm_executors::TaskUser::find(&name)).transpose().map_err(|e| {
        Problem::new(Code::NotReady, "tasks cannot run as the user of exec.user", e.to_string())
            .hint("adduser --system --group --home /var/lib/swarm-task swarm-task; or take exec.user out of the config")
    })?;
    Ok((dir, user))
}

/// What the service was given goes; a config that says otherwise is a refusal, not a choice.
#[cfg(target_os = "linux")]
fn user_of(given: Option<String>, asked: Option<String>) -> Result<Option<String>, Problem> {
    match (given, asked) {
        (Some(given), Some(asked)) if given != asked => {
            let why = format!("exec.user says {asked}, this service runs tasks as {given} only");
            Err(Problem::new(Code::Denied, "the keeper does not start", why)
                .hint("systemctl edit --full swarmd-keeper.service, or set exec.user back"))
        }
        (given, asked) => Ok(given.or(asked)),
    }
}

/// Runs until there is nothing left to do.
///
/// # Errors
/// What keeps it from starting, and what it cannot live with. Tasks run as the daemon does here.
#[cfg(windows)]
pub fn keeper(args: Keeper) -> Result<(), Problem> {
    let not_started = |why: &str| Problem::new(Code::BadRequest, "the keeper does not start", why);
    if args.user.is_some() {
        return Err(not_started("tasks run as the daemon's user on this system").hint("take exec.user out of the config"));
    }
    let dir = args.dir.ok_or_else(|| not_started("it needs --dir"))?;
    swarm_executors::keeper::main(&dir).map_err(|e| Problem::new(Code::Internal, "the keeper ended", e.to_string()))
}
