//! The streamed submit: any number of submissions on one request, each with its own acknowledgement and its own outcome.

use swarm_proto::{
    Problem,
    api::{SubmitLine, SubmitRequest},
    http::Accepted,
};

use crate::{Client, outbox::Outbox, streams::Lines};

/// Writes submissions. Dropping it ends the stream's input, as [`SubmitSender::finish`] does.
pub struct SubmitSender {
    outbox: Outbox,
}

/// Reads answers; independent of the sender, and may be left unread while everything is written.
pub struct SubmitReceiver {
    lines: Lines,
}

impl Client {
    /// Opens a streamed submit.
    ///
    /// # Errors
    /// As any call.
    pub async fn submit_stream(&self) -> Result<(SubmitSender, SubmitReceiver), Problem> {
        let (outbox, response) = self.duplex("/v1/submit").await?;
        Ok((SubmitSender { outbox }, SubmitReceiver { lines: Lines::new(response) }))
    }

    /// Submits one job and returns when it is accepted; nobody waits for its end.
    ///
    /// # Errors
    /// Its refusal, or as any call.
    pub async fn submit(&self, request: &SubmitRequest) -> Result<Accepted, Problem> {
        let (mut sender, mut answers) = self.submit_stream().await?;
        sender.send(&SubmitRequest { follow: Some(false), ..request.clone() }).await?;
        sender.finish();
        match answers.next().await? {
            Some(SubmitLine::Accepted { job, is_new, .. }) => Ok(Accepted { job, is_new }),
            Some(SubmitLine::Refused { problem, .. }) => Err(problem),
            Some(SubmitLine::Progress { .. } | SubmitLine::Ended { .. }) | None => {
                Err(Problem::new(swarm_proto::Code::UnknownOutcome, "the submission was not answered", "swarmd ended the stream"))
            }
        }
    }
}

impl SubmitSender {
    /// Writes one submission. Returns when it is in the buffer, which empties itself; waits only while that is full.
    ///
    /// # Errors
    /// The stream was ended by the daemon. What was written before may or may not have been read: the answers tell.
    pub async fn send(&mut self, request: &SubmitRequest) -> Result<(), Problem> {
        self.outbox
            .write(|buffer| {
                serde_json::to_writer(&mut *buffer, request).expect("a request is strings and numbers, and memory takes them");
                buffer.push(b'\n');
            })
            .await
    }

    /// Writes many.
    ///
    /// # Errors
    /// As [`SubmitSender::send`]; some may have been written.
    pub async fn send_many(&mut self, requests: impl IntoIterator<Item = &SubmitRequest>) -> Result<(), Problem> {
        for request in requests {
            self.send(request).await?;
        }
        Ok(())
    }

    /// Writes one line of JSON as it is, such as a line of a file. It must not hold a line feed.
    ///
    /// # Errors
    /// As [`SubmitSender::send`].
    pub async fn send_line(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.outbox
            .write(|buffer| {
                buffer.extend_from_slice(line);
                buffer.push(b'\n');
            })
            .await
    }

    /// No more submissions come. The answers go on until every followed job has ended.
    pub fn finish(self) {}
}

impl SubmitReceiver {
    /// The next answer; `None` after the last.
    ///
    /// # Errors
    /// The daemon went away, or says what cannot be understood.
    pub async fn next(&mut self) -> Result<Option<SubmitLine>, Problem> {
        self.lines.next().await
    }

    /// Waits for an answer, then takes all that have arrived with it. Returns how many were added; 0 after the last.
    ///
    /// # Errors
    /// As [`SubmitReceiver::next`].
    pub async fn next_many(&mut self, answers: &mut Vec<SubmitLine>) -> Result<usize, Problem> {
        let before = answers.len();
        let Some(first) = self.lines.next().await? else { return Ok(0) };
        answers.push(first);
        while let Some(line) = self.lines.take_arrived()? {
            answers.push(line);
        }
        Ok(answers.len() - before)
    }
}
