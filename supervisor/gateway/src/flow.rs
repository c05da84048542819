//! One connection or request on its way through, and what is told about it.
