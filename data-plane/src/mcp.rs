//! Mechanics of the Model Context Protocol on the side of the client, without policy or sockets.
//!
//! In reading order: [`members`], [`envelope`] and [`batch`] (one lazy parse, raw bytes kept), [`revision`]
//! and [`era`] (which dialect a message speaks, decided body first), [`methods`] (what exists, as
//! data), [`extensions`] (which are carried), [`level`] (of log messages), [`verbs`] (the gateway's own names for some of them), [`headers`] (what mirrors the body), [`session`] (sealed, no table), [`discover`],
//! [`list`] and [`template`] (what the gateway answers itself), [`adapt`] (answers for the
//! client's era), [`sse`].
//!
//! Invariant: `params`, results, errors and definitions are passed on as the bytes that came in;
//! where a member has to change, the bytes around it stay as they were.

pub mod adapt;
pub mod batch;
pub mod discover;
pub mod envelope;
pub mod era;
pub mod extensions;
pub mod headers;
pub mod level;
pub mod list;
pub mod members;
pub mod methods;
pub mod revision;
pub mod session;
pub mod sse;
pub mod template;
pub mod verbs;
