//! The gateway as the supervisor holds it: agents, their policies of now, what is open under which.
