//! Changing a few keys of the operator's own file, and nothing else of it: comments, order and spelling stay.

use std::{io::Write as _, path::Path};

use toml_edit::{DocumentMut, Item, Table, value};

use crate::read;

/// Keys to set, by section and name, or by section, table and name.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    changes: Vec<(Vec<String>, toml_edit::Value)>,
}

impl Edit {
    /// Sets `path`, such as `["exec", "enabled"]`.
    #[must_use]
    pub fn set(mut self, path: &[&str], to: impl Into<toml_edit::Value>) -> Self {
        self.changes.push((path.iter().map(ToString::to_string).collect(), to.into()));
        self
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// A text with these keys set.
    ///
    /// # Errors
    /// Why the text is not TOML, or has something else where a section should be.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        // toml_edit's own reader panics at some texts that are none; whoever reads to understand says what is wrong with them
        text.parse::<toml::Table>().map_err(|e| e.to_string())?;
        let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
        for (path, to) in &self.changes {
            let (name, sections) = path.split_last().ok_or("a key without a name")?;
            let mut table = document.as_table_mut();
            for section in sections {
                let entry = table.entry(section).or_insert_with(|| Item::Table(Table::new()));
                table = entry.as_table_mut().ok_or_else(|| format!("[{section}] is no section"))?;
            }
            table[name.as_str()] = value(to.clone());
        }
        Ok(document.to_string())
    }

    /// Changes a file, as a whole or not at all. Answers the text that it had.
    ///
    /// # Errors
    /// What keeps it from being read, understood or written.
    pub fn apply_to(&self, path: &Path) -> Result<String, String> {
        let before = read::file(path).map_err(|e| e.to_string())?;
        let after = self.apply(&before)?;
        write(path, &after).map_err(|e| e.to_string())?;
        Ok(before)
    }
}

/// Writes a file as a whole or not at all; it keeps its owner and mode.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
    file.write_all(text.as_bytes())?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_by_hand_stays() {
        let text = "# mine\n[node]\nname = 'pi4'   # the one in the attic\n\n[exec]\n# enabled = false\n";
        let edit =
            Edit::default().set(&["exec", "enabled"], true).set(&["exec", "sandbox"], "none").set(&["node", "labels", "zone"], "attic");
        let after = edit.apply(text).expect("it is TOML");
        assert!(after.starts_with("# mine\n[node]\nname = 'pi4'   # the one in the attic\n"), "{after}");
        let env = crate::Env::default();
        let config = crate::Config::parse("x".as_ref(), &format!("{after}\n[mesh]\naddress = '10.0.0.1'\n"), &env).expect("it reads");
        assert!(config.exec.enabled);
        assert_eq!(config.node.labels.get("zone").map(String::as_str), Some("attic"));
        assert_eq!(edit.apply(&after).as_deref(), Ok(after.as_str()), "once is enough");
        assert!(Edit::default().set(&["exec", "enabled"], true).apply("exec = 3").is_err());
    }

    #[test]
    fn a_file_is_changed_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("swarmd.toml");
        assert!(Edit::default().set(&["node", "voter"], "never").apply_to(&path).is_err());
        std::fs::write(&path, "[node]\n").expect("written");
        assert_eq!(Edit::default().set(&["node", "voter"], "never").apply_to(&path).as_deref(), Ok("[node]\n"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "[node]\nvoter = \"never\"\n");
    }
}
