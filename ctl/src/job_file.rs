//! Job files: the same keys in TOML, in JSON and as JSON lines. Described to people in `swarmctl submit --help` ([`HELP`]).
//!
//! Keys are those of the API's submit line, so that what one takes the other takes too; beside them stand the forms that a person
//! would rather write: `timeout = "30s"`, `memory = "512MiB"`, `array = "0-999"`, `retries = "3:exit"`.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use swarm_proto::{
    api::{ArrayRequest, SubmitRequest, Text},
    manifest::Tree,
    spec::{Cause, Durability, OnPartition},
};

use crate::{
    failure::{Failure, Outcome},
    plan::Job,
    spec::millis,
    words::{
        array, retries,
        source::{self, Source},
        span,
    },
};

/// The format, for `--help`.
pub const HELP: &str = r#"JOB FILE
  TOML (one job, or several as [[job]]), JSON (one job or a list), or JSON lines; - reads standard input.

    argv = ["sha256sum", "{}"]      # program and arguments; {} is the item, {{}} a literal {}
    array = "0-999"                 # or "@items.txt", or ["a.txt", "b.txt"]
    # each = ["images/"]            # instead: one task for each file, which finds it in its directory; {} is its path
    name = "checksums"
    key = "2024-06-01"              # idempotency: the same key is the same job for 24 h
    env = { LANG = "C" }
    stdin = "text"                  # at most 64 KiB
    # cwd = "/srv/data"             # instead of the task's own directory; then without inputs, each and outputs
    cores = 0.5
    memory = "512MiB"
    disk = "1GiB"
    gpus = 0
    resources = { licence = 1 }
    labels = { zone = "attic" }
    timeout = "30s"
    retries = "3:exit,timeout"      # or 3, or { exit = 3 }
    on_partition = "replace"        # or "stop", "wait"
    patience = "10s"
    at_most_once = false
    durability = "majority"         # or "async": in the leader's memory, at once, and lost with the leader
    inputs = ["data/=in", "tool"]   # files and directories of each task's own directory, as PATH or PATH=NAME
    encrypt = false                 # the files that are put for it are kept encrypted on each node that has them
    outputs = ["out.csv"]           # kept when a task has ended: swarmctl job results

  Flags win over the file. Only argv is required, or noop = true: a task that does nothing, to measure the swarm.
  A task sees SWARM_TASK_ID (j17.3), SWARM_JOB_ID, SWARM_ATTEMPT (from 1 on) and SWARM_FENCE, in an array SWARM_INDEX
  and SWARM_ITEM too; beside them what env says, and PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_ALL and TZ of its node.
  {} means the item in argv and outputs, and itself where there is no array."#;

/// One job as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    id: String,
    key: Option<String>,
    name: Option<String>,
    noop: bool,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Option<Input>,
    cwd: Option<String>,
    array: Option<ArrayForm>,
    cores: Option<f64>,
    memory: Option<Size>,
    disk: Option<Size>,
    gpus: Option<u32>,
    resources: BTreeMap<String, u64>,
    labels: BTreeMap<String, String>,
    timeout: Option<String>,
    timeout_ms: Option<u64>,
    retries: Option<RetriesForm>,
    on_partition: Option<OnPartition>,
    at_most_once: bool,
    durability: Option<Durability>,
    patience: Option<String>,
    patience_ms: Option<u64>,
    inputs: FilesForm,
    each: FilesForm,
    encrypt: bool,
    outputs: Vec<String>,
    follow: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, {utf8 = ..} or {base64 = ..} is wanted")]
enum Input {
    Plain(String),
    Text(Text),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "\"0-999\", \"@file\", a list of items, or {first = .., count = ..} is wanted")]
enum ArrayForm {
    Word(String),
    Items(Vec<String>),
    Request(ArrayRequest),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a list of \"PATH\" or \"PATH=NAME\", or {manifest = .., files = .., bytes = ..} is wanted")]
enum FilesForm {
    Paths(Vec<String>),
    Tree(Tree),
}

