//! Who may do what: one table of operations and roles, from which the API's routes, its documentation and its tests are made.
//!
//! A route exists because an [`Operation`] names it, and an operation cannot be written down without the role that it needs, so
//! there is no way to serve something that nobody thought about. Roles are a ladder: each may do all that those below it may.
//! What belongs to somebody (a job to its submitter) may need a higher rung from everybody else.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Code, JobId, Problem, api::Call};

/// How much somebody may do. Kept in the ledger for users; the local socket gives its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything, changes nothing.
    Observer,
    /// Submits jobs, and cancels or retries its own.
    Submitter,
    /// Decides about everybody's jobs, about which nodes get work, and about who leads.
    Operator,
    /// Decides who belongs to the swarm and how it is set up.
    Admin,
}

impl Role {
    /// From the lowest to the highest.
    pub const ALL: [Self; 4] = [Self::Observer, Self::Submitter, Self::Operator, Self::Admin];

    /// Its name in the CLI, the configuration and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a role; roles are observer, submitter, operator and admin")]
pub struct BadRole(pub String);

impl FromStr for Role {
    type Err = BadRole;
    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or_else(|| BadRole(text.to_owned()))
    }
}

/// Who asks, once it is known that they are who they say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Whose jobs these are: a user's name, `local`, or `local:UID`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What proves it.
    pub how: How,
}

/// What proves who a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The kernel, at the local socket.
    Local,
    /// A user's certificate.
    Certificate,
    /// A token sent with the request.
    Bearer,
}

impl Caller {
    /// The daemon's own user, or root.
    pub fn local() -> Self {
        Self { name: "local".into(), role: Role::Admin, how: How::Local }
    }

    /// Whether the role reaches.
    ///
    /// # Errors
    /// [`Code::Denied`], naming the role that would.
    pub fn may(&self, operation: Operation) -> Result<(), Problem> {
        if self.role >= operation.needs() { Ok(()) } else { Err(self.denied(operation.about(), operation.needs())) }
    }

    /// The same for something of somebody else's.
    ///
    /// # Errors
    /// [`Code::Denied`], naming the owner and the role that would reach.
    pub fn may_of(&self, operation: Operation, thing: impl fmt::Display, owner: &str) -> Result<(), Problem> {
        let needed = operation.needs_for_others();
        if owner == self.name || self.role >= needed {
            return self.may(operation);
        }
        let mut problem = self.denied(operation.about(), needed);
        problem.why = format!("{thing} is {owner}'s; {}", problem.why);
        Err(problem)
    }

    fn denied(&self, about: &str, needed: Role) -> Problem {
        let why = format!("'{}' is {}, and this needs {}", self.name, article(self.role), article(needed));
        let hint = match self.how {
            How::Local => "run it as root or as the daemon's user; group members get the role in [api] group_role",
            How::Certificate | How::Bearer => "ask an admin of the swarm for the role",
        };
        Problem::new(Code::Denied, format!("this is not allowed: {}", lower(about)), why).hint(hint)
    }
}

fn article(role: Role) -> String {
    let article = if role.word().starts_with(['a', 'o']) { "an" } else { "a" };
    format!("{article} {role}")
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// How an operation is asked for over HTTP. `GET` takes `HEAD` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// As it stands in a request.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// The table. Each line: name, route, least role, that for other people's things where it differs, and what it does.
macro_rules! operations {
    ($($name:ident $method:ident $path:literal $role:ident $(others $others:ident)? $about:literal;)+) => {
        /// One thing that can be asked of the daemon: one route, and one variant of [`Call`] where it is forwarded to the leader.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation {
            $(#[doc = $about] $name,)+
        }

        impl Operation {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The least role that may.
            pub const fn needs(self) -> Role {
                match self {
                    $(Self::$name => Role::$role,)+
                }
            }

            /// The least role that may where the thing belongs to somebody else.
            pub const fn needs_for_others(self) -> Role {
                match self {
                    $(Self::$name => operations!(@others $role $($others)?),)+
                }
            }

            /// How it is asked for.
            pub const fn method(self) -> Method {
                match self {
                    $(Self::$name => Method::$method,)+
                }
            }

            /// Its route; `{id}` stands for one segment.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)+
                }
            }

            /// What it does, in a few words.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$name => $about,)+
                }
            }
        }
    };
    (@others $role:ident) => { Role::$role };
    (@others $role:ident $others:ident) => { Role::$others };
}

