//! Hosts as clients spell them, in one spelling: a name or an address, never text.
