//! A client that submits one no-op every 2 ms with a key, and writes down when each was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use swarm_client::{Client, SubmitReceiver, SubmitSender};
use swarm_proto::{
    JobId,
    api::{SubmitLine, SubmitRequest},
};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use crate::swarm::told;

/// Between two writes.
const PACE: Duration = Duration::from_millis(2);
/// How long an acknowledgement may take, whatever happens: longer than any leader is away.
const PATIENCE: Duration = Duration::from_secs(15);

/// The client. It ends when it is dropped.
pub(crate) struct Writer {
    record: Arc<Mutex<Record>>,
    news: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// What it wrote, and what it was told.
#[derive(Default)]
pub(crate) struct Record {
    open: BTreeMap<String, Instant>,
    acknowledged: Vec<Write>,
    jobs: BTreeSet<JobId>,
}

/// One write that was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Write {
    pub(crate) sent: Instant,
    pub(crate) acknowledged: Instant,
}

impl Writer {
    /// Begins to write at the daemon of this client.
    pub(crate) async fn start(client: &Client, name: String) -> anyhow::Result<Self> {
        let stream = client.submit_stream().await.map_err(told)?;
        let record = Arc::<Mutex<Record>>::default();
        let (said, news) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(write(stream, name, record.clone(), said, stopped));
        Ok(Self { record, news, stop, task })
    }

    /// Waits until that many more of those that are sent from now on are acknowledged; the first of them.
    pub(crate) async fn next(&mut self, count: usize) -> anyhow::Result<Write> {
        self.since(Instant::now(), count).await
    }

    /// The same of those that were sent from then on.
    pub(crate) async fn since(&mut self, at: Instant, count: usize) -> anyhow::Result<Write> {
        let first = |record: &Record| {
            let mut later = record.acknowledged.iter().filter(|write| write.sent >= at);
            let first = later.next().copied();
            first.filter(|_| later.count() + 1 >= count)
        };
        let wait = async {
            loop {
                if let Some(write) = first(&lock(&self.record)) {
                    return anyhow::Ok(write);
                }
                self.news.changed().await.context("the writer ended")?;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(write)) => Ok(write),
            Ok(Err(ended)) => Err(self.why().await.err().unwrap_or(ended)),
            Err(_) => bail!("not {count} writes were acknowledged within {} s", PATIENCE.as_secs()),
        }
    }

    /// Writes no more, and gives what was written when all of it was acknowledged.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Vec<Write>> {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.why()).await.context("not every write was acknowledged")??;
        let record = std::mem::take(&mut *lock(&self.record));
        ensure!(record.open.is_empty(), "{} writes were never answered", record.open.len());
        Ok(record.acknowledged)
    }

    async fn why(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await.context("the writer")?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The longest time in which nothing was acknowledged, of those that ended after `from`.
pub(crate) fn silence(writes: &[Write], from: Instant) -> Duration {
    let mut at: Vec<Instant> = writes.iter().map(|write| write.acknowledged).collect();
    at.sort_unstable();
    at.windows(2).filter(|pair| pair[1] >= from).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(
    (mut sender, mut answers): (SubmitSender, SubmitReceiver),
    name: String,
    record: Arc<Mutex<Record>>,
    said: watch::Sender<usize>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lines = Vec::new();
    for n in 0u64.. {
        loop {
            tokio::select! {
                biased;
                more = answers.next_many(&mut lines) => {
                    ensure!(more.map_err(told)? > 0, "the daemon ended the stream");
                    take(&mut lock(&record), &mut lines)?;
                    said.send_modify(|count| *count += 1);
                }
                _ = tick.tick() => break,
                _ = stopped.changed() => break,
            }
        }
        if *stopped.borrow() {
            break;
        }
        let id = n.to_string();
        let key = Some(format!("{name}-{n}"));
        lock(&record).open.insert(id.clone(), Instant::now());
        let request = SubmitRequest { id, key, noop: true, follow: Some(false), ..SubmitRequest::default() };
        sender.send(&request).await.map_err(told)?;
    }
    sender.finish();
    while answers.next_many(&mut lines).await.map_err(told)? > 0 {
        take(&mut lock(&record), &mut lines)?;
    }
    Ok(())
}

fn take(record: &mut Record, lines: &mut Vec<SubmitLine>) -> anyhow::Result<()> {
    let acknowledged = Instant::now();
    for line in lines.drain(..) {
        match line {
            // not new: its leader went when it was accepted and not yet answered, and the next one was asked again
            SubmitLine::Accepted { id, job, is_new: _ } => {
                let sent = record.open.remove(&id).with_context(|| format!("{id} is acknowledged and was not asked"))?;
                ensure!(record.jobs.insert(job), "two writes are both {job}");
                record.acknowledged.push(Write { sent, acknowledged });
            }
            SubmitLine::Refused { id, problem } => bail!("write {id} was refused: {problem}"),
            SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_between_two_answers_whoever_was_asked_first() {
        let zero = Instant::now();
        let write = |sent, acknowledged| Write {
            sent: zero + Duration::from_millis(sent),
            acknowledged: zero + Duration::from_millis(acknowledged),
        };
        let writes = [write(0, 1), write(2, 43), write(4, 33), write(6, 45)];
        assert_eq!(silence(&writes, zero), Duration::from_millis(32));
        assert_eq!(silence(&writes, zero + Duration::from_millis(34)), Duration::from_millis(10));
    }
}
