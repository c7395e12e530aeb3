//! Plain mode as a script sees it: lines in, lines out, against the fake server of the client's own tests.

#![forbid(unsafe_code)]
// Not everything of the shared server is used here.
#![allow(dead_code)]

#[path = "../../../native/tests/client/fake_server/mod.rs"]
mod fake_server;
#[path = "../../../native/tests/client/folder.rs"]
mod folder;
#[path = "../../../native/tests/client/loopback/gateway.rs"]
mod gateway;
#[path = "../../../native/tests/client/loopback/http.rs"]
mod http;
mod plain;
