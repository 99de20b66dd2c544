//! swarmd
