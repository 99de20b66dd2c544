//! One reader of an attempt's output, at its own pace.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use bytes::Bytes;
use swarm_proto::{
    Code, Problem,
    peer::{OutputChunk, OutputRequest, Stream},
};
use tokio::sync::{mpsc, watch};

use super::{
    Key, Next, OutputStore, index,
    kept::{self, Written},
    ring::lines,
};

/// Bytes of one chunk.
pub(super) const CHUNK: usize = 64 << 10;

struct Place {
    stream: Stream,
    at: u64,
    lines: u64,
    is_done: bool,
    file: Option<Arc<File>>,
}

pub(super) struct Reader {
    store: Arc<OutputStore>,
    key: Key,
    follow: bool,
    tx: mpsc::Sender<OutputChunk>,
    /// `None`: it was not live when the reading began.
    watched: Option<watch::Receiver<()>>,
    places: Vec<Place>,
}

/// What one look at a stream came to.
enum Step {
    Sent,
    Nothing,
    Done,
}

/// The receiver is gone.
struct Unread;

impl Reader {
    pub(super) fn new(
        store: Arc<OutputStore>,
        request: OutputRequest,
        tx: mpsc::Sender<OutputChunk>,
        watched: Option<watch::Receiver<()>>,
    ) -> Self {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().filter(|stream| request.which.takes(*stream));
        let places = streams.map(|stream| Place { stream, at: 0, lines: 0, is_done: false, file: None }).collect();
        Self { store, key: (request.task, request.fence), follow: request.follow, tx, watched, places }
    }

    pub(super) async fn run(mut self) {
        // a receiver that is gone needs no word
        let _ = self.read().await;
        if self.watched.is_some() {
            self.store.leave(self.key);
        }
    }

    async fn read(&mut self) -> Result<(), Unread> {
        if self.watched.is_none() && !self.is_kept().await {
            let last = if self.store.was_silent(self.key) { OutputChunk::End } else { OutputStore::not_here(self.key) };
            return self.send(last).await;
        }
        if self.watched.is_none()
            && let Err(changed) = self.check().await
        {
            return self.send(OutputChunk::Failed(changed)).await;
        }
        loop {
            if let Some(watched) = &mut self.watched {
                watched.mark_unchanged();
            }
            let mut is_idle = true;
            for n in 0..self.places.len() {
                if !self.places[n].is_done {
                    match self.step(n).await? {
                        Step::Sent => is_idle = false,
                        Step::Nothing => {}
                        Step::Done => self.places[n].is_done = true,
                    }
                }
            }
            if self.places.iter().all(|place| place.is_done) || (is_idle && !self.follow) {
                return self.send(OutputChunk::End).await;
            }
            if is_idle {
                self.wait().await?;
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Unread> {
        let Some(watched) = &mut self.watched else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.tx.closed() => Err(Unread),
            // the sender lives as long as there is a reader
            _ = watched.changed() => Ok(()),
        }
    }

    async fn send(&self, chunk: OutputChunk) -> Result<(), Unread> {
        self.tx.send(chunk).await.map_err(|_| Unread)
    }

    async fn is_kept(&self) -> bool {
        let (store, key) = (Arc::clone(&self.store), self.key);
        let exists = move || {
            let is_there = |stream| kept::path(store.dir(), key, stream).exists();
            is_there(Stream::Stdout) || is_there(Stream::Stderr) || !matches!(kept::load_written(store.dir(), key), Ok(None))
        };
        tokio::task::spawn_blocking(exists).await.unwrap_or(false)
    }

    /// Whether all that is asked for still is what was written.
    async fn check(&self) -> Result<(), Problem> {
        let (store, key) = (Arc::clone(&self.store), self.key);
        let streams: Vec<Stream> = self.places.iter().map(|place| place.stream).collect();
        let check = move || {
            let Some(written) = kept::load_written(store.dir(), key)? else { return Ok(()) };
            streams.into_iter().try_for_each(|stream| kept::check(store.dir(), key, stream, written[index(stream)]))
        };
        let checked = tokio::task::spawn_blocking(check).await.unwrap_or(Ok(()));
        checked.map_err(|changed: kept::Changed| {
            tracing::warn!(%changed, "kept output is not given");
            Problem::new(Code::Internal, format!("what is kept of the output of {} is not what it wrote", key.0), changed.to_string())
        })
    }

    async fn step(&mut self, n: usize) -> Result<Step, Unread> {
        let (stream, at) = (self.places[n].stream, self.places[n].at);
        let (ring, ended) = match self.store.next(self.key, stream, at) {
            Next::Ring(data) => return self.deliver(n, data.into()).await,
            Next::Elsewhere { ring, ended } => (ring, ended),
        };
        match self.read_file(n).await {
            Ok(data) if !data.is_empty() => return self.deliver(n, data).await,
            Ok(_) => {}
            Err(error) => {
                let why = format!("{}: {error}", kept::path(self.store.dir(), self.key, stream).display());
                self.send(OutputChunk::Failed(Problem::new(Code::Internal, "kept output cannot be read", why))).await?;
                return Err(Unread);
            }
        }
        if let Some((start, start_lines)) = ring {
            let place = &mut self.places[n];
            let skipped = OutputChunk::Skipped { stream, bytes: start - at, lines: start_lines.saturating_sub(place.lines) };
            (place.at, place.lines) = (start, start_lines);
            self.send(skipped).await?;
            return Ok(Step::Sent);
        }
        let written = match (ended, &self.watched) {
            (Some(written), _) => written,
            (None, Some(_)) => return Ok(Step::Nothing),
            (None, None) => self.written().await[index(stream)],
        };
        let place = &self.places[n];
        if written.bytes > at {
            let lines = written.lines.saturating_sub(place.lines);
            self.send(OutputChunk::Skipped { stream, bytes: written.bytes - at, lines }).await?;
        }
        Ok(Step::Done)
    }

    async fn deliver(&mut self, n: usize, data: Bytes) -> Result<Step, Unread> {
        let place = &mut self.places[n];
        place.at += data.len() as u64;
        place.lines += lines(&data);
        let stream = place.stream;
        self.send(OutputChunk::Bytes { stream, data }).await?;
        Ok(Step::Sent)
    }

    async fn written(&self) -> [Written; 2] {
        let (store, key) = (Arc::clone(&self.store), self.key);
        let load = move || kept::load_written(store.dir(), key).ok().flatten().unwrap_or_default();
        tokio::task::spawn_blocking(load).await.unwrap_or_default()
    }

    /// What the file has at the reader's place; nothing where there is no file yet.
    async fn read_file(&mut self, n: usize) -> io::Result<Bytes> {
        let Place { stream, at, file, .. } = &self.places[n];
        let (path, at, open) = (kept::path(self.store.dir(), self.key, *stream), *at, file.clone());
        let read = move || -> io::Result<(Option<Arc<File>>, Vec<u8>)> {
            let file = match open {
                Some(file) => file,
                None => match File::open(path) {
                    Ok(file) => Arc::new(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
                    Err(e) => return Err(e),
                },
            };
            let mut data = vec![0; CHUNK];
            (&*file).seek(SeekFrom::Start(at))?;
            let len = (&*file).read(&mut data)?;
            data.truncate(len);
            Ok((Some(file), data))
        };
        let (file, data) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        self.places[n].file = file;
        Ok(data.into())
    }
}