operations! {
    Submit      Post "/v1/submit"               Submitter                 "Submit jobs, and hear of their end";
    ListJobs    Get  "/v1/jobs"                 Observer                  "List jobs";
    ShowJob     Get  "/v1/jobs/{id}"            Observer                  "Show a job, or wait for its end";
    FollowJob   Get  "/v1/jobs/{id}/follow"     Observer                  "Follow a job to its end";
    CancelJob   Post "/v1/jobs/{id}/cancel"     Submitter others Operator "Cancel a job";
    RetryJob    Post "/v1/jobs/{id}/retry"      Submitter others Operator "Try a job's failed tasks again";
    ListTasks   Get  "/v1/tasks"                Observer                  "List tasks";
    ShowTask    Get  "/v1/tasks/{id}"           Observer                  "Show a task, or wait for its end";
    FollowTask  Get  "/v1/tasks/{id}/follow"    Observer                  "Follow a task to its end";
    ExplainTask Get  "/v1/tasks/{id}/explain"   Observer                  "Say why a task is, or is not, running";
    ReadLogs    Get  "/v1/tasks/{id}/logs"      Observer                  "Read what a task writes";
    ReadResult  Get  "/v1/tasks/{id}/result"    Observer                  "Read a task's result";
    CancelTask  Post "/v1/tasks/{id}/cancel"    Submitter others Operator "Cancel a task";
    RetryTask   Post "/v1/tasks/{id}/retry"     Submitter others Operator "Try a failed task again";
    ListNodes   Get  "/v1/nodes"                Observer                  "List nodes";
    ShowNode    Get  "/v1/nodes/{id}"           Observer                  "Show a node";
    Cordon      Post "/v1/nodes/{id}/cordon"    Operator                  "Give a node no new work";
    Uncordon    Post "/v1/nodes/{id}/uncordon"  Operator                  "Give a node work again";
    Drain       Post "/v1/nodes/{id}/drain"     Operator                  "Empty a node of work";
    ShowLeader  Get  "/v1/leader"               Observer                  "Show who leads";
    Resign      Post "/v1/leader/resign"        Operator                  "Let another voter lead";
    ReadEvents  Get  "/v1/events"               Observer                  "Read or follow what happened in the swarm";
    NodeEvents  Get  "/v1/node-events"          Observer                  "Read what happened on this node";
    ShowStatus  Get  "/v1/status"               Observer                  "Show this node and what it sees";
    ShowStats   Get  "/v1/stats"                Observer                  "Show the swarm in figures";
    Health      Get  "/healthz"                 Observer                  "Hear that the daemon's process answers";
    Readiness   Get  "/readyz"                  Observer                  "Hear whether this node is ready";
    Metrics     Get  "/metrics"                 Observer                  "Read figures in the OpenMetrics format";
    InitMesh    Post "/v1/mesh/init"            Admin                     "Found a swarm on this host";
    JoinMesh    Post "/v1/mesh/join"            Admin                     "Let this host join a swarm";
    LeaveMesh   Post "/v1/mesh/leave"           Admin                     "Let this host leave its swarm for good";
    CreateToken Post "/v1/tokens"               Admin                     "Make a token with which nodes join";
    ListTokens  Get  "/v1/tokens"               Admin                     "List tokens";
    RevokeToken Post "/v1/tokens/{id}/revoke"   Admin                     "Revoke a token";
    CreateUser  Post "/v1/users"                Admin                     "Make a user, or a line with which one logs in";
    ListUsers   Get  "/v1/users"                Operator                  "List users";
    RevokeUser  Post "/v1/users/{id}/revoke"    Admin                     "Close a user out";
    RevokeNode  Post "/v1/nodes/{id}/revoke"    Admin                     "Close a node out for good";
    ShowCa      Get  "/v1/ca"                   Observer                  "Show the authorities";
    RotateCa    Post "/v1/ca/rotate"            Admin                     "Replace an authority";
    CreatePass  Post "/v1/passes"               Admin                     "Make a token that is shown with each request";
    ListSet     Get  "/v1/settings"             Observer                  "List what is set for the whole swarm";
    Set         Post "/v1/settings/{id}"        Admin                     "Set something for the whole swarm";
    PutBlob     Post "/v1/blobs"                Submitter                 "Put a blob: the bytes that the request carries";
    ListBlobs   Get  "/v1/blobs"                Observer                  "List blobs and who holds them";
    ShowBlob    Get  "/v1/blobs/{id}"           Observer                  "Show a blob and who holds it";
    ReadBlob    Get  "/v1/blobs/{id}/bytes"     Submitter                 "Read a blob, wherever it is";
    FetchBlob   Post "/v1/blobs/{id}/fetch"     Submitter                 "Bring a blob to this node";
    PushBlob    Post "/v1/blobs/{id}/push"      Operator                  "Bring a blob to other nodes";
    PinBlob     Post "/v1/blobs/{id}/pin"       Operator                  "Keep a blob on this node";
    UnpinBlob   Post "/v1/blobs/{id}/unpin"     Operator                  "Keep a blob on this node no longer";
    VerifyBlob  Post "/v1/blobs/{id}/verify"    Operator                  "Read a blob of this node again, and heal it";
    ShowStore   Get  "/v1/store"                Observer                  "Show the blobs of this node";
    Collect     Post "/v1/store/gc"             Operator                  "Remove blobs of this node that nobody needs";
}

