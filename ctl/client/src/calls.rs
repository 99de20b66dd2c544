//! Every route that has one answer.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use swarm_proto::{
    Cursor, JobId, Problem, TaskId, TokenId,
    api::{
        Belonging, Choices, Explain, JobView, JoinRequest, LeaderView, NodeEvent, NodeView, PassRequest, RootView, RotateRequest,
        SettingView, Stats, Status, TaskView, TokenLine, TokenRequest, TokenView, UserRequest, UserView,
    },
    http::{Accepted, RetryRequest, SetRequest},
    ledger::{Schedule, TaskState},
    peer::EventPage,
};

use crate::{Client, connection::Ask};

/// Which jobs to list: newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobsQuery {
    /// Those older than this one.
    pub before: Option<JobId>,
    /// At most so many, up to `limits::PAGE`; `None`: as many as the daemon gives by itself.
    pub limit: Option<u32>,
    /// Only those that have not ended.
    pub open_only: bool,
}

/// Which tasks to list: by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TasksQuery {
    pub job: Option<JobId>,
    pub state: Option<TaskState>,
    /// Those after this one.
    pub after: Option<TaskId>,
    /// At most so many, up to `limits::PAGE`; `None`: as many as the daemon gives by itself.
    pub limit: Option<u32>,
}

/// Writes `?a=1&b=2`; values need no escaping.
struct Path(String);

impl Path {
    fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    fn with(mut self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        if let Some(value) = value {
            let sign = if self.0.contains('?') { '&' } else { '?' };
            let _ = write!(self.0, "{sign}{name}={value}");
        }
        self
    }
}

/// A name as one segment of a path (RFC 3986, unreserved characters as they are).
fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && name.bytes().any(|b| b != b'.')) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

const fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "pending",
        TaskState::Assigned => "assigned",
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Lost => "lost",
    }
}

