//! What every verb works with: the daemon and the place for data. And the patience that waiting needs.

use std::{future::Future, time::Duration};

use swarm_client::{Client, Place, Remote};
use swarm_proto::{Code, Problem};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    args::Global,
    failure::{Failure, Outcome},
    output::Out,
};

/// How long a wait goes on without a leader or a daemon: a leader exists within 10 s, a daemon restarts within a lease.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries, when the daemon does not say.
pub const AGAIN: Duration = Duration::from_millis(200);

/// One call of swarmctl.
pub struct Session {
    pub client: Client,
    pub out: Out,
}

impl Session {
    /// Connects to the daemon that was named, or to this host's own.
    pub async fn open(global: &Global, out: Out) -> Outcome<Self> {
        Ok(Self { client: Client::connect_to(place(global)?).await?, out })
    }
}

/// Where the daemon is. What was typed counts more than what the environment says, a socket that was typed more than its node.
pub fn place(global: &Global) -> Result<Place, Problem> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let node = global.node.clone().or_else(|| variable("SWARM_NODE").filter(|_| global.socket.is_none()));
    let Some(node) = node else { return Ok(Place::Socket(global.socket.clone().unwrap_or_else(swarm_client::default_socket))) };
    let dir = swarm_client::credentials_dir();
    let remote = Remote::find(&node, variable("SWARM_TOKEN").as_deref(), dir.as_deref())?;
    Ok(Place::Mesh(Box::new(remote)))
}

/// Whether trying again may help, and cannot do a thing twice if what is tried only reads or carries a key.
pub const fn is_passing(problem: &Problem) -> bool {
    matches!(problem.code, Code::NoLeader | Code::NoDaemon | Code::Busy | Code::UnknownOutcome | Code::NotReady)
}

/// When to come back.
pub fn pause(problem: &Problem) -> Duration {
    problem.retry_after_ms.map_or(AGAIN, |ms| Duration::from_millis(ms).clamp(Duration::from_millis(1), PATIENCE))
}

/// Asks again while the answer is a passing problem, for [`PATIENCE`] at most. Only for what may be asked twice.
pub async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Problem>) -> Result<T, Problem> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(problem) if is_passing(&problem) && Instant::now() < until => sleep(pause(&problem)).await,
            answer => return answer,
        }
    }
}

/// Patience with something that gets on: its measure is [`PATIENCE`] since it last did.
#[derive(Default)]
pub struct Endurance {
    until: Option<Instant>,
}

impl Endurance {
    /// It gets on.
    pub fn refresh(&mut self) {
        self.until = None;
    }

    /// Whether it broke off and has not got on since.
    pub const fn is_tried(&self) -> bool {
        self.until.is_some()
    }

    /// Waits before it is tried again.
    ///
    /// # Errors
    /// The problem itself, where trying again does not help or has been tried for long enough.
    pub async fn outlast(&mut self, problem: Problem) -> Result<(), Problem> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        if !is_passing(&problem) || Instant::now() >= until {
            return Err(problem);
        }
        sleep(pause(&problem)).await;
        Ok(())
    }
}

/// `wait`, for `limit` at most; `what` says what did not happen by then.
pub async fn within<T>(limit: Option<Duration>, what: &str, wait: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let Some(limit) = limit else { return wait.await };
    match timeout(limit, wait).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("that took longer than {}", humantime::format_duration(limit));
            Err(Problem::new(Code::Timeout, what, why).into())
        }
    }
}

/// `wait`, unless Ctrl-C comes first; `note` says what goes on without us.
pub async fn unless_interrupted<T>(note: impl FnOnce() -> String, wait: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        biased;
        answer = wait => answer,
        () = interrupt() => Err(Failure::Interrupted(note())),
    }
}

/// Returns at the next Ctrl-C; never where there is none to hear.
pub async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// An idempotency key that nobody else will think of.
pub fn random_key() -> Outcome<String> {
    use rand::TryRngCore as _;
    let mut bytes = [0_u8; 16];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| Problem::new(Code::Internal, "the host gives no randomness", e.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
    }

    #[test]
    fn a_passing_problem_is_waited_out() {
        let asked = Cell::new(0);
        let answer = block_on(patiently(async || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(Problem::new(Code::NoLeader, "", "")) } else { Ok(asked.get()) }
        }));
        assert_eq!(answer, Ok(4));
    }

    #[test]
    fn patience_ends_and_other_problems_need_none() {
        let asked = Cell::new(0);
        let ask = async |code| {
            asked.set(asked.get() + 1);
            Err::<(), _>(Problem::new(code, "", ""))
        };
        assert_eq!(block_on(patiently(async || ask(Code::NotFound).await)).unwrap_err().code, Code::NotFound);
        assert_eq!(asked.get(), 1);
        assert_eq!(block_on(patiently(async || ask(Code::NoLeader).await)).unwrap_err().code, Code::NoLeader);
        assert!((50..100).contains(&asked.get()), "{}", asked.get());
    }

    #[test]
    fn what_gets_on_is_endured_for_longer() {
        block_on(async {
            let (mut endurance, away) = (Endurance::default(), || Problem::new(Code::NoDaemon, "", ""));
            let began = Instant::now();
            for _ in 0..4 {
                assert!(!endurance.is_tried());
                while began.elapsed().as_secs() % 11 < 10 {
                    endurance.outlast(away()).await.unwrap();
                    assert!(endurance.is_tried());
                }
                endurance.refresh();
                sleep(Duration::from_secs(1)).await;
            }
            let last = Instant::now();
            while endurance.outlast(away()).await.is_ok() {}
            assert_eq!(last.elapsed().as_secs(), PATIENCE.as_secs());
            assert!(Endurance::default().outlast(Problem::new(Code::NotFound, "", "")).await.is_err());
        });
    }

    #[test]
    fn a_wait_that_is_too_long_says_so() {
        let failure = block_on(within(Some(Duration::from_secs(5)), "j1 has not ended", std::future::pending::<Outcome>())).unwrap_err();
        assert_eq!(failure.exit_code(), 124);
        let Failure::Problem(problem) = failure else { panic!("{failure:?}") };
        insta::assert_snapshot!(problem, @"
error: j1 has not ended
  why: that took longer than 5s
");
    }

    #[test]
    fn keys_differ() {
        let (a, b) = (random_key().unwrap(), random_key().unwrap());
        assert!(a.len() == 32 && a != b, "{a} {b}");
    }
}