impl Default for FilesForm {
    fn default() -> Self {
        Self::Paths(Vec::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number of bytes or a size such as \"512MiB\" is wanted")]
enum Size {
    Bytes(u64),
    Word(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number, \"N:CAUSES\", or {cause = N} is wanted")]
enum RetriesForm {
    Times(u16),
    Word(String),
    ByCause(BTreeMap<Cause, u16>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    job: Vec<Written>,
}

/// The jobs of a file, in its order; `-` is standard input.
pub fn read(path: &Path) -> Outcome<Vec<Job>> {
    let name = path.display().to_string();
    let refuse = |why: String| Failure::usage("the job file cannot be used", format!("{name}: {}", why.replace('\n', "\n       ")));
    let mut text = String::new();
    if name == "-" {
        std::io::stdin().read_to_string(&mut text).map_err(|e| refuse(e.to_string()))?;
    } else {
        text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    }
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    parse(&text, kind).map_err(refuse)
}

/// For `tests/fuzz`: the jobs of a text, of a file with that ending.
///
/// # Errors
/// Why there are none.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn jobs_in(text: &str, kind: &str) -> Result<Vec<Job>, String> {
    parse(text, kind)
}

/// By the file's ending; without a telling one, JSON is what begins with a brace.
fn parse(text: &str, kind: &str) -> Result<Vec<Job>, String> {
    let is_json = match kind {
        "json" | "jsonl" | "ndjson" => true,
        "toml" => false,
        _ => text.trim_start().starts_with('{'),
    };
    let written = if is_json { json(text)? } else { toml(text)? };
    if written.is_empty() {
        return Err("there is no job in it".into());
    }
    let count = written.len();
    let name = |i: usize, why: String| if count == 1 { why } else { format!("job {}: {why}", i + 1) };
    written.into_iter().enumerate().map(|(i, job)| job.into_job().map_err(|why| name(i, why))).collect()
}

fn toml(text: &str) -> Result<Vec<Written>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
    let said = |e: toml::de::Error| e.to_string().trim_end().to_owned();
    if table.contains_key("job") {
        toml::from_str::<Several>(text).map(|several| several.job).map_err(said)
    } else {
        toml::from_str::<Written>(text).map(|job| vec![job]).map_err(said)
    }
}

fn json(text: &str) -> Result<Vec<Written>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|e| e.to_string());
    }
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().map_err(|e| e.to_string())
}

impl Written {
    fn into_job(self) -> Result<Job, String> {
        let span_ms = |key: &str, word: Option<String>, ms: Option<u64>| match word {
            Some(_) if ms.is_some() => Err(format!("{key} and {key}_ms are both given")),
            Some(word) => span::parse(&word).map(|span| Some(millis(span))).map_err(|why| format!("{key}: {why}")),
            None => Ok(ms),
        };
        let array = self.array.map(ArrayForm::into_request).transpose().map_err(|why| format!("array: {why}"))?;
        let (array, items) = array.map_or((None, None), |(array, items)| (Some(array), items));
        let (inputs, input_tree) = self.inputs.into_sources().map_err(|why| format!("inputs: {why}"))?;
        let (each, each_tree) = self.each.into_sources().map_err(|why| format!("each: {why}"))?;
        let request = SubmitRequest {
            id: self.id,
            key: self.key,
            name: self.name,
            noop: self.noop,
            argv: self.argv,
            env: self.env,
            stdin: self.stdin.map(Input::into_text),
            cwd: self.cwd,
            array,
            cores: self.cores,
            memory: size("memory", self.memory)?,
            disk: size("disk", self.disk)?,
            gpus: self.gpus,
            resources: self.resources,
            labels: self.labels,
            timeout_ms: span_ms("timeout", self.timeout, self.timeout_ms)?,
            retries: self.retries.map(RetriesForm::into_map).transpose().map_err(|why| format!("retries: {why}"))?.unwrap_or_default(),
            on_partition: self.on_partition,
            at_most_once: self.at_most_once,
            durability: self.durability,
            patience_ms: span_ms("patience", self.patience, self.patience_ms)?,
            inputs: input_tree,
            each: each_tree,
            outputs: self.outputs,
            follow: self.follow,
            signed: None,
        };
        Ok(Job { request, inputs, each, items, encrypt: self.encrypt })
    }
}

fn size(key: &str, form: Option<Size>) -> Result<Option<u64>, String> {
    match form {
        None => Ok(None),
        Some(Size::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Size::Word(word)) => mesh_config::parse_bytes(&word).map(Some).map_err(|why| format!("{key}: {why}")),
    }
}

impl Input {
    fn into_text(self) -> Text {
        match self {
            Self::Plain(text) => Text::Utf8(text),
            Self::Text(text) => text,
        }
    }
}

impl ArrayForm {
    /// With the file behind its list, where it has one.
    fn into_request(self) -> Result<(ArrayRequest, Option<PathBuf>), String> {
        match self {
            Self::Word(word) => array::parse(&word)?.into_request(),
            Self::Items(items) => Ok((ArrayRequest { items, ..ArrayRequest::default() }, None)),
            Self::Request(request) => Ok((request, None)),
        }
    }
}

impl FilesForm {
    /// What is still to be put, or what was put already.
    fn into_sources(self) -> Result<(Vec<Source>, Option<Tree>), String> {
        match self {
            Self::Paths(paths) => Ok((paths.iter().map(|path| source::parse(path)).collect::<Result<_, _>>()?, None)),
            Self::Tree(tree) => Ok((Vec::new(), Some(tree))),
        }
    }
}

