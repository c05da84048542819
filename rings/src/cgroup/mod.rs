//! Control groups, v1 and v2.
