//! Requests, tokens, money, concurrency: reserved before a request leaves, settled after.
