//! The rows of the comparison, in the order of the document.

mod cache;
mod clients;
mod copies;
mod embeddings;
mod larger;
mod latency;
mod memory;
mod one_stream;
mod plain;
mod rag;
mod rotation;
mod settings;

use anyhow::Result;

use super::Bench;
use super::report::Section;

/// Measures one row.
type Row = fn(&Bench) -> Result<Section>;

/// Every row, with the name under which it can be run alone.
pub const ROWS: [(&str, Row); 16] = [
    ("F1", one_stream::run),
    ("F2", clients::eight),
    ("F3", clients::neighbours),
    ("F4", rag::first_token),
    ("F5", rag::assembly),
    ("F6", plain::run),
    ("F7", embeddings::run),
    ("F8", cache::run),
    ("F9", memory::run),
    ("gaps", latency::gaps),
    ("ttft", latency::first_token),
    ("rotation", rotation::run),
    ("clients", clients::curve),
    ("copies", copies::run),
    ("larger", larger::run),
    ("settings", settings::run),
];

/// The names alone.
pub fn names() -> Vec<&'static str> {
    ROWS.iter().map(|(name, _)| *name).collect()
}
