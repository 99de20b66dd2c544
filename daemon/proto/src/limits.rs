//! Every bound in one place. Each is tested at n-1, n and n+1 where it is enforced.

use std::time::Duration;

/// One frame on a control stream, its header excluded.
pub const CONTROL_FRAME: usize = 1 << 20;
/// One gossip datagram. QUIC's 1,200 byte packet leaves 1,162; the rest is reserve for a path that adds a header.
pub const GOSSIP_PACKET: usize = 1_100;
/// Bytes of a host's own configuration file. TOML's reader makes a table for each dot of a key, so this bounds memory too.
pub const CONFIG: u64 = 256 << 10;
/// Nodes that are named for one thing, where somebody asks why a task does not run.
pub const EXPLAINED: usize = 8;
/// Nodes in a swarm; the next one is refused.
pub const MEMBERS: usize = 10_000;
/// What a node says of itself, encoded; twice what its config allows.
pub const NODE_META: usize = 32 << 10;
/// A job's spec, encoded: argv, env, stdin and labels count.
pub const TASK_SPEC: usize = 256 << 10;
/// Bytes of standard input, and of all items of an array, that travel inside the submission.
pub const INLINE_INPUT: usize = 64 << 10;
/// Head of each output stream that is kept in the ledger.
pub const INLINE_RESULT: usize = 1 << 10;
/// Tasks that are open and materialised (assigned, or waiting for a retry) over all jobs.
pub const OPEN_TASKS: usize = 1_000_000;
/// Tasks of one array.
pub const ARRAY: u32 = 10_000_000;
/// Tasks of one job that lives in the leader's memory: how they ended goes into one entry of the log.
pub const ASYNC_TASKS: u32 = 64;
/// Jobs in the leader's memory, those included that have ended and are not in the log yet.
pub const ASYNC_JOBS: usize = 65_536;
/// Numbers that a leader reserves for them at once.
pub const ASYNC_NUMBERS: u32 = 8_192;
/// Jobs that have not ended.
pub const OPEN_JOBS: usize = 1_000_000;
/// Idempotency keys remembered.
pub const KEYS: usize = 4_000_000;
/// How long an idempotency key is remembered.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of one idempotency key, of a submitter's name, and of a job's name.
pub const NAME: usize = 128;
/// Environment variables of one task.
pub const ENV_VARS: usize = 128;
/// One environment variable, name and value.
pub const ENV_VAR: usize = 4 << 10;
/// One line of a list of items: it becomes an environment variable.
pub const ITEM: usize = ENV_VAR;
/// All of argv.
pub const ARGV: usize = 128 << 10;
/// Output of one stream held in memory for live readers.
pub const LIVE_OUTPUT: usize = 1 << 20;
/// Output of one stream kept on the worker's disk. Of standard output it may be more until it is a blob.
pub const KEPT_OUTPUT: u64 = 10 << 20;
/// Standard output of one task that is kept, unless its node's config says otherwise.
pub const KEPT_STDOUT: u64 = 1 << 30;
/// Labels of one node or of one job's constraints.
pub const LABELS: usize = 64;
/// Named resources of one node or one request.
pub const NAMED_RESOURCES: usize = 64;
/// Attempts a worker may hold beyond those that run.
pub const PREFETCH: u32 = 64;
/// One log entry, and one append frame.
pub const LOG_ENTRY: usize = 1 << 20;
/// QUIC handshakes in flight on an endpoint.
pub const HANDSHAKES: usize = 256;
/// How long a handshake, and the Hello after it, may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Streams in each direction of a connection.
pub const STREAMS: u32 = 64;
/// Streams at once of a peer that is not admitted yet.
pub const UNADMITTED_STREAMS: usize = 4;
/// Connections of one endpoint, whoever dialled.
pub const CONNECTIONS: usize = 4_096;
/// Connections of one endpoint whose peers are not admitted yet.
pub const UNADMITTED: usize = 64;
/// Connections of one plane that are kept to one peer: both sides may dial at once, and a restarted peer dials again.
pub const CONNECTIONS_TO_ONE: usize = 4;
/// The Hello of a connection, and the answer to it.
pub const HELLO: usize = 4 << 10;
/// A peer's certificate, encoded.
pub const CERTIFICATE: usize = 4 << 10;
/// Datagrams of one connection that wait to be sent, and that wait to be read, in bytes.
pub const DATAGRAMS: usize = 256 << 10;
/// Receive window of a control connection.
pub const CONTROL_WINDOW: u32 = 16 << 20;
/// Receive window of a bulk connection.
pub const BULK_WINDOW: u32 = 64 << 20;
/// A connection that is silent this long is dead.
pub const IDLE: Duration = Duration::from_secs(15);
/// Keep-alive of a connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// HTTP request head.
pub const HTTP_HEADER: usize = 16 << 10;
/// HTTP request body that is not a stream.
pub const HTTP_BODY: usize = 1 << 20;
/// One line of a streamed body. Base64 and JSON quoting of a full spec must fit.
pub const HTTP_LINE: usize = 256 << 10;
/// Connections to the local API; the next one is told `busy`.
pub const API_CONNECTIONS: usize = 1_024;
/// Requests a second of one caller of the API, and how many at once; the next one is told `busy`. A stream of submissions is one.
pub const API_REQUESTS: (u32, u32) = (1_000, 2_000);
/// Questions a second that one peer may ask on the control plane, and how many at once: it asks for all of its own clients.
pub const PEER_REQUESTS: (u32, u32) = (5_000, 10_000);
/// Submissions of one stream whose answers were not all sent; the next one is told `busy`.
pub const SUBMIT_UNANSWERED: usize = 1_000_000;
/// Job events a ledger remembers; older ones are gone, and readers are told where it begins.
pub const EVENTS: usize = 65_536;
/// A node's own recent events (connections, suspicions, warnings).
pub const NODE_EVENTS: usize = 1_024;
/// Tasks in one page of a listing.
pub const PAGE: usize = 1_000;
/// Snapshot of the ledger.
pub const SNAPSHOT: usize = 1 << 30;
/// Tokens that have not ended; the next one is refused.
pub const TOKENS: usize = 1_024;
/// Uses of one token.
pub const TOKEN_USES: u32 = 10_000;
/// The longest life of a token.
pub const TOKEN_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Tokens that are shown with requests: every node knows them all.
pub const PASSES: usize = 256;
/// Users; as many revoked ones are remembered.
pub const USERS: usize = 1_024;
/// Machines on which one user is logged in.
pub const USER_KEYS: usize = 32;
/// TLS connections of the API whose handshake or first request is under way.
pub const API_HANDSHAKES: usize = 64;
/// Bytes of a blob.
pub const BLOB: u64 = 64 << 30;
/// Bytes of one segment of a blob, but for its last one, which may be shorter.
pub const SEGMENT: u32 = 1 << 20;
/// Files of one manifest.
pub const FILES: usize = 1 << 17;
/// A manifest's own bytes.
pub const MANIFEST: usize = 32 << 20;
/// Bytes of a path in a manifest.
pub const PATH: usize = 1_024;
/// Paths that a job declares as its outputs.
pub const OUTPUTS: usize = 256;
/// Blobs times holders that a leader remembers.
pub const HOLDINGS: usize = 1_000_000;
/// Ranges of segments in one request for parts of a blob.
pub const BLOB_RANGES: usize = 64;
