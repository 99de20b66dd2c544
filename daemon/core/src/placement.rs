//! Which node next, and a reason for every node passed over.
