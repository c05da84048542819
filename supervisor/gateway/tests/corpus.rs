//! Requests that two readers could take for two things, or that no honest client sends, each with what must come back.
//!
//! `{up}` is the destination that the policy allows, `{port}` its port. Behind each refused one `malformed` puts a whole good
//! request for `/smuggled`: whoever misreads where the first one ends passes it on.

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// This status, and the destination saw nothing.
    Refuse(u16),
    /// No answer: the connection is closed, and the destination saw nothing.
    Close,
    /// It passes, and the destination saw it in one reading: this request line, this body.
    Pass(&'static str, &'static str),
}

use Must::{Close, Pass, Refuse};

/// Name, bytes, what must come.
pub(crate) type Case = (&'static str, &'static str, Must);

/// Where a body ends.
pub(crate) const FRAMING: &[Case] = &[
    (
        "two lengths that differ",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "two lengths in one field",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3, 4\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "the same length twice in one field",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3, 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "the same length twice",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Pass("POST / HTTP/1.1", "abc"),
    ),
    ("a length with a sign", "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: +3\r\n\r\nabc", Refuse(400)),
    ("a negative length", "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: -1\r\n\r\n", Refuse(400)),
    (
        "a length in hexadecimal",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 0x3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a length with a fraction",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3.0\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a length with a space inside",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 1 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a length that is no number",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: abc\r\n\r\nabc",
        Refuse(400),
    ),
    ("an empty length", "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: \r\n\r\nabc", Refuse(400)),
    (
        "a length beyond 64 bits",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a length at 64 bits",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 18446744073709551615\r\n\r\nabc",
        Refuse(431),
    ),
    (
        "length, then chunked",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Pass("POST / HTTP/1.1", ""),
    ),
    (
        "chunked, then length",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Pass("POST / HTTP/1.1", "abc"),
    ),
    (
        "chunked twice",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(501),
    ),
    (
        "chunked twice in one field",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refuse(501),
    ),
    (
        "gzip, then chunked",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refuse(501),
    ),
    (
        "chunked, then gzip",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "identity",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "chunked and identity in two fields",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "identity and chunked in two fields",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(501),
    ),
    (
        "almost chunked",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "chunked in quotes",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "chunked with a parameter",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "chunked after a vertical tab",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "chunked in capitals",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Pass("POST / HTTP/1.1", "abc"),
    ),
    (
        "an empty coding",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "chunked in HTTP/1.0",
        "POST http://{up}/ HTTP/1.0\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a field name before the colon with a space",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a length before the colon with a space",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length : 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a field name before the colon with a tab",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length\t: 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a coding by its other name",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a length by its other name",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent_Length: 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "a folded field",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a folded coding",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    ("a line that is no field", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nnonsense\r\n\r\n", Refuse(400)),
    ("a field without a name", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n: x\r\n\r\n", Refuse(400)),
    ("a first line that begins with a space", " GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a first field that begins with a space", "GET http://{up}/ HTTP/1.1\r\n Host: {up}\r\n\r\n", Refuse(400)),
    ("a NUL in a value", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX: a\0b\r\n\r\n", Refuse(400)),
    ("a CR alone in a value", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX: a\rb\r\n\r\n", Refuse(400)),
    ("a CR alone before a field", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\rX: a\r\n\r\n", Refuse(400)),
    ("DEL in a value", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX: a\x7fb\r\n\r\n", Refuse(400)),
    ("a control character in a name", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX\x01: a\r\n\r\n", Refuse(400)),
    ("parentheses in a name", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX(1): a\r\n\r\n", Refuse(400)),
    ("line feeds alone", "GET http://{up}/ HTTP/1.1\nHost: {up}\n\n", Pass("GET / HTTP/1.1", "")),
    ("an empty line first", "\r\nGET http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    (
        "a chunk size of nothing",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk size that is no number",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk size with 0x",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a negative chunk size",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk size beyond 64 bits",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk longer than it says",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk size ended by a line feed alone",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk extension with a line feed",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk ended by no CRLF",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
        Refuse(400),
    ),
    (
        "a chunk with an extension",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
        Pass("POST / HTTP/1.1", "abc"),
    ),
    (
        "trailers",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n3\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
        Pass("POST / HTTP/1.1", "abc"),
    ),
    (
        "a body in a GET",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3\r\n\r\nabc",
        Pass("GET / HTTP/1.1", "abc"),
    ),
    (
        "chunks in a GET",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Pass("GET / HTTP/1.1", "abc"),
    ),
];

/// Where it goes.
pub(crate) const TARGETS: &[Case] = &[
    ("no Host", "GET http://{up}/ HTTP/1.1\r\n\r\n", Refuse(400)),
    ("two Hosts", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("two Hosts that differ", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nHost: evil.example\r\n\r\n", Refuse(400)),
    ("an empty Host", "GET http://{up}/ HTTP/1.1\r\nHost: \r\n\r\n", Refuse(400)),
    ("another Host", "GET http://{up}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", Refuse(400)),
    ("another port in Host", "GET http://{up}/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", Refuse(400)),
    ("two hosts in one Host", "GET http://{up}/ HTTP/1.1\r\nHost: {up}, evil.example\r\n\r\n", Refuse(400)),
    ("a path in Host", "GET http://{up}/ HTTP/1.1\r\nHost: {up}/x\r\n\r\n", Refuse(400)),
    ("a user in Host", "GET http://{up}/ HTTP/1.1\r\nHost: evil@{up}\r\n\r\n", Refuse(400)),
    ("a Host that is no text", "GET http://{up}/ HTTP/1.1\r\nHost: \u{fc}\r\n\r\n", Refuse(400)),
    ("Host with a tab", "GET http://{up}/ HTTP/1.1\r\nHost: {up}\tx\r\n\r\n", Refuse(400)),
    (
        "Host in another spelling",
        "GET http://{up}/ HTTP/1.1\r\nHost: 2130706433:{port}\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    (
        "the target in another spelling",
        "GET http://0x7f.1:{port}/ HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    ("no Host in HTTP/1.0", "GET http://{up}/ HTTP/1.0\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("a user in the target", "GET http://user@{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a user and a password in the target", "GET http://a:b@{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    (
        "an allowed host as the user",
        "GET http://{up}@evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        Refuse(400),
    ),
    ("no host", "GET http:///x HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("port 0", "GET http://127.0.0.1:0/ HTTP/1.1\r\nHost: 127.0.0.1:0\r\n\r\n", Refuse(400)),
    ("port 65536", "GET http://127.0.0.1:65536/ HTTP/1.1\r\nHost: 127.0.0.1:65536\r\n\r\n", Refuse(400)),
    ("a port with a sign", "GET http://127.0.0.1:+80/ HTTP/1.1\r\nHost: 127.0.0.1:+80\r\n\r\n", Refuse(400)),
    ("an empty port", "GET http://127.0.0.1:/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Refuse(400)),
    ("two ports", "GET http://127.0.0.1:80:{port}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a broken IPv6 address", "GET http://[::1/ HTTP/1.1\r\nHost: [::1\r\n\r\n", Refuse(400)),
    ("an IPv6 address with a zone", "GET http://[fe80::1%25lo]/ HTTP/1.1\r\nHost: [fe80::1%25lo]\r\n\r\n", Refuse(400)),
    ("https by its URL", "GET https://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("ftp", "GET ftp://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("file", "GET file:///etc/passwd HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("gopher", "GET gopher://{up}/_x HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a host without a scheme", "GET {up} HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("nothing", "GET  HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("two targets", "GET http://{up}/ http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a fragment", "GET http://{up}/#x HTTP/1.1\r\nHost: {up}\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("a tab between the words", "GET\thttp://{up}/\tHTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("origin form for another host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Refuse(421)),
    ("origin form for the destination's port", "GET / HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(404)),
    ("origin form with two slashes", "GET //evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Refuse(404)),
    ("origin form without Host", "GET / HTTP/1.1\r\n\r\n", Refuse(400)),
    (
        "a forwarded host changes nothing",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nX-Forwarded-Host: evil.example\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
];

/// What is asked for there.
pub(crate) const PATHS: &[Case] = &[
    ("two dots", "GET http://{up}/a/../b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("two dots at the end", "GET http://{up}/a/.. HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("one dot", "GET http://{up}/./a HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("encoded dots", "GET http://{up}/a/%2e%2e/b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("half encoded dots", "GET http://{up}/a/.%2E/b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("dots behind an encoded slash", "GET http://{up}/a%2f..%2fb HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("dots behind an encoded backslash", "GET http://{up}/a%5c..%5cb HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("dots encoded twice", "GET http://{up}/a/%252e%252e/b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("dots encoded three times", "GET http://{up}/a/%25252e%25252e/b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("an encoding without end", "GET http://{up}/%2525252525252e HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("dots with parameters", "GET http://{up}/a/..;x=1/b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a backslash", "GET http://{up}/a\\b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("an encoded NUL", "GET http://{up}/a%00b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("encoded line ends", "GET http://{up}/a%0d%0aX:%20y HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a percent sign without digits", "GET http://{up}/100% HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a percent sign with wrong digits", "GET http://{up}/%zz HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a space in the path", "GET http://{up}/a b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("a control character in the path", "GET http://{up}/a\x01b HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("letters beyond ASCII in the path", "GET http://{up}/\u{fc} HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("angle brackets in the path", "GET http://{up}/<a> HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    (
        "an encoded percent sign",
        "GET http://{up}/100%25 HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Pass("GET /100%25 HTTP/1.1", ""),
    ),
    (
        "an encoded slash, as npm sends it",
        "GET http://{up}/@scope%2fname HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Pass("GET /@scope%2fname HTTP/1.1", ""),
    ),
    (
        "dots in a name",
        "GET http://{up}/a..b/.c/d. HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Pass("GET /a..b/.c/d. HTTP/1.1", ""),
    ),
    (
        "dots in the query",
        "GET http://{up}/a?f=../b HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Pass("GET /a?f=../b HTTP/1.1", ""),
    ),
    ("a query and no path", "GET http://{up}?a=1 HTTP/1.1\r\nHost: {up}\r\n\r\n", Pass("GET /?a=1 HTTP/1.1", "")),
    ("no path", "GET http://{up} HTTP/1.1\r\nHost: {up}\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("a fragment and no path", "GET http://{up}#x HTTP/1.1\r\nHost: {up}\r\n\r\n", Pass("GET / HTTP/1.1", "")),
];

/// Methods, versions, and fields that are for one hop.
pub(crate) const REST: &[Case] = &[
    ("TRACE", "TRACE http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(501)),
    ("TRACK", "TRACK http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(501)),
    ("a method in small letters", "get http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(501)),
    ("a method with odd characters", "G!T http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(501)),
    (
        "an endless method",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n",
        Refuse(501),
    ),
    ("a method with a slash", "G/T http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("HTTP/2's first words", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Close),
    ("HTTP/2.0", "GET http://{up}/ HTTP/2.0\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("HTTP/1.2", "GET http://{up}/ HTTP/1.2\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("HTTP/0.9", "GET http://{up}/\r\n\r\n", Refuse(400)),
    ("a version in small letters", "GET http://{up}/ http/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("words after the version", "GET http://{up}/ HTTP/1.1 x\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("TLS at the plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n", Refuse(400)),
    ("SOCKS at the HTTP port", "\x05\x01\x00\r\n\r\n", Refuse(400)),
    (
        "a websocket",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        Refuse(501),
    ),
    (
        "a websocket among others",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\n",
        Refuse(501),
    ),
    (
        "an upgrade to h2c is not followed",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    (
        "an expectation that nobody knows",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n",
        Refuse(417),
    ),
    (
        "Connection names Host",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: close, Host\r\n\r\n",
        Refuse(400),
    ),
    (
        "Connection names Content-Length",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        Refuse(400),
    ),
    (
        "Connection names Transfer-Encoding",
        "POST http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    (
        "fields of one hop stay behind",
        "GET http://{up}/ HTTP/1.1\r\nHost: {up}\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    ("CONNECT without a port", "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Refuse(400)),
    ("CONNECT with a URL", "CONNECT http://{up}/ HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("CONNECT with a user", "CONNECT a@{up} HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    ("CONNECT with another Host", "CONNECT {up} HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", Refuse(400)),
    ("CONNECT without Host", "CONNECT {up} HTTP/1.1\r\n\r\n", Refuse(400)),
    ("CONNECT with a length", "CONNECT {up} HTTP/1.1\r\nHost: {up}\r\nContent-Length: 3\r\n\r\nabc", Refuse(400)),
    (
        "CONNECT with chunks",
        "CONNECT {up} HTTP/1.1\r\nHost: {up}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    ("CONNECT to port 0", "CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: 127.0.0.1:0\r\n\r\n", Refuse(400)),
    ("CONNECT to no host", "CONNECT :443 HTTP/1.1\r\nHost: :443\r\n\r\n", Refuse(400)),
    ("CONNECT to an asterisk", "CONNECT * HTTP/1.1\r\nHost: {up}\r\n\r\n", Refuse(400)),
    (
        "CONNECT to what is not listed",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        Refuse(403),
    ),
    ("a host that is not listed", "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", Refuse(403)),
];
