//! Waiting for an end: as a long poll (`?wait=`), and as a stream of lines (`/follow`).

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde::Serialize;
use swarm_proto::{
    Code, Problem,
    api::{Call, Reply},
    http::FollowLine,
    peer::{Answer, Target},
};
use tokio::sync::mpsc;

use crate::{
    query::{self, Id},
    refusal::Refusal,
    router::{Api, reply},
};

/// Before a follow that broke off (the leader changed) is begun again.
const AGAIN: Duration = Duration::from_millis(250);
/// What JSON lines are called in HTTP.
pub(crate) const JSON_LINES: (http::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");

/// Returns when the target has ended, is unknown, or `limit` is over.
pub(crate) async fn until_end(api: &Api, target: Target, limit: Duration) {
    let ended = async {
        let mut answers = api.backend.follow(target);
        loop {
            while let Some(list) = answers.recv().await {
                if list.into_iter().any(|answer| line(answer).is_some_and(|line| is_last(&line))) {
                    return;
                }
            }
            match again(api, target).await {
                Ok(next) => answers = next,
                Err(_) => return,
            }
        }
    };
    // What stands against it, and that the time is over is seen by the state that the caller reads next.
    let _ = tokio::time::timeout(limit, ended).await;
}

/// Follows once more what broke off.
///
/// # Errors
/// What the swarm says when it is asked for it: where nobody answers, nothing would be told either.
async fn again(api: &Api, target: Target) -> Result<mpsc::Receiver<Vec<Answer>>, Problem> {
    tokio::time::sleep(AGAIN).await;
    let call = match target {
        Target::Job(job) => Call::Job { job },
        Target::Task(task) => Call::Task { task },
    };
    api.backend.call(&api.caller, call).await?;
    Ok(api.backend.follow(target))
}

/// What a follower is told of an answer; nothing of those to submissions.
fn line(answer: Answer) -> Option<FollowLine> {
    match answer {
        Answer::Progress { job, counts } => Some(FollowLine::Progress { job, counts }),
        Answer::JobEnded(outcome) => Some(FollowLine::JobEnded(outcome)),
        Answer::TaskEnded(view) => Some(FollowLine::TaskEnded(view)),
        Answer::Unknown(_) => {
            Some(FollowLine::Failed(Problem::new(Code::NotFound, "it cannot be followed", "there is no such job or task")))
        }
        Answer::Accepted { .. } | Answer::Refused { .. } => None,
    }
}

const fn is_last(line: &FollowLine) -> bool {
    match line {
        FollowLine::Progress { .. } => false,
        FollowLine::JobEnded(_) | FollowLine::TaskEnded(_) | FollowLine::Failed(_) => true,
    }
}

pub(crate) async fn job(api: Api, Id(id): Id) -> Result<Response, Refusal> {
    let job = query::id(&id)?;
    reply!(api, Call::Job { job }, Reply::Job)?;
    Ok(lines(api, Target::Job(job)))
}

pub(crate) async fn task(api: Api, Id(id): Id) -> Result<Response, Refusal> {
    let task = query::id(&id)?;
    reply!(api, Call::Task { task }, Reply::Task)?;
    Ok(lines(api, Target::Task(task)))
}

fn lines(api: Api, target: Target) -> Response {
    let answers = Some(api.backend.follow(target));
    let stream = stream::unfold((api, answers), move |(api, answers)| async move {
        let mut answers = answers?;
        let mut text = Vec::new();
        loop {
            let Some(list) = answers.recv().await else {
                match again(&api, target).await {
                    Ok(next) => answers = next,
                    Err(problem) => {
                        write_line(&mut text, &FollowLine::Failed(problem));
                        return Some((Ok(Bytes::from(text)), (api, None)));
                    }
                }
                continue;
            };
            for line in list.into_iter().filter_map(line) {
                write_line(&mut text, &line);
                if is_last(&line) {
                    return Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (api, None::<mpsc::Receiver<_>>)));
                }
            }
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), (api, Some(answers))));
            }
        }
    });
    ([JSON_LINES], Body::from_stream(stream)).into_response()
}

pub(crate) fn write_line(text: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *text, line).expect("lines are strings and numbers, and memory takes them");
    text.push(b'\n');
}
