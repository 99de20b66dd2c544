//! The little grammars of flags and job files: what a word means, or why it means nothing.
//!
//! Every parser takes any text and answers with a value or with the end of a sentence; none of them panics.

pub mod array;
pub mod pair;
pub mod retries;
pub mod source;
pub mod span;
