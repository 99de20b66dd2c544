//! What each verb means, one file per verb.

pub mod access;
pub mod bench;
pub mod blob;
pub mod completion;
pub mod config;
pub mod doctor;
pub mod event;
pub mod job;
pub mod leader;
pub mod mesh;
pub mod node;
pub mod recover;
pub mod run;
pub mod status;
pub mod submit;
pub mod task;
pub mod version;

mod desk;
mod sign;
mod waits;
mod watch;

use crate::{
    args::{Cli, Command},
    failure::Outcome,
    output::Out,
    session::{Session, unless_interrupted},
};

/// Does what was typed. Ctrl-C ends it, but for `run`, which first has something to take back.
pub async fn call(cli: Cli) -> Outcome {
    if matches!(cli.command, Command::Run(_)) {
        return dispatch(cli).await;
    }
    unless_interrupted(String::new, dispatch(cli)).await
}

async fn dispatch(cli: Cli) -> Outcome {
    let out = Out::of_process(cli.global.output);
    let session = || Session::open(&cli.global, out);
    match cli.command {
        Command::Run(args) => run::call(&args, session).await,
        Command::Submit(args) => submit::call(args, session).await,
        Command::Status => status::call(&session().await?).await,
        Command::Task(verb) => task::call(&session().await?, verb).await,
        Command::Job(verb) => job::call(&session().await?, verb).await,
        Command::Node(verb) => node::call(&session().await?, verb).await,
        Command::Mesh(verb) => mesh::call(&session().await?, verb).await,
        Command::Token(verb) => access::token(&session().await?, verb).await,
        Command::User(verb) => access::user(&session().await?, verb).await,
        Command::Ca(verb) => access::ca(&session().await?, verb).await,
        Command::Recover(args) => recover::call(&out, &args),
        Command::Login(args) => access::login(&out, args).await,
        Command::Leader(verb) => leader::call(&session().await?, verb).await,
        Command::Event(verb) => event::call(&session().await?, verb).await,
        Command::Doctor(args) => doctor::call(&out, &cli.global, &args).await,
        Command::Config(verb) => config::call(&out, verb, session).await,
        Command::Blob(verb) => blob::call(&session().await?, verb).await,
        Command::Bench(verb) => bench::call(verb, &cli.global, out).await,
        Command::Completion(args) => completion::call(&args),
        Command::Version => version::call(&out, session().await.ok()).await,
    }
}
