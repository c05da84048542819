//! Names are resolved here and nowhere else, within bounds.
