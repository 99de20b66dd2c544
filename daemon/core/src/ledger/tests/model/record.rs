//! What lived in a leader's memory.

use swarm_proto::{
    Code, JobId, LogIndex, TaskId,
    ledger::{Applied, Recorded, RecordedTask, Submit, What},
    limits,
    spec::Durability,
};

use super::{Answer, Model, ModelJob, ModelTask};

impl Model {
    pub(super) fn reserve(&mut self, count: u32) -> Answer {
        if !(1..=limits::ASYNC_NUMBERS).contains(&count) {
            return Answer::Refused(Code::BadRequest);
        }
        let first = JobId(self.next_job);
        self.next_job += u64::from(count);
        self.reserved.extend(first.0..self.next_job);
        while self.reserved.len() as u64 > self.bounds.reserved {
            self.reserved.pop_first();
        }
        Answer::Is(Applied::Reserved { first })
    }

    pub(super) fn record(&mut self, Recorded { job, submit, submitted, ended, tasks }: &Recorded) -> Answer {
        let is_whole = tasks.len() == submit.array.count as usize && tasks.iter().all(|task| task.state.is_terminal());
        if !self.reserved.contains(&job.0) || submit.spec.durability != Durability::Async || !is_whole {
            return Answer::Refused(Code::Conflict);
        }
        if submit.spec.check().is_err() || submit.array.check().is_err() {
            return Answer::Refused(Code::BadRequest);
        }
        self.reserved.remove(&job.0);
        self.remember_key(submit, job.0);
        self.jobs.insert(job.0, ModelJob { submit: submit.clone(), tasks: Vec::new(), at: submitted.0, ended: None });
        self.emit(What::JobSubmitted { job: *job, tasks: submit.array.count });
        for (at, task) in tasks.iter().enumerate() {
            let id = TaskId { job: *job, index: submit.array.first + at as u32 };
            self.jobs.get_mut(&job.0).expect("just put").tasks.push(ended_task(task));
            let is_kept = task.outcome.is_some();
            if is_kept {
                self.kept.push((job.0, at));
            }
            self.forget();
            let (attempt, node) = if is_kept { (task.fence.attempt, Some(task.node)) } else { Default::default() };
            self.emit(What::TaskEnded { task: id, state: task.state, attempt, node });
        }
        self.end_job(job.0);
        self.jobs.get_mut(&job.0).expect("just put").ended = Some(ended.0);
        Answer::Is(Applied::Done)
    }

    fn remember_key(&mut self, submit: &Submit, job: u64) {
        let day = limits::KEY_LIFE.as_millis() as u64;
        let now = self.now;
        let Some(key) = &submit.key else { return };
        let lives = |known: &&(String, String, Submit, u64, u64)| now - known.4 < day;
        let is_used = self.keys.iter().filter(lives).any(|known| (&known.0, &known.1) == (&submit.submitter, key));
        if !is_used && self.keys.iter().filter(lives).count() < self.bounds.keys {
            self.keys.push((submit.submitter.clone(), key.clone(), submit.clone(), job, now));
        }
    }
}

fn ended_task(task: &RecordedTask) -> ModelTask {
    let outcome = task.outcome.as_ref();
    let fence = outcome.map(|_| task.fence);
    ModelTask {
        state: task.state,
        attempt: fence.map_or(0, |fence| fence.attempt.0),
        grant: fence.map_or(LogIndex(0), |fence| fence.index).0,
        node: outcome.map_or(0, |_| task.node.0),
        spent: Default::default(),
        end: outcome.map(|outcome| outcome.end.clone()),
        started: outcome.map_or(0, |outcome| outcome.started.0),
        ended: outcome.map_or(0, |outcome| outcome.ended.0),
        output: outcome.and_then(|outcome| outcome.output.as_deref()).filter(|output| **output != Default::default()).cloned(),
        is_reported: task.is_reported && outcome.is_some(),
        is_kept: outcome.is_some(),
    }
}
