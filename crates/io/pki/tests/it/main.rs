//! Tests of identities: what TLS handshakes accept and refuse, what is signed, and a foreign implementation.

mod foreign;
mod handshakes;
mod signing;
mod world;
