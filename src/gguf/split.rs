//! Models split into several files: llama.cpp opens the other parts by itself when it is given the first, so
//! they are checked with it.

use std::path::{Path, PathBuf};

use crate::error::{GgufError, quoted};
use crate::header::Header;
use crate::open::open;
use crate::value::Value;

/// Returns the header of the model whose first part, at `path`, has the header `first`: its own when the model
/// is one file, otherwise with the size and the tensors of all parts. `place` says whether a part may be opened; it is asked for
/// all of them first.
pub(crate) fn check_parts(
    path: &Path,
    mut first: Header,
    place: impl Fn(&Path) -> Result<(), String>,
) -> Result<Header, GgufError> {
    let parts = u64::from(first.get_u32("split.count").unwrap_or(0));
    if parts <= 1 {
        return Ok(first);
    }
    if parts > u64::from(u16::MAX) {
        return Err(GgufError::Unusable(format!(
            "it says that it is one of {parts} parts, more than llama.cpp can count"
        )));
    }
    if first.get_u32("split.no") != Some(0) {
        return Err(GgufError::Unusable("it is a later part of a split model; load the first part".into()));
    }
    let Some(prefix) = prefix(path, parts) else {
        return Err(GgufError::Unusable(format!(
            "it is the first of {parts} parts, whose name must end in -00001-of-{parts:05}.gguf"
        )));
    };
    for part in 2..=parts {
        let path = part_path(&prefix, part, parts);
        place(&path).map_err(|reason| GgufError::PartElsewhere { part, file: file_name(&path), reason })?;
    }
    for part in 2..=parts {
        let path = part_path(&prefix, part, parts);
        let refused = |source| GgufError::Part { part, file: file_name(&path), source: Box::new(source) };
        let header = open(&path, None).map_err(refused)?.header;
        check_number(&header, part, parts).map_err(refused)?;
        first.file_size = first.file_size.saturating_add(header.file_size);
        first.tensors.extend(header.tensors);
    }
    Ok(first)
}

/// Parts that have been exchanged, or come from another model. llama-model-loader.cpp aborts when the number of a part
/// is of another type than it expects.
fn check_number(header: &Header, part: u64, parts: u64) -> Result<(), GgufError> {
    let number = |key| match header.metadata.get(key) {
        Some(&Value::U16(number)) => Some(u64::from(number)),
        _ => None,
    };
    let (Some(no), Some(count)) = (number("split.no"), number("split.count")) else {
        return Err(GgufError::Unusable("it is no part of a split model (split.no or split.count is missing)".into()));
    };
    if (no.saturating_add(1), count) != (part, parts) {
        return Err(GgufError::Unusable(format!("it is part {} of {count}", no.saturating_add(1))));
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    quoted(path.file_name().unwrap_or_default().as_encoded_bytes())
}

/// The files of a checked model beside the one at `path`, its first: none when it is not split.
pub fn part_paths(path: &Path, header: &Header) -> Vec<PathBuf> {
    let parts = u64::from(header.get_u32("split.count").unwrap_or(0));
    let Some(prefix) = prefix(path, parts) else {
        return Vec::new();
    };
    (2..=parts).map(|part| part_path(&prefix, part, parts)).collect()
}

/// The path of the first part without the numbering.
fn prefix(path: &Path, parts: u64) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{parts:05}.gguf"))?;
    (!stem.is_empty()).then(|| path.with_file_name(stem))
}

pub(crate) fn part_path(prefix: &Path, part: u64, parts: u64) -> PathBuf {
    let mut name = prefix.file_name().unwrap_or_default().to_os_string();
    name.push(format!("-{part:05}-of-{parts:05}.gguf"));
    prefix.with_file_name(name)
}