/// Every method fails with what the daemon refused, or with `Code::NoDaemon` when there is none.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    async fn order(&self, path: String) -> Result<(), Problem> {
        self.bytes(&Ask::post(path, Bytes::new())).await.map(drop)
    }

    async fn retry(&self, path: String, key: Option<&str>) -> Result<Accepted, Problem> {
        let body = serde_json::to_vec(&RetryRequest { key: key.map(str::to_owned) }).expect("a string makes JSON");
        self.json(&Ask::post(path, body.into())).await
    }

    pub async fn jobs(&self, query: JobsQuery) -> Result<Vec<JobView>, Problem> {
        let path = Path::new("/v1/jobs").with("before", query.before).with("limit", query.limit);
        self.json(&Ask::get(path.with("state", query.open_only.then_some("open")).0)).await
    }

    pub async fn job(&self, job: JobId) -> Result<JobView, Problem> {
        self.json(&Ask::get(format!("/v1/jobs/{job}"))).await
    }

    /// The job when it has ended, or as it is after `limit`, at most a day.
    pub async fn wait_job(&self, job: JobId, limit: Duration) -> Result<JobView, Problem> {
        self.json(&Ask::get(format!("/v1/jobs/{job}?wait={}", limit.as_secs_f64()))).await
    }

    pub async fn cancel_job(&self, job: JobId) -> Result<(), Problem> {
        self.order(format!("/v1/jobs/{job}/cancel")).await
    }

    /// A new job of those of its tasks that did not succeed.
    pub async fn retry_job(&self, job: JobId, key: Option<&str>) -> Result<Accepted, Problem> {
        self.retry(format!("/v1/jobs/{job}/retry"), key).await
    }

    pub async fn tasks(&self, query: TasksQuery) -> Result<Vec<TaskView>, Problem> {
        let path = Path::new("/v1/tasks").with("job", query.job).with("state", query.state.map(state_word));
        self.json(&Ask::get(path.with("after", query.after).with("limit", query.limit).0)).await
    }

    pub async fn task(&self, task: TaskId) -> Result<TaskView, Problem> {
        self.json(&Ask::get(format!("/v1/tasks/{task}"))).await
    }

    /// The task when it has ended, or as it is after `limit`, at most a day.
    pub async fn wait_task(&self, task: TaskId, limit: Duration) -> Result<TaskView, Problem> {
        self.json(&Ask::get(format!("/v1/tasks/{task}?wait={}", limit.as_secs_f64()))).await
    }

    /// Why it is, or is not, running.
    pub async fn explain(&self, task: TaskId) -> Result<Explain, Problem> {
        self.json(&Ask::get(format!("/v1/tasks/{task}/explain"))).await
    }

    /// The whole standard output of a task that has ended.
    pub async fn result(&self, task: TaskId) -> Result<Bytes, Problem> {
        self.bytes(&Ask::get(format!("/v1/tasks/{task}/result"))).await
    }

    pub async fn cancel_task(&self, task: TaskId) -> Result<(), Problem> {
        self.order(format!("/v1/tasks/{task}/cancel")).await
    }

    /// A new job of this one task.
    pub async fn retry_task(&self, task: TaskId, key: Option<&str>) -> Result<Accepted, Problem> {
        self.retry(format!("/v1/tasks/{task}/retry"), key).await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeView>, Problem> {
        self.json(&Ask::get("/v1/nodes")).await
    }

    /// By id (`n3`) or name.
    pub async fn node(&self, node: &str) -> Result<NodeView, Problem> {
        self.json(&Ask::get(format!("/v1/nodes/{}", segment(node)))).await
    }

    /// Cordons, uncordons or drains a node.
    pub async fn schedule(&self, node: &str, to: Schedule) -> Result<(), Problem> {
        let verb = match to {
            Schedule::Open => "uncordon",
            Schedule::Cordoned => "cordon",
            Schedule::Draining => "drain",
        };
        self.order(format!("/v1/nodes/{}/{verb}", segment(node))).await
    }

    /// Closes a node out for good, by id or name.
    pub async fn revoke_node(&self, node: &str) -> Result<(), Problem> {
        self.order(format!("/v1/nodes/{}/revoke", segment(node))).await
    }

    async fn post_json<T: serde::de::DeserializeOwned>(&self, path: &str, body: &impl serde::Serialize) -> Result<T, Problem> {
        let body = serde_json::to_vec(body).expect("plain data makes JSON");
        self.json(&Ask::post(path, body.into())).await
    }

    /// Founds a swarm on the daemon's host.
    pub async fn mesh_init(&self, choices: &Choices) -> Result<Belonging, Problem> {
        self.post_json("/v1/mesh/init", choices).await
    }

    /// Lets the daemon's host join the swarm of a token.
    pub async fn mesh_join(&self, request: &JoinRequest) -> Result<Belonging, Problem> {
        self.post_json("/v1/mesh/join", request).await
    }

    /// Lets the daemon's host leave its swarm for good.
    pub async fn mesh_leave(&self) -> Result<Belonging, Problem> {
        self.json(&Ask::post("/v1/mesh/leave", Bytes::new())).await
    }

    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenLine, Problem> {
        self.post_json("/v1/tokens", request).await
    }

    pub async fn tokens(&self) -> Result<Vec<TokenView>, Problem> {
        self.json(&Ask::get("/v1/tokens")).await
    }

    pub async fn revoke_token(&self, token: TokenId) -> Result<(), Problem> {
        self.order(format!("/v1/tokens/{token}/revoke")).await
    }

    /// Makes a user, and a line with which that user logs in.
    pub async fn create_user(&self, request: &UserRequest) -> Result<TokenLine, Problem> {
        self.post_json("/v1/users", request).await
    }

    pub async fn users(&self) -> Result<Vec<UserView>, Problem> {
        self.json(&Ask::get("/v1/users")).await
    }

    pub async fn revoke_user(&self, name: &str) -> Result<(), Problem> {
        self.order(format!("/v1/users/{}/revoke", segment(name))).await
    }

    pub async fn authorities(&self) -> Result<Vec<RootView>, Problem> {
        self.json(&Ask::get("/v1/ca")).await
    }

    pub async fn rotate_ca(&self, request: &RotateRequest) -> Result<Vec<RootView>, Problem> {
        self.post_json("/v1/ca/rotate", request).await
    }

    pub async fn leader(&self) -> Result<LeaderView, Problem> {
        self.json(&Ask::get("/v1/leader")).await
    }

    /// The leader hands over.
    pub async fn resign(&self) -> Result<(), Problem> {
        self.order("/v1/leader/resign".into()).await
    }

    /// One page of job events: those after a cursor, and where the record begins.
    pub async fn event_page(&self, after: Option<Cursor>, limit: Option<u32>) -> Result<EventPage, Problem> {
        self.json(&Ask::get(Path::new("/v1/events").with("after", after).with("limit", limit).0)).await
    }

    /// The daemon's own events with a higher number than `after`.
    pub async fn node_events(&self, after: u64) -> Result<Vec<NodeEvent>, Problem> {
        self.json(&Ask::get(format!("/v1/node-events?after={after}"))).await
    }

    /// The daemon that is spoken to, and what it sees. Needs no leader.
    pub async fn status(&self) -> Result<Status, Problem> {
        self.json(&Ask::get("/v1/status")).await
    }

    /// What can be set for the whole swarm, and to what it is.
    pub async fn settings(&self) -> Result<Vec<SettingView>, Problem> {
        self.json(&Ask::get("/v1/settings")).await
    }

    /// Sets something for the whole swarm; `None`: each host's own file counts again.
    pub async fn set(&self, key: &str, value: Option<&str>) -> Result<(), Problem> {
        let body = serde_json::to_vec(&SetRequest { value: value.map(str::to_owned) }).expect("a string makes JSON");
        self.bytes(&Ask::post(format!("/v1/settings/{}", segment(key)), body.into())).await.map(drop)
    }

    /// A token that is shown with each request.
    pub async fn create_pass(&self, request: &PassRequest) -> Result<TokenLine, Problem> {
        let body = serde_json::to_vec(request).expect("words make JSON");
        self.json(&Ask::post("/v1/passes", body.into())).await
    }

    pub async fn stats(&self) -> Result<Stats, Problem> {
        self.json(&Ask::get("/v1/stats")).await
    }

    /// Whether the daemon's process answers.
    pub async fn healthy(&self) -> Result<(), Problem> {
        self.bytes(&Ask::get("/healthz")).await.map(drop)
    }

    /// Whether the daemon is ready; `Code::NotReady` says what it waits for.
    pub async fn ready(&self) -> Result<(), Problem> {
        self.bytes(&Ask::get("/readyz")).await.map(drop)
    }

    /// Figures in the `OpenMetrics` text format.
    pub async fn metrics(&self) -> Result<String, Problem> {
        let body = self.bytes(&Ask::get("/metrics")).await?;
        String::from_utf8(body.into()).map_err(|e| Problem::unreadable("the metrics cannot be understood", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_segment_and_ids_stay_readable() {
        assert_eq!(segment("n3"), "n3");
        assert_eq!(segment("pi.home-2"), "pi.home-2");
        assert_eq!(segment("a/b?c d"), "a%2Fb%3Fc%20d");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("é"), "%C3%A9");
    }

    #[test]
    fn a_query_has_only_what_was_asked() {
        assert_eq!(Path::new("/x").with("a", None::<u8>).with("b", Some(1)).with("c", Some("d")).0, "/x?b=1&c=d");
    }
}
