//! The ClientHello of a tunnel, read within bounds: which name it asks for, and whether it hides another.
