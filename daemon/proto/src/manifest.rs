//! Manifests: a flat list of files, each a blob. A manifest is a blob itself, so one digest names a whole directory.
//!
//! ```text
//! {"swarm_manifest":1,"files":2,"bytes":4711}
//! {"path":"in/data.csv","size":4700,"digest":"...","executable":false}
//! {"path":"tool","size":11,"digest":"...","executable":true}
//! ```
//! JSON lines, ordered by path, so that the same files always have the same name and anybody can read it. There are no directories of
//! their own, no links, no owners and no times: what a program can rely on everywhere is a file's path and bytes, and whether it may
//! be run. Names are held to what every system of a mixed swarm can store: see [`check_path`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Code, Digest, Problem, limits};

/// One file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Below the directory that the manifest stands for, with `/` between its parts.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    pub digest: Digest,
    /// Whether it may be run as a program.
    pub executable: bool,
}

/// A manifest by its name, with what is worth knowing before it is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Name of the manifest's own bytes.
    pub manifest: Digest,
    /// How many files, and their bytes.
    pub files: u32,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    swarm_manifest: u16,
    files: u32,
    bytes: u64,
}

/// Of this format.
const FORMAT: u16 = 1;
/// Bytes of one part of a path; what file systems take.
const PART: usize = 255;

/// Files by path. Only what is within the bounds and can be stored anywhere gets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    files: Vec<FileEntry>,
    bytes: u64,
}

fn refuse(why: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, "the list of files is not acceptable", why)
}

/// Whether a relative path can be stored on every system: `/` between parts, no `.` or `..`, nothing that Windows reserves.
///
/// # Errors
/// [`Code::BadRequest`] that says what is wrong with it.
pub fn check_path(path: &str) -> Result<(), Problem> {
    let bad = |why: &str| Err(refuse(format!("'{}': {why}", path.escape_debug())));
    if path.len() > limits::PATH {
        return bad(&format!("a path has at most {} bytes", limits::PATH));
    }
    for part in path.split('/') {
        if part.is_empty() {
            return bad("paths are relative, and no part of one is empty");
        }
        if part == "." || part == ".." {
            return bad("'.' and '..' are no names of files");
        }
        if part.len() > PART {
            return bad(&format!("a part of a path has at most {PART} bytes"));
        }
        if part.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c)) {
            return bad("it has a character that not every system can store: \\ : * ? \" < > | or a control character");
        }
        if part.ends_with(['.', ' ']) {
            return bad("no part of it ends with a dot or a space: Windows drops them");
        }
        if is_reserved(part) {
            return bad("it is the name of a device on Windows");
        }
    }
    Ok(())
}

/// `CON`, `COM1.txt` and the like.
fn is_reserved(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| matches!(rest, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") || numbered("COM") || numbered("LPT")
}

/// What two names are compared by: file systems of some members do not tell upper case from lower.
fn folded(path: &str) -> String {
    path.to_lowercase()
}

impl Manifest {
    /// Of these files, in any order.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming the file that is out of bounds, or the two that clash.
    pub fn new(mut files: Vec<FileEntry>) -> Result<Self, Problem> {
        if files.len() > limits::FILES {
            return Err(refuse(format!("{} files, at most {} are taken", files.len(), limits::FILES)));
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let (mut bytes, mut names) = (0_u64, BTreeMap::new());
        for file in &files {
            check_path(&file.path)?;
            if file.size > limits::BLOB {
                return Err(refuse(format!("'{}' has {} bytes, at most {} are taken", file.path, file.size, limits::BLOB)));
            }
            bytes = bytes.checked_add(file.size).ok_or_else(|| refuse("more bytes than can be counted"))?;
            if let Some(other) = names.insert(folded(&file.path), &file.path) {
                return Err(refuse(format!("'{other}' and '{}' are one file where upper and lower case are the same", file.path)));
            }
        }
        for file in &files {
            let folded = folded(&file.path);
            let above = folded.match_indices('/').find_map(|(at, _)| names.get(&folded[..at]));
            if let Some(other) = above {
                return Err(refuse(format!("'{other}' is a file, and '{}' needs a directory of that name", file.path)));
            }
        }
        Ok(Self { files, bytes })
    }

    /// By path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Bytes of all files.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One file.
    pub fn get(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// The manifest's own bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = line(&Head { swarm_manifest: FORMAT, files: self.count(), bytes: self.bytes });
        for file in &self.files {
            text.push_str(&line(file));
        }
        text.into_bytes()
    }

    /// How it is spoken of, given the digest of [`Manifest::encode`].
    pub fn tree(&self, manifest: Digest) -> Tree {
        Tree { manifest, files: self.count(), bytes: self.bytes }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.files.len()).unwrap_or(u32::MAX)
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// [`Code::BadRequest`] when it is none, of another format, or not within the bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.len() > limits::MANIFEST {
            return Err(refuse(format!("{} bytes, at most {} are taken", bytes.len(), limits::MANIFEST)));
        }
        let none = |why: &dyn std::fmt::Display| refuse(format!("this is no manifest: {why}"));
        let text = std::str::from_utf8(bytes).map_err(|e| none(&e))?;
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|e| none(&e))?;
        if head.swarm_manifest != FORMAT {
            return Err(refuse(format!("it has format {}, and this version reads {FORMAT}", head.swarm_manifest)));
        }
        let expected = usize::try_from(head.files).ok().filter(|count| *count <= limits::FILES);
        let expected = expected.ok_or_else(|| refuse(format!("{} files, at most {} are taken", head.files, limits::FILES)))?;
        let mut files = Vec::new();
        for line in lines.take(expected + 1) {
            files.push(serde_json::from_str(line).map_err(|e| none(&e))?);
        }
        let manifest = Self::new(files)?;
        if (manifest.files.len(), manifest.bytes) != (expected, head.bytes) {
            return Err(none(&"its first line counts other files than follow"));
        }
        Ok(manifest)
    }
}

