//! An agent's own port, shown to the host: the listener outside, the connection made inside.
