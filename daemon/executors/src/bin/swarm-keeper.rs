//! `swarm-keeper DIR`: the keeper without the daemon's other subcommands.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: swarm-keeper DIR")?;
    #[cfg(target_os = "linux")]
    swarm_executors::keeper::main(dir.as_ref())?;
    #[cfg(not(target_os = "linux"))]
    return Err(format!("there is no keeper for {} yet", dir.display()).into());
    #[cfg(target_os = "linux")]
    Ok(())
}
