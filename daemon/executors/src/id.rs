//! What marks a process as a task of the keeper that owns a directory: random, made once, and in every task's environment.

use std::{io, path::Path};

use rand::{TryRngCore as _, rngs::OsRng};

pub(crate) fn keeper_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if id.len() == 32 => return Ok(id),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut random = [0; 16];
    OsRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let fresh = dir.join(format!("id.{}", std::process::id()));
    std::fs::write(&fresh, &id)?;
    std::fs::rename(&fresh, &path)?;
    Ok(id)
}
