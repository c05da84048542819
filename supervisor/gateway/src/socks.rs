//! SOCKS5 with remote names, for what speaks no HTTP.
