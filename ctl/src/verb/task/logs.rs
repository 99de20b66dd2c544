//! `task logs`: what a task writes, each stream to ours of the same name. Gaps are told on stderr.

use swarm_proto::{
    TaskId,
    api::Text,
    http::LogLine,
    peer::{OutputChunk, Stream, Which},
};

use crate::{
    failure::{Failure, Outcome},
    output::{self, Out},
    session::Session,
};

/// `task logs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id, such as j17.3; j17 is j17.0
    pub task: TaskId,
    /// Stay until the task's attempt ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only its standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only its standard error
    #[arg(long)]
    pub stderr: bool,
}

pub(super) async fn call(session: &Session, args: &Args) -> Outcome {
    let which = match (args.stdout, args.stderr) {
        (true, _) => Which::Stdout,
        (_, true) => Which::Stderr,
        (false, false) => Which::Both,
    };
    let mut logs = session.client.logs(args.task, which, args.follow).await?;
    while let Some(chunk) = logs.next().await? {
        show(&session.out, chunk)?;
    }
    Ok(())
}

fn show(out: &Out, chunk: OutputChunk) -> Outcome {
    match chunk {
        OutputChunk::Failed(problem) => Err(problem.into()),
        OutputChunk::End => Ok(()),
        OutputChunk::Bytes { stream, data } if out.is_json() => {
            Ok(out.line(&LogLine::Bytes { stream, data: Text::of(&data) }, String::new)?)
        }
        OutputChunk::Skipped { stream, bytes, lines } if out.is_json() => {
            Ok(out.line(&LogLine::Skipped { stream, bytes, lines }, String::new)?)
        }
        OutputChunk::Bytes { stream, data } => copy(stream, &data),
        OutputChunk::Skipped { stream, bytes, lines } => {
            output::note(&gap(stream, bytes, lines));
            Ok(())
        }
    }
}

/// Bytes of a task's stream to ours of the same name.
pub(in crate::verb) fn copy(stream: Stream, data: &[u8]) -> Outcome {
    match stream {
        Stream::Stdout => output::bytes(data).map_err(Failure::from),
        Stream::Stderr => {
            output::error_bytes(data);
            Ok(())
        }
    }
}

/// What is told of a gap.
pub(in crate::verb) fn gap(stream: Stream, bytes: u64, lines: u64) -> String {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    // of what is gone for good nobody knows them
    let lines = if lines > 0 { format!(" ({lines} lines)") } else { String::new() };
    format!("{bytes} bytes{lines} of the task's {name} are missing here")
}
