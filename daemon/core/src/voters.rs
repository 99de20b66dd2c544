//! voters
