//! What the integration tests share: a Redis server of a test's own, the engines on it for the tests
//! of the store, real processes of our programs, with a client, for the tests of the whole, and the
//! real Claude Code for some of those.

pub mod bench;
pub mod certificate;
pub mod claude;
pub mod client;
pub mod dice;
pub mod event;
pub mod process;
pub mod redis;
pub mod site;
pub mod slow;
pub mod submissions;
pub mod wait;