impl Operation {
    /// The operation that a call of the leader belongs to: what forwards it must be allowed that much.
    pub const fn of(call: &Call) -> Self {
        match call {
            Call::Jobs { .. } => Self::ListJobs,
            Call::Job { .. } => Self::ShowJob,
            Call::CancelJob { .. } => Self::CancelJob,
            Call::Tasks { .. } => Self::ListTasks,
            Call::Task { .. } => Self::ShowTask,
            Call::Explain { .. } => Self::ExplainTask,
            Call::CancelTask { .. } => Self::CancelTask,
            Call::RetryJob { .. } => Self::RetryJob,
            Call::RetryTask { .. } => Self::RetryTask,
            Call::Nodes => Self::ListNodes,
            Call::Node { .. } => Self::ShowNode,
            Call::Schedule { to, .. } => match to {
                crate::ledger::Schedule::Open => Self::Uncordon,
                crate::ledger::Schedule::Cordoned => Self::Cordon,
                crate::ledger::Schedule::Draining => Self::Drain,
            },
            Call::Leader => Self::ShowLeader,
            Call::Resign => Self::Resign,
            Call::Stats => Self::ShowStats,
            Call::Events { .. } => Self::ReadEvents,
            Call::CreateToken(_) => Self::CreateToken,
            Call::Tokens => Self::ListTokens,
            Call::RevokeToken { .. } => Self::RevokeToken,
            Call::CreateUser(_) => Self::CreateUser,
            Call::Users => Self::ListUsers,
            Call::RevokeUser { .. } => Self::RevokeUser,
            Call::Revoke { .. } => Self::RevokeNode,
            Call::Leave { .. } => Self::LeaveMesh,
            Call::Authorities => Self::ShowCa,
            Call::RotateCa(_) => Self::RotateCa,
            Call::CreatePass(_) => Self::CreatePass,
            Call::Settings => Self::ListSet,
            Call::Set { .. } => Self::Set,
            Call::Blobs { .. } => Self::ListBlobs,
            Call::Blob { .. } => Self::ShowBlob,
        }
    }

