//! `event list|follow`: what came true in the ledger, in order, without gaps as far as its record reaches.

use std::collections::VecDeque;

use clap::Subcommand;
use swarm_client::Told;
use swarm_proto::{Cursor, LogIndex, ledger::Event, limits};
use tokio::time::sleep;

use crate::{
    failure::Outcome,
    output,
    session::{AGAIN, Session, is_passing, patiently},
    view,
};

/// `event ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Events that have come true: the latest, or those from a place on
    List(List),
    /// Events as they come true
    Follow(Follow),
}

/// `event list`.
#[derive(clap::Args, Debug)]
pub struct List {
    /// From this log index, or this event (120.3), on
    #[arg(long, value_name = "INDEX")]
    pub from: Option<Cursor>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `event follow`.
#[derive(clap::Args, Debug)]
pub struct Follow {
    /// From this log index, or this event (120.3), on [default: what comes from now on]
    #[arg(long, value_name = "INDEX")]
    pub from: Option<Cursor>,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::List(args) => list(session, &args).await,
        Verb::Follow(args) => follow(session, &args).await,
    }
}

/// What to ask for so that `from` is the first to be told: readers ask for what lies after a place.
const fn before(from: Cursor) -> Cursor {
    match from {
        Cursor { index, sub: 1.. } => Cursor { index, sub: from.sub - 1 },
        Cursor { index: LogIndex(0), sub: 0 } => from,
        Cursor { index: LogIndex(index), sub: 0 } => Cursor { index: LogIndex(index - 1), sub: u32::MAX },
    }
}

/// The first `limit` from a place on, or the last `limit` of all.
async fn list(session: &Session, args: &List) -> Outcome {
    let limit = args.limit as usize;
    let mut after = args.from.map(before);
    let mut kept: VecDeque<Event> = VecDeque::new();
    let mut begins = None;
    loop {
        let page = patiently(async || session.client.event_page(after, u32::try_from(limits::PAGE).ok()).await).await?;
        begins.get_or_insert(page.begins);
        let is_last = page.events.len() < limits::PAGE;
        after = page.events.last().map(|event| event.cursor);
        kept.extend(page.events);
        if args.from.is_some() {
            kept.truncate(limit);
        }
        kept.drain(..kept.len().saturating_sub(limit));
        if is_last || (args.from.is_some() && kept.len() == limit) {
            break;
        }
    }
    tell_gap(args.from, begins);
    let events: Vec<Event> = kept.into();
    if session.out.format == output::Format::Json {
        return Ok(session.out.either(&events, |_| String::new())?);
    }
    events.iter().try_for_each(|event| session.out.line(event, || view::event(event))).map_err(Into::into)
}

fn tell_gap(from: Option<Cursor>, begins: Option<Cursor>) {
    if let (Some(from), Some(begins)) = (from, begins)
        && begins > from
        && from != Cursor::default()
    {
        output::note(&format!("the record begins at {begins}; what lies before it is gone"));
    }
}

/// Goes on across restarts of the daemon, after the last event that was told.
async fn follow(session: &Session, args: &Follow) -> Outcome {
    let mut after = match args.from {
        Some(from) => before(from),
        None => Cursor { index: patiently(async || session.client.stats().await).await?.log_index, sub: u32::MAX },
    };
    loop {
        let mut events = patiently(async || session.client.events(Some(after)).await).await?;
        loop {
            match events.next().await {
                Ok(Some(Told::Event(event))) => {
                    session.out.line(&event, || view::event(&event))?;
                    after = event.cursor;
                }
                Ok(Some(Told::Begins(begins))) => tell_gap(Some(after), Some(begins)),
                Ok(None) => break,
                Err(problem) if is_passing(&problem) => break,
                Err(problem) => return Err(problem.into()),
            }
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_the_first_that_is_told() {
        for (from, asked) in [("0", "0.0"), ("120", "119.4294967295"), ("120.3", "120.2"), ("120.1", "120.0"), ("1", "0.4294967295")] {
            assert_eq!(before(from.parse().unwrap()).to_string(), asked, "{from}");
        }
    }
}
