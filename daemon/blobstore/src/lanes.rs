//! Where what blocks is done.

/// How the store's work is done for those who must not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// On threads that tokio keeps for it.
    Threads,
    /// Here and now: in a simulation, where no time passes meanwhile.
    Inline,
}

impl Lanes {
    /// Does it, and answers.
    ///
    /// # Panics
    /// When `work` does.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}
