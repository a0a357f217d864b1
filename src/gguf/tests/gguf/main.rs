//! Files written by this crate, damaged in every way that has a name, and read back.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop with a panic: that is how it fails")]

mod adapter;
mod hazards;
mod properties;
mod raw;
mod refusals;
mod round_trip;
mod split;
