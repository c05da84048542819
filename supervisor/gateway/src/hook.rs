//! Where faults and recorders sit on a flow.
