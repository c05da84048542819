//! The forward proxy: HTTP/1.1 CONNECT and absolute-form.
