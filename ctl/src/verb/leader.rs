//! `leader show|resign`

use clap::Subcommand;
use swarm_proto::{Code, Problem, api::LeaderView};
use tokio::time::{Instant, sleep};

use crate::{
    failure::Outcome,
    output::Out,
    session::{AGAIN, PATIENCE, Session},
    view,
};

/// `leader ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Who leads, in which term, with which voters
    Show,
    /// The leader hands over; prints who leads then
    Resign,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Show => show(&session.out, &session.client.leader().await?),
        Verb::Resign => {
            let before = session.client.leader().await?;
            session.client.resign().await?;
            show(&session.out, &other_than(session, &before).await?)
        }
    }
}

fn show(out: &Out, leader: &LeaderView) -> Outcome {
    Ok(out.either(leader, |_| view::leader(leader).render(out.is_coloured))?)
}

async fn other_than(session: &Session, before: &LeaderView) -> Outcome<LeaderView> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(now) = session.client.leader().await
            && now.term > before.term
        {
            return Ok(now);
        }
        sleep(AGAIN).await;
    }
    let why = format!("{} ({}) still leads term {}", before.node, before.name, before.term.0);
    Err(Problem::new(Code::Timeout, "nobody took over", why).hint("swarmctl status").into())
}
