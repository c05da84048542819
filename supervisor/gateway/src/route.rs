//! Model routes: a plain base URL inside, the key and TLS outside.