    /// Whether a path is this operation's.
    pub fn is_at(self, path: &str) -> bool {
        let (mut wanted, mut given) = (self.path().split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given || (wanted.starts_with('{') && !given.is_empty()) => {}
                (Some(_) | None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }
}

/// The job that a call changes; its owner may do so with less than others.
pub const fn job_changed(call: &Call) -> Option<JobId> {
    match call {
        Call::CancelJob { job } | Call::RetryJob { job, .. } => Some(*job),
        Call::CancelTask { task } | Call::RetryTask { task, .. } => Some(task.job),
        Call::Jobs { .. }
        | Call::Job { .. }
        | Call::Tasks { .. }
        | Call::Task { .. }
        | Call::Explain { .. }
        | Call::Nodes
        | Call::Node { .. }
        | Call::Schedule { .. }
        | Call::Leader
        | Call::Resign
        | Call::Stats
        | Call::Events { .. }
        | Call::CreateToken(_)
        | Call::Tokens
        | Call::RevokeToken { .. }
        | Call::CreateUser(_)
        | Call::Users
        | Call::RevokeUser { .. }
        | Call::Revoke { .. }
        | Call::Leave { .. }
        | Call::Authorities
        | Call::RotateCa(_)
        | Call::CreatePass(_)
        | Call::Settings
        | Call::Set { .. }
        | Call::Blobs { .. }
        | Call::Blob { .. } => None,
    }
}

/// The table as a page of documentation (Markdown).
pub fn page() -> String {
    let mut page = String::from(
        "# Routes and roles\n\n\
         Each role may do all that those before it may: observer, submitter, operator, admin. A cell says from which role on\n\
         something is allowed; where a job is somebody else's, the last column counts. Root and the daemon's own user are admin\n\
         at the local socket; members of `[api] group` have `[api] group_role` there.\n\n\
         | Route | Does | Role | Others' |\n|---|---|---|---|\n",
    );
    for operation in Operation::ALL {
        let (needs, others) = (operation.needs(), operation.needs_for_others());
        let others = if needs == others { "" } else { others.word() };
        page += &format!("| `{} {}` | {} | {needs} | {others} |\n", operation.method().word(), operation.path(), operation.about());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, role: Role) -> Caller {
        Caller { name: name.into(), role, how: How::Certificate }
    }

    #[test]
    fn roles_are_a_ladder_and_read_back_what_they_print() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).expect("a word"), format!("\"{role}\""));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn every_operation_has_a_route_of_its_own() {
        for (n, a) in Operation::ALL.iter().enumerate() {
            assert!(a.needs() <= a.needs_for_others(), "{a:?}");
            assert!(a.is_at(a.path()), "{a:?}");
            for b in &Operation::ALL[n + 1..] {
                assert!((a.method(), a.path()) != (b.method(), b.path()), "{a:?} and {b:?}");
            }
        }
        assert!(Operation::ShowJob.is_at("/v1/jobs/j1"));
        for other in ["/v1/jobs", "/v1/jobs/", "/v1/jobs/j1/cancel", "/v1/nodes/j1"] {
            assert!(!Operation::ShowJob.is_at(other), "{other}");
        }
    }

    #[test]
    fn what_changes_anything_needs_more_than_an_observer() {
        for operation in Operation::ALL.iter().filter(|operation| operation.method() == Method::Post) {
            assert!(operation.needs() > Role::Observer, "{operation:?}");
        }
    }

    #[test]
    fn a_submitter_cancels_its_own_and_an_operator_anybodys() {
        let (alice, bob) = (caller("alice", Role::Submitter), caller("bob", Role::Operator));
        assert_eq!(alice.may_of(Operation::CancelJob, JobId(3), "alice"), Ok(()));
        let problem = alice.may_of(Operation::CancelJob, JobId(3), "carol").expect_err("not hers");
        assert_eq!(problem.code, Code::Denied);
        assert_eq!(problem.why, "j3 is carol's; 'alice' is a submitter, and this needs an operator");
        assert_eq!(bob.may_of(Operation::CancelJob, JobId(3), "carol"), Ok(()));
        // what somebody submitted before they became an observer is no longer theirs to change
        let fallen = caller("alice", Role::Observer);
        assert!(fallen.may_of(Operation::CancelJob, JobId(3), "alice").is_err());
    }
}
