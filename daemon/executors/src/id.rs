//! What marks a process as a task of the keeper that owns a directory: random, made once, and in every task's environment.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use rand::{TryRngCore as _, rngs::OsRng};

/// Characters of an id.
const LEN: usize = 32;

/// The id, then what tells whether it still is what was written.
pub(crate) fn line_of(id: &str) -> String {
    format!("{id} {}", &blake3::hash(id.as_bytes()).to_hex()[..8])
}

/// A file that is not what was written.
pub(crate) struct Changed;

/// The id in a file; `None` in one that was never written whole, which marks nothing.
pub(crate) fn id_in(found: &[u8]) -> Result<Option<&str>, Changed> {
    match std::str::from_utf8(found).ok().and_then(|text| text.get(..LEN)) {
        Some(id) if found.len() == LEN || found == line_of(id).as_bytes() => Ok(Some(id)),
        None if found.len() < LEN => Ok(None),
        Some(_) | None => Err(Changed),
    }
}

/// The id of a directory, made where there is none.
///
/// # Errors
/// The file system's, and [`io::ErrorKind::InvalidData`] for one that changed on the disk: what carries the true one would be nobody's.
pub(crate) fn keeper_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("id");
    match fs::read(&path) {
        Ok(found) => match id_in(&found) {
            Ok(Some(id)) => return Ok(id.to_owned()),
            Ok(None) => {}
            Err(Changed) => {
                let why = format!("{} has changed on the disk; once no task of this host runs any more, remove it", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut random = [0; LEN / 2];
    OsRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let fresh = dir.join(format!("id.{}", std::process::id()));
    let mut file = File::create(&fresh)?;
    file.write_all(line_of(&id).as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_and_one_that_changed_on_the_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let id = keeper_id(dir.path()).unwrap();
        assert_eq!((id.len(), keeper_id(dir.path()).unwrap()), (LEN, id.clone()));
        let path = dir.path().join("id");
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let error = keeper_id(dir.path()).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "bit {bit}: {error}");
        }
        // as a power cut leaves a file that was being made
        fs::write(&path, &bytes[..LEN - 1]).unwrap();
        assert_ne!(keeper_id(dir.path()).unwrap(), id);
    }
}
