//! What a client asks for when it submits: its words, and the checked job that they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Text;
use crate::{
    Code, Millis, PeerKey, Problem, UnixMillis,
    manifest::Tree,
    signed::Signed,
    spec::{Array, Cause, Durability, Exec, ItemList, JobSpec, OnPartition, Resources, Retries, Work},
};

/// One line of `POST /v1/submit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubmitRequest {
    /// The client's own name for this line; its answers carry it.
    pub id: String,
    /// Idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `noop` runs nothing; absent: `exec`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub noop: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayRequest>,
    /// Cores, such as 0.5; absent: 1 for `exec`, none for `noop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<f64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Further attempts by cause; those not named keep their default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub retries: BTreeMap<Cause, u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_partition: Option<OnPartition>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_most_once: bool,
    /// What `accepted` means; absent: `majority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience_ms: Option<u64>,
    /// Files that each task finds in its own directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Tree>,
    /// Files of which each task gets one, in their order; makes it an array of as many tasks, whose items are the paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Tree>,
    /// Paths below a task's own directory that are kept when it has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Whether the end of the job is told on this stream; absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// The submitter's signature over all of this but `id` and `follow`; needs a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedRequest>,
}

/// A signature that travels with a submission. `swarm_proto::signed` says over which bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRequest {
    pub by: PeerKey,
    pub not_after: UnixMillis,
    /// In base64.
    pub signature: String,
}

impl SignedRequest {
    fn into_signed(self, key: Option<&str>, array: &Array) -> Result<Signed, Problem> {
        let bad = |why: &str| Problem::new(Code::BadRequest, "the signature is not acceptable", why);
        let key = key.ok_or_else(|| bad("a signed submission has a key, so that it cannot be submitted twice"))?;
        let signature = Text::Base64(self.signature).into_bytes()?.into();
        Ok(Signed { by: self.by, key: key.to_owned(), array: array.clone(), not_after: self.not_after, signature })
    }
}

/// Indices of an array job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArrayRequest {
    pub first: u32,
    /// Absent: as many as there are items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// A blob whose lines are the items, where they are too many to name; needs `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ItemList>,
}

impl SubmitRequest {
    /// The checked spec and indices. `os` becomes a label of every `exec` job that does not name one.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming the part that is out of bounds.
    pub fn into_job(self, os: &str) -> Result<(JobSpec, Array), Problem> {
        let bad = |why: &str| Problem::new(Code::BadRequest, "the submission is not acceptable", why);
        if self.noop && !self.argv.is_empty() {
            return Err(bad("a no-op has no argv"));
        }
        if self.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > crate::limits::NAME) {
            return Err(bad("a key has 1 to 128 bytes"));
        }
        let cores = self.cores.unwrap_or(if self.noop { 0.0 } else { 1.0 });
        if !(0.0..=1e6).contains(&cores) {
            return Err(bad("cores must be between 0 and 1000000"));
        }
        let items = self.array.as_ref().and_then(|array| array.list);
        let array = match (self.array, self.each) {
            (Some(_), Some(_)) => return Err(bad("each file is a task of its own, so there is no other array")),
            (None, Some(tree)) => Array { first: 0, count: tree.files, is_array: true, items: Vec::new() },
            (None, None) => Array::single(),
            (Some(array), None) => {
                let items = u32::try_from(array.items.len()).unwrap_or(u32::MAX);
                Array { first: array.first, count: array.count.unwrap_or(items), is_array: true, items: array.items }
            }
        };
        let mut labels = self.labels;
        let work = if self.noop {
            Work::Noop
        } else {
            labels.entry("os".into()).or_insert_with(|| os.to_owned());
            let stdin = self.stdin.map(Text::into_bytes).transpose()?.unwrap_or_default();
            Work::Exec(Exec { argv: self.argv, env: self.env, stdin: stdin.into(), cwd: self.cwd })
        };
        let spec = JobSpec {
            name: self.name,
            work,
            needs: Resources {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just above")]
                milli_cores: (cores * 1000.0).round() as u64,
                memory: self.memory.unwrap_or(0),
                disk: self.disk.unwrap_or(0),
                gpus: self.gpus.unwrap_or(0),
                named: self.resources,
            },
            labels,
            timeout: self.timeout_ms.map(Millis),
            retries: self.retries.into_iter().fold(Retries::default(), |all, (cause, times)| all.with(cause, times)),
            on_partition: self.on_partition.unwrap_or_default(),
            at_most_once: self.at_most_once,
            patience: self.patience_ms.map(Millis),
            signed: self.signed.map(|signed| signed.into_signed(self.key.as_deref(), &array)).transpose()?.map(Box::new),
            inputs: self.inputs,
            each: self.each,
            items,
            outputs: self.outputs,
            durability: self.durability.unwrap_or_default(),
        };
        spec.check()?;
        spec.check_array(&array)?;
        Ok((spec, array))
    }
}
