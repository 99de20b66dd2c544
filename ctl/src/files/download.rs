//! A blob on its way, over as many connections as it takes.
//!
//! Where the daemon goes away half way, it is asked for the rest once it is back. Every byte is hashed, those too that an earlier call
//! left: what ends well is the blob, whoever gave which part of it.

use bytes::Bytes;
use swarm_client::{BlobReader, Client};
use swarm_proto::{Code, Digest, Problem};

use crate::{output, session::Endurance, view};

/// See the head of the module.
pub struct Download {
    client: Client,
    digest: Digest,
    /// As far as it is.
    at: u64,
    hasher: blake3::Hasher,
    size: Option<u64>,
    check: Box<dyn Fn(u64) -> Result<(), Problem>>,
    reader: Option<BlobReader>,
    endurance: Endurance,
    is_refuted: bool,
}

impl Download {
    /// Nothing is asked for yet.
    pub fn new(client: &Client, digest: Digest) -> Self {
        Self {
            client: client.clone(),
            digest,
            at: 0,
            hasher: blake3::Hasher::new(),
            size: None,
            check: Box::new(|_| Ok(())),
            reader: None,
            endurance: Endurance::default(),
            is_refuted: false,
        }
    }

    /// What it shall be.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The same, refused where it is not as large as this wants.
    #[must_use]
    pub fn checked(mut self, check: impl Fn(u64) -> Result<(), Problem> + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// How many bytes all of it has, once that is known.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// So many bytes of it are here, and were hashed; with 0, none are.
    pub fn go_on(&mut self, at: u64, hasher: blake3::Hasher) {
        if at != self.at {
            self.reader = None;
        }
        if at > 0 && hasher.finalize() == self.digest.0 {
            // it is all here, and nothing has to be asked
            self.size = Some(at);
        }
        (self.at, self.hasher, self.is_refuted) = (at, hasher, false);
    }

    /// Whether what came, with what was here, is something else.
    pub const fn is_refuted(&self) -> bool {
        self.is_refuted
    }

    /// The next bytes; `None` after the last, when all of them are what they should be.
    ///
    /// # Errors
    /// They cannot be had, or are not what they should be: then [`Download::is_refuted`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.size == Some(self.at) && self.reader.is_none() {
                return self.judge();
            }
            match self.piece().await {
                Ok(Some(data)) => {
                    self.at += data.len() as u64;
                    self.hasher.update(&data);
                    self.endurance.refresh();
                    return Ok(Some(data));
                }
                Ok(None) => return self.judge(),
                Err(problem) => self.outlast(problem).await?,
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        self.ask().await?;
        match &mut self.reader {
            Some(reader) => reader.next().await,
            None => Ok(None),
        }
    }

    /// Asks for the rest, unless it is on its way.
    async fn ask(&mut self) -> Result<(), Problem> {
        if self.reader.is_none() {
            let asked = self.client.read_blob_from(self.digest, self.at).await;
            // nothing is there: what was here cannot be of it
            self.is_refuted = self.at > 0 && matches!(&asked, Err(problem) if problem.code == Code::BadRequest);
            let reader = asked?;
            (self.check)(reader.size)?;
            self.size = Some(reader.size);
            self.reader = Some(reader);
        }
        Ok(())
    }

    async fn outlast(&mut self, problem: Problem) -> Result<(), Problem> {
        let is_first = self.reader.take().is_some() && !self.endurance.is_tried();
        let why = problem.why.clone();
        self.endurance.outlast(problem).await?;
        if is_first {
            let of = self.size.map(|size| format!(" of {}", view::bytes(size))).unwrap_or_default();
            output::note(&format!("{} broke off after {}{of} ({why}); going on from there", self.digest, view::bytes(self.at)));
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.hasher.finalize() == self.digest.0 {
            return Ok(None);
        }
        self.is_refuted = true;
        Err(Problem::new(Code::Internal, format!("{} was not got", self.digest), "what came is something else"))
    }
}
