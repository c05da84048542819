//! Seccomp filters of the rings.
