//! Loaders on a simulated kernel, in virtual time.
