//! How a call of swarmctl can end other than well, and the exit code of each. Printed in one place: [`crate::main`].

use std::io;

use swarm_proto::{Code, Problem};

/// Own failures of `run`, whose other codes are the task's.
pub const RUN_FAILED: u8 = 125;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// The asked thing failed, and the data on stdout says how.
pub const FAILED: u8 = 1;

/// Why swarmctl does not exit with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Told in three lines.
    Problem(Box<Problem>),
    /// Said already: by the data, or by the task itself.
    Code(u8),
    /// Ctrl-C; what goes on without us, for the person who pressed it.
    Interrupted(String),
    /// Whoever read our output went away. That is theirs to decide, so it is no error.
    NobodyReads,
}

/// Every verb answers with this.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// What the process ends with.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Problem(problem) => problem.code.exit_code(),
            Self::Code(code) => *code,
            Self::Interrupted(_) => INTERRUPTED,
            Self::NobodyReads => 0,
        }
    }

    /// The same under `run`: 2, 124 and 130 stay, the task's own code too; all else is 125.
    pub const fn run_exit_code(&self) -> u8 {
        match self {
            Self::Problem(problem) => match problem.code.exit_code() {
                code @ (2 | 124) => code,
                _ => RUN_FAILED,
            },
            Self::Code(_) | Self::Interrupted(_) | Self::NobodyReads => self.exit_code(),
        }
    }

    /// Something that was typed cannot be meant.
    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, what, why).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Of writing to stdout: every other I/O names its resource in a [`Problem`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::NobodyReads;
        }
        Problem::new(Code::Internal, "the output cannot be written", error.to_string()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_design() {
        let of = |code| Failure::from(Problem::new(code, "", "")).exit_code();
        assert_eq!(
            [Code::BadRequest, Code::NotFound, Code::Denied, Code::NoDaemon, Code::NoLeader, Code::Unrunnable, Code::Timeout].map(of),
            [2, 3, 4, 5, 6, 7, 124]
        );
        assert_eq!([Code::KeyConflict, Code::Conflict, Code::Busy, Code::UnknownOutcome, Code::Internal].map(of), [1; 5]);
        assert_eq!(Failure::Interrupted(String::new()).exit_code(), 130);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }

    #[test]
    fn run_keeps_its_own_codes_apart_from_the_tasks() {
        let of = |code| Failure::from(Problem::new(code, "", "")).run_exit_code();
        assert_eq!([Code::BadRequest, Code::Timeout].map(of), [2, 124]);
        assert_eq!([Code::NotFound, Code::Denied, Code::NoDaemon, Code::NoLeader, Code::Unrunnable, Code::Busy].map(of), [125; 6]);
        assert_eq!(Failure::Code(3).run_exit_code(), 3);
        assert_eq!(Failure::Interrupted(String::new()).run_exit_code(), 130);
    }
}
