//! `token`, `user`, `login` and `ca`: who may come in.

use std::time::Duration;

use clap::Subcommand;
use swarm_proto::{
    TokenId,
    access::Role,
    api::{PassRequest, RootView, RotateRequest, TokenLine, TokenRequest, TokenView, UserRequest, UserView},
    identity::{Invite, NodeRole},
};

use crate::{
    failure::Outcome,
    output::{Card, Look, Out, Row, View, table::text},
    session::Session,
    view::instant,
    words::{pair, span},
};

/// `token ..`
#[derive(Subcommand, Debug)]
pub enum TokenVerb {
    /// Print a line with which a host joins
    Create(Create),
    /// Tokens that have not ended
    List,
    /// End a token now
    Revoke {
        /// As `token list` shows it
        token: TokenId,
    },
}

/// `token create`
#[derive(clap::Args, Debug)]
pub struct Create {
    /// voter: it may vote, if its own file lets it; worker: it never does
    #[arg(long, default_value = "voter")]
    role: NodeRole,
    /// The one name that the host may have
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label that the host must carry (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair::text)]
    label: Vec<(String, String)>,
    /// How many hosts may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    #[command(flatten)]
    line: Line,
}

/// What lines have in common.
#[derive(clap::Args, Debug)]
pub struct Line {
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = span::parse)]
    ttl: Duration,
    /// Where to knock, HOST:PORT; nodes that are up unless it is said (repeatable)
    #[arg(long, value_name = "PLACE")]
    address: Vec<String>,
}

/// `user ..`
#[derive(Subcommand, Debug)]
pub enum UserVerb {
    /// Make a user, or change the role of one, and print a line with which that user logs in
    Create {
        /// Letters, digits, '.', '-', '_' or '@'
        name: String,
        /// observer, submitter, operator or admin; without it the user exists and keeps the role
        #[arg(long)]
        role: Option<Role>,
        #[command(flatten)]
        line: Line,
    },
    /// Print a token for programs: whoever shows it with a request is that user
    Token {
        /// A user who exists
        name: String,
        /// Less than the user's own role; without it, the same
        #[arg(long)]
        role: Option<Role>,
        /// How long it is good for
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span::parse)]
        ttl: Duration,
        /// Where the API is, HOST:PORT; nodes that are up unless it is said (repeatable)
        #[arg(long, value_name = "PLACE")]
        address: Vec<String>,
    },
    /// Who may ask this swarm for anything, beside the hosts' own admins
    List,
    /// Close a user out, on every machine
    Revoke {
        /// As `user list` shows it
        name: String,
    },
}

/// `ca ..`
#[derive(Subcommand, Debug)]
pub enum CaVerb {
    /// The authorities that are believed, and who is awaited
    Show,
    /// Replace the authority that issues to nodes; the old one goes when every node has renewed
    ///
    /// Tokens and login lines that were made before are void from then on, and people log in again: all of those know the swarm by
    /// the old authority.
    Rotate {
        /// The authority of users instead; they log in again
        #[arg(long)]
        users: bool,
        /// Do not wait for nodes that have not renewed: they join again with a token
        #[arg(long)]
        force: bool,
    },
}

/// `login`
#[derive(clap::Args, Debug)]
pub struct Login {
    /// What `swarmctl user create` printed
    line: String,
}

pub(super) async fn token(session: &Session, verb: TokenVerb) -> Outcome {
    match verb {
        TokenVerb::Create(Create { role, name, label, uses, line }) => {
            let labels = label.into_iter().collect();
            let (ttl_ms, addresses) = (Some(millis(line.ttl)), line.address);
            let made = session.client.create_token(&TokenRequest { role, name, labels, uses: Some(uses), ttl_ms, addresses }).await?;
            show(&session.out, &made)
        }
        TokenVerb::List => Ok(session.out.list(&session.client.tokens().await?)?),
        TokenVerb::Revoke { token } => Ok(session.client.revoke_token(token).await?),
    }
}

