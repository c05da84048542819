//! Connections to what was decided: the address that was checked is the address that is connected.
