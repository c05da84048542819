//! What can go wrong here, one variant per thing that a caller can act on.
