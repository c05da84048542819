//! Plain TCP ways out: one listener, one named target.