impl RetriesForm {
    fn into_map(self) -> Result<BTreeMap<Cause, u16>, String> {
        match self {
            Self::Times(times) => Ok(Cause::ALL.into_iter().map(|cause| (cause, times)).collect()),
            Self::Word(word) => retries::parse(&word),
            Self::ByCause(map) => Ok(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;
    use swarm_proto::{Digest, spec::ItemList};

    use super::*;

    const TOML: &str = r#"
argv = ["sha256sum", "{}"]
array = "5-9"
env = { LANG = "C" }
stdin = "text"
cores = 2
memory = "512MiB"
disk = 1024
timeout = "30s"
retries = { exit = 3 }
on_partition = "stop"
"#;

    #[test]
    fn toml_and_json_say_the_same() {
        let from_toml = parse(TOML, "toml").unwrap();
        let json = r#"{"argv": ["sha256sum", "{}"], "array": {"first": 5, "count": 5}, "env": {"LANG": "C"}, "stdin": {"utf8": "text"},
            "cores": 2, "memory": 536870912, "disk": "1KiB", "timeout_ms": 30000, "retries": "3:exit", "on_partition": "stop"}"#;
        assert_eq!(from_toml, parse(json, "json").unwrap());
        assert_eq!(from_toml, parse(json, "").unwrap());
    }

    #[test]
    fn a_line_of_the_api_is_a_job() {
        let mut job = parse(TOML, "toml").unwrap().remove(0);
        let tree = Some(Tree { manifest: Digest([7; 32]), files: 5, bytes: 11 });
        let list = Some(ItemList { digest: Digest([8; 32]), size: 10 });
        let request = SubmitRequest { id: "7".into(), inputs: tree, each: tree, outputs: vec!["out".into()], ..job.request };
        job.request = SubmitRequest { array: Some(ArrayRequest { list, ..request.array.unwrap() }), ..request };
        let lines = format!("{0}\n{0}\n", serde_json::to_string(&job.request).unwrap());
        assert_eq!(parse(&lines, "jsonl").unwrap(), [job.clone(), job]);
    }

    #[test]
    fn several_jobs_stand_in_one_file() {
        let toml = "[[job]]\nargv = ['a']\n[[job]]\nargv = ['b']\nretries = 2";
        assert_eq!(parse(toml, "").unwrap()[1].request.retries.len(), Cause::ALL.len());
        assert_eq!(parse(r#"[{"argv": ["a"]}, {"argv": ["b"]}]"#, "json").unwrap().len(), 2);
    }

    #[test]
    fn files_are_named_or_were_put_already() {
        let dir = tempfile::tempdir().unwrap();
        let items = dir.path().join("items");
        std::fs::write(&items, "x\n".repeat(40_000)).unwrap();
        let toml =
            format!("argv = ['a']\nencrypt = true\ninputs = ['tool', 'data/=in']\neach = ['images/']\narray = '@{}'", items.display());
        let job = parse(&toml, "toml").unwrap().remove(0);
        let source = |path: &str, name: &str| Source { path: path.into(), name: name.into() };
        assert_eq!(job.inputs, [source("tool", "tool"), source("data/", "in")]);
        assert_eq!((job.each, job.items, job.encrypt), (vec![source("images/", "")], Some(items), true));
        assert_eq!(job.request.array.unwrap().count, Some(40_000));
    }

    #[test]
    fn faults_are_named() {
        assert_snapshot!(parse("argv = ['a']\ntimout = '3s'", "toml").unwrap_err(), @"
TOML parse error at line 2, column 1
  |
2 | timout = '3s'
  | ^^^^^^
unknown field `timout`, expected one of `id`, `key`, `name`, `noop`, `argv`, `env`, `stdin`, `cwd`, `array`, `cores`, `memory`, `disk`, `gpus`, `resources`, `labels`, `timeout`, `timeout_ms`, `retries`, `on_partition`, `at_most_once`, `durability`, `patience`, `patience_ms`, `inputs`, `each`, `encrypt`, `outputs`, `follow`
");
        assert_snapshot!(parse("[[job]]\nargv = ['a']\n[[job]]\nmemory = '8XiB'", "toml").unwrap_err(), @"job 2: memory: 'XiB' is no unit; they are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB");
        assert_snapshot!(parse("{\"argv\": [\"a\"]}\n{\"argv\": \"b\"}", "jsonl").unwrap_err(), @r#"invalid type: string "b", expected a sequence at line 2 column 12"#);
        assert_snapshot!(parse("timeout = '30s'\ntimeout_ms = 5", "toml").unwrap_err(), @"timeout and timeout_ms are both given");
        assert_snapshot!(parse("array = 5", "toml").unwrap_err(), @r#"
TOML parse error at line 1, column 9
  |
1 | array = 5
  |         ^
"0-999", "@file", a list of items, or {first = .., count = ..} is wanted
"#);
        assert_snapshot!(parse("", "json").unwrap_err(), @"there is no job in it");
        assert_snapshot!(parse("each = ['=x']", "toml").unwrap_err(), @"each: '=x' has no path; PATH or PATH=NAME is wanted");
    }

    #[test]
    fn what_help_shows_can_be_read() {
        let example: String = HELP.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
        let job = parse(&example, "toml").unwrap().remove(0);
        Job { inputs: Vec::new(), ..job }.plan().unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_jobs_or_a_reason(text in ".{0,60}|[{\\[]?(argv|array|memory) ?[=:] ?.{0,20}", kind in "(toml|json|)") {
            let _ = parse(&text, &kind);
        }
    }
}