pub(super) async fn user(session: &Session, verb: UserVerb) -> Outcome {
    match verb {
        UserVerb::Create { name, role, line } => {
            let (ttl_ms, addresses) = (Some(millis(line.ttl)), line.address);
            let made = session.client.create_user(&UserRequest { name, role, ttl_ms, addresses }).await?;
            show(&session.out, &made)
        }
        UserVerb::Token { name, role, ttl, address } => {
            let request = PassRequest { user: name, role, ttl_ms: Some(millis(ttl)), addresses: address };
            show(&session.out, &session.client.create_pass(&request).await?)
        }
        UserVerb::List => Ok(session.out.list(&session.client.users().await?)?),
        UserVerb::Revoke { name } => Ok(session.client.revoke_user(&name).await?),
    }
}

pub(super) async fn ca(session: &Session, verb: CaVerb) -> Outcome {
    let list = match verb {
        CaVerb::Show => session.client.authorities().await?,
        CaVerb::Rotate { users, force } => session.client.rotate_ca(&RotateRequest { users, force }).await?,
    };
    Ok(session.out.list(&list)?)
}

/// Needs no daemon on this machine.
pub(super) async fn login(out: &Out, args: Login) -> Outcome {
    let dir = swarm_client::credentials_dir().ok_or_else(|| {
        swarm_proto::Problem::new(swarm_proto::Code::BadRequest, "nobody was logged in", "this machine has no directory for it")
            .hint("set XDG_CONFIG_HOME or HOME")
    })?;
    let made = swarm_client::login(&args.line, &dir).await?;
    let told = Told { cluster: made.cluster.to_string(), user: made.user.clone(), role: made.role };
    Ok(out.either(&told, |_| format!("logged in to swarm {} as {}, {}\n", told.cluster, told.user, told.role))?)
}

#[derive(serde::Serialize)]
struct Told {
    cluster: String,
    user: String,
    role: Role,
}

/// The line alone, so that it can be taken as it is.
fn show(out: &Out, line: &TokenLine) -> Outcome {
    Ok(out.either(line, |_| format!("{}\n", line.line))?)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn invited(invite: &Invite) -> String {
    match invite {
        Invite::User { name } => format!("user {name}"),
        Invite::Pass { user, role } => format!("requests of {user} as {role}"),
        Invite::Node { role, name, labels } => {
            let what = match role {
                NodeRole::Voter => "node",
                NodeRole::Worker => "worker",
            };
            let name = name.as_ref().map_or_else(|| format!("any {what}"), |name| format!("{what} {name}"));
            labels.iter().fold(name, |text, (label, value)| format!("{text}, {label}={value}"))
        }
    }
}

impl View for TokenView {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["TOKEN", "FOR", "USES LEFT", "ENDS", "MADE BY"]
    }

    fn row(&self, _: Look) -> Row {
        let uses = format!("{} of {}", self.uses_left, self.uses);
        vec![text(self.token.to_string()), text(invited(&self.invite)), text(uses), text(instant(self.ends)), text(&self.by)]
    }

    fn card(&self, _: Look) -> Card {
        Card::default().line("token", text(self.token.to_string())).line("for", text(invited(&self.invite)))
    }
}

impl View for UserView {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["USER", "ROLE", "MACHINES"]
    }

    fn row(&self, _: Look) -> Row {
        vec![text(&self.name), text(self.role.word()), text(self.keys.len().to_string())]
    }

    fn card(&self, _: Look) -> Card {
        Card::default().line("user", text(&self.name)).line("role", text(self.role.word()))
    }
}

impl View for RootView {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["AUTHORITY", "FOR", "ISSUES", "AWAITS"]
    }

    fn row(&self, _: Look) -> Row {
        let awaited = self.awaited.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let issues = if self.issues { "yes" } else { "no" };
        vec![text(self.root.to_string()), text(self.kind.word()), text(issues), text(awaited)]
    }

    fn card(&self, _: Look) -> Card {
        Card::default().line("authority", text(self.root.to_string())).line("for", text(self.kind.word()))
    }
}
