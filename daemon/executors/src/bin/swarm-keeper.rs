//! `swarm-keeper DIR [USER [HOME]]`: the keeper without the daemon's other subcommands.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or("usage: swarm-keeper DIR [USER [HOME]]")?;
    #[cfg(target_os = "linux")]
    {
        use swarm_executors::{TaskUser, keeper};
        let mut user = args.next().map(|name| TaskUser::find(&name.to_string_lossy())).transpose()?;
        if let (Some(user), Some(home)) = (&mut user, args.next()) {
            user.home = home.into();
        }
        keeper::main(keeper::Start { dir: dir.into(), user, listener: keeper::listener_on_stdin() })?;
    }
    #[cfg(windows)]
    swarm_executors::keeper::main(dir.as_ref())?;
    Ok(())
}
