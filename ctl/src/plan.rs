//! A job before it is submitted: what was asked for, and the files that have to be put first.
//!
//! All that can be known here is known before anything is sent: which files there are, that their names can be stored anywhere, how
//! many lines a list has. So a job that would be refused moves no bytes.

use std::{collections::BTreeMap, path::PathBuf};

use swarm_client::Client;
use swarm_proto::{Code, Problem, api::SubmitRequest, manifest::Tree};

use crate::{
    failure::{Failure, Outcome},
    files::{self, Draft},
    progress::Bar,
    session::patiently,
    words::source::Source,
};

/// What was asked for, by flags or by a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    pub request: SubmitRequest,
    /// Files that every task finds in its directory, and files of which each task finds one.
    pub inputs: Vec<Source>,
    pub each: Vec<Source>,
    /// Its files are kept encrypted.
    pub encrypt: bool,
    /// The file behind the request's list of items.
    pub items: Option<PathBuf>,
}

/// A job that the daemon would take.
pub struct Plan {
    /// Its trees have no names yet.
    pub request: SubmitRequest,
    inputs: Option<Draft>,
    each: Option<Draft>,
    encrypt: bool,
    items: Option<PathBuf>,
}

/// Trees that were put, by what was named and whether it is encrypted: the jobs of one file often share their inputs.
pub type Trees = BTreeMap<(Vec<Source>, bool), Tree>;

impl Job {
    /// Looks at its files, and refuses what the daemon would refuse.
    ///
    /// # Errors
    /// A file cannot be taken, or the job as a whole.
    pub fn plan(self) -> Outcome<Plan> {
        let draft = |sources: &[Source]| (!sources.is_empty()).then(|| Draft::of(sources)).transpose();
        let (inputs, each) = (draft(&self.inputs)?, draft(&self.each)?);
        let mut request = self.request;
        request.inputs = inputs.as_ref().map(Draft::tree).or(request.inputs);
        request.each = each.as_ref().map(Draft::tree).or(request.each);
        let plan = Plan { request, inputs, each, encrypt: self.encrypt, items: self.items };
        plan.check()?;
        Ok(plan)
    }
}

impl Plan {
    /// Refuses here what the daemon would refuse, before anything is sent.
    ///
    /// # Errors
    /// What is not acceptable.
    pub fn check(&self) -> Outcome {
        self.request.clone().into_job(std::env::consts::OS).map(|_| ()).map_err(Failure::from)
    }

    /// Puts its files, but for those that are known; the request is complete then.
    ///
    /// # Errors
    /// A file cannot be read, or the daemon does not take it.
    pub async fn put(self, client: &Client, trees: &mut Trees) -> Result<SubmitRequest, Problem> {
        let Self { mut request, inputs, each, encrypt, items } = self;
        if let Some(draft) = inputs {
            request.inputs = Some(put_tree(client, draft, encrypt, trees).await?);
        }
        if let Some(draft) = each {
            request.each = Some(put_tree(client, draft, encrypt, trees).await?);
        }
        if let Some((path, list)) = items.zip(request.array.as_ref().and_then(|array| array.list)) {
            let bar = Bar::new(Some(list.size));
            let put = patiently(async || files::put_file(client, &path, encrypt, &bar).await).await?;
            if put.digest != list.digest {
                let what = format!("the items of {} were not put", path.display());
                return Err(Problem::new(Code::Conflict, what, "the file changed while it was read"));
            }
        }
        Ok(request)
    }
}

async fn put_tree(client: &Client, draft: Draft, encrypt: bool, trees: &mut Trees) -> Result<Tree, Problem> {
    let sources = (draft.sources().to_vec(), encrypt);
    if let Some(tree) = trees.get(&sources) {
        return Ok(*tree);
    }
    let tree = draft.put(client, encrypt).await?;
    trees.insert(sources, tree);
    Ok(tree)
}
