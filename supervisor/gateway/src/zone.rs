//! Which zone an address is in: public, or one that needs the operator's word.
