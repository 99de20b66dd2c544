//! Pages that belong to no one module.

#[doc = include_str!("docs/cost.md")]
pub mod cost {}
