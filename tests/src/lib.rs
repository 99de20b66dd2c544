//! Promises of the README and of the design, as tests against real processes. Everything is in `tests/`; this library is empty.
