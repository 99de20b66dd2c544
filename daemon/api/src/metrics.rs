//! `/metrics` in the OpenMetrics text format. Made afresh for each scrape from [`Stats`] and [`Status`]: nothing is counted twice.
//!
//! Without a leader the figures of the swarm are left out, those of this node stay, and `swarm_leader_known` is 0.

use axum::response::{IntoResponse, Response};
use http::header;
use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use swarm_proto::api::{Call, Phase, Reply, Stats, Status};

use crate::{refusal::Refusal, router::Api};

type Value = Gauge<f64, std::sync::atomic::AtomicU64>;

pub(crate) async fn metrics(api: Api) -> Result<Response, Refusal> {
    let mut registry = Registry::with_prefix("swarm");
    let status = api.backend.status();
    let stats = match api.ask(Call::Stats).await {
        Ok(Reply::Stats(stats)) => Some(stats),
        Ok(_) | Err(_) => None,
    };
    of_this_node(&mut registry, &status);
    if let Some(stats) = stats {
        of_the_swarm(&mut registry, &stats);
    }
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| swarm_proto::Problem::new(swarm_proto::Code::Internal, "the metrics cannot be written", e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Value::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

#[expect(clippy::cast_precision_loss, reason = "the format has no integers wider than a double's 53 bits")]
const fn number(n: u64) -> f64 {
    n as f64
}

fn of_this_node(registry: &mut Registry, status: &Status) {
    gauge(registry, "up_seconds", "Time since this daemon started", number(status.up_ms) / 1_000.0);
    gauge(registry, "ready", "Whether this node is ready", f64::from(u8::from(status.phase == Phase::Ready)));
    gauge(registry, "voter", "Whether this node votes", f64::from(u8::from(status.is_voter)));
    gauge(registry, "leader_known", "Whether this node knows a leader", f64::from(u8::from(status.leader.is_some())));
    gauge(registry, "term", "The term this node is in", number(status.term.0));
    gauge(registry, "log_written_bytes", "Bytes this daemon has written to its log", number(status.log_written));
    gauge(registry, "blobs_given_bytes", "Bytes of blobs this daemon has given to other nodes", number(status.blobs_given));
    gauge(registry, "blobs_taken_bytes", "Bytes of blobs this daemon has taken from other nodes", number(status.blobs_taken));
    gauge(registry, "applied_index", "The last log entry this node applied", number(status.log_index.0));
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    gauge(registry, "peers", "Peers this node knows", number(status.peers.len() as u64));
    gauge(registry, "peers_connected", "Peers this node is connected to", number(connected as u64));
}

fn of_the_swarm(registry: &mut Registry, stats: &Stats) {
    gauge(registry, "nodes", "Nodes that belong to the swarm", number(stats.nodes));
    gauge(registry, "nodes_online", "Nodes that are alive", number(stats.nodes_online));
    gauge(registry, "nodes_busy", "Nodes that hold attempts", number(stats.nodes_busy));
    gauge(registry, "jobs_open", "Jobs that have not ended", number(stats.jobs_open));
    gauge(registry, "jobs_ended", "Jobs that have ended", number(stats.jobs_ended));
    gauge(registry, "results_refused", "Results of attempts that were no longer current", number(stats.results_refused));
    gauge(registry, "tasks_per_second", "Tasks ended a second, over the last ten seconds", stats.throughput);
    gauge(registry, "log_index", "The last log entry the leader applied", number(stats.log_index.0));
    let tasks = Family::<[(&'static str, &'static str); 1], Value>::default();
    for (state, count) in [
        ("pending", stats.tasks_pending),
        ("assigned", stats.tasks_assigned),
        ("succeeded", stats.tasks_succeeded),
        ("failed", stats.tasks_failed),
        ("cancelled", stats.tasks_cancelled),
        ("lost", stats.tasks_lost),
    ] {
        tasks.get_or_create(&[("state", state)]).set(number(count));
    }
    registry.register("tasks", "Tasks by state", tasks);
    gauge(registry, "tasks_running", "Tasks whose attempt is known to run", number(stats.tasks_running));
}