fn line(value: &impl Serialize) -> String {
    // strings, numbers and booleans always have a JSON
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(path: &str) -> FileEntry {
        FileEntry { path: path.into(), size: 3, digest: Digest([7; 32]), executable: path.starts_with('x') }
    }

    fn of(paths: &[&str]) -> Result<Manifest, Problem> {
        Manifest::new(paths.iter().map(|path| file(path)).collect())
    }

    #[test]
    fn what_cannot_be_stored_everywhere_is_refused() {
        let long = "p".repeat(256);
        let deep = ["d"; 600].join("/");
        for path in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "c:x",
            "a\0b",
            "a\nb",
            "what?",
            "a.",
            "a ",
            "dir./x",
            "con",
            "Con.txt",
            "x/COM1",
            "lpt9.log",
            "nul ",
            &long,
            &deep,
        ] {
            assert_eq!(of(&[path]).expect_err(path).code, Code::BadRequest, "{path}");
        }
        for path in ["a", "a/b/c", ".hidden", "..a", "COM", "COM10", "console", "Ünï çödé", "a b", "{}"] {
            of(&[path]).expect(path);
        }
    }

    #[test]
    fn what_clashes_is_refused() {
        for (paths, said) in [
            (["a", "a"], "one file"),
            (["a/B", "a/b"], "one file"),
            (["a", "a/b"], "needs a directory"),
            (["x/A", "X/a/c"], "needs a directory"),
        ] {
            let problem = of(&paths).expect_err("a clash");
            assert!(problem.why.contains(said), "{problem:?}");
        }
        of(&["a/b", "a/c", "ab", "a.b"]).expect("no clash");
    }

    #[test]
    fn bounds_are_exact() {
        let files = |count: usize| (0..count).map(|n| file(&n.to_string())).collect::<Vec<_>>();
        let full = Manifest::new(files(limits::FILES)).expect("as many as may be");
        assert!(full.encode().len() <= limits::MANIFEST, "such names fit");
        assert!(Manifest::new(files(limits::FILES + 1)).is_err());
        let sized = |size| Manifest::new(vec![FileEntry { size, ..file("a") }]);
        assert!(sized(limits::BLOB).is_ok() && sized(limits::BLOB + 1).is_err());
        let named = |len: usize| of(&[&format!("{}/{}", "d".repeat(len - 2 - 100), "e".repeat(101))]);
        assert!(named(300).is_ok());
        assert!(Manifest::decode(&vec![b' '; limits::MANIFEST + 1]).expect_err("too long").why.contains("at most"));
    }

    #[test]
    fn it_is_text_that_anybody_can_read() {
        let text = String::from_utf8(of(&["x", "b/c"]).expect("fine").encode()).expect("text");
        let digest = Digest([7; 32]);
        let lines = [
            r#"{"swarm_manifest":1,"files":2,"bytes":6}"#.to_owned(),
            format!(r#"{{"path":"b/c","size":3,"digest":"{digest}","executable":false}}"#),
            format!(r#"{{"path":"x","size":3,"digest":"{digest}","executable":true}}"#),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        let manifest = Manifest::decode(text.as_bytes()).expect("its own");
        assert_eq!((manifest.files().len(), manifest.bytes()), (2, 6));
        assert_eq!(manifest.get("x").map(|file| file.executable), Some(true));
        assert_eq!(manifest.get("y"), None);
        for wrong in [
            text.replace(r#""files":2"#, r#""files":3"#),
            text.replace(r#""files":2"#, r#""files":1"#),
            text.replace(r#""bytes":6"#, r#""bytes":5"#),
            text.replace(r#""swarm_manifest":1"#, r#""swarm_manifest":2"#),
            text.replace("b/c", "../c"),
            text.replace(r#""size":3"#, r#""size":-3"#),
            "hello".to_owned(),
            String::new(),
        ] {
            assert_eq!(Manifest::decode(wrong.as_bytes()).expect_err(&wrong).code, Code::BadRequest);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&bytes);
        }

        #[test]
        fn what_is_changed_is_refused_or_read_as_it_stands(at in 0usize..300, byte in any::<u8>()) {
            let mut bytes = of(&["x", "b/c", "b/d"]).expect("fine").encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert!(Manifest::new(manifest.files().to_vec()).is_ok());
            }
        }

        #[test]
        fn it_reads_back_what_it_writes(names in prop::collection::btree_set("[a-z]{1,4}(/[a-z]{5}){0,2}", 0..20), sizes in any::<u32>()) {
            let files = names.iter().map(|name| FileEntry { size: sizes.into(), ..file(name) }).collect();
            let manifest = Manifest::new(files);
            prop_assume!(manifest.is_ok());
            let manifest = manifest.unwrap();
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
