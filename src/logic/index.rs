//! What an index stores about itself and about each chunk.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::args::check_name;
use super::limits;
use super::options::Quant;

/// Stored data that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// A field of the settings is not there.
    #[error("the settings of the index have no field '{field}'; was the key made by INFER.INDEX?")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// A field of the settings holds something that `INFER.INDEX` does not write.
    #[error("the field '{field}' of the index's settings cannot be read; was it changed by hand?")]
    BadField {
        /// The field.
        field: &'static str,
    },
    /// The attributes of an element are not those of a chunk.
    #[error("the attributes of an element cannot be read; was it added by another command than INFER.INGEST?")]
    BadAttributes,
}

/// The settings of an index, the fields of its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// Name of the model that makes the vectors.
    pub embed_model: String,
    /// Name of the model that answers.
    pub gen_model: String,
    /// Fingerprint of the embedding model as it was loaded, whose vectors are stored.
    pub embedder: String,
    /// Values of a vector.
    pub dim: u32,
    /// Most tokens of a chunk, counted by the embedding model.
    pub max_tokens: u32,
    /// Pieces repeated from one chunk to the next.
    pub overlap: u32,
    /// How the vector set stores vectors.
    pub quant: Quant,
    /// Fingerprint of the tokenizer of the answering model, whose tokens are stored.
    pub tokenizer: String,
}

const EMBED_MODEL: &str = "embed_model";
const GEN_MODEL: &str = "gen_model";
const EMBEDDER: &str = "embedder";
const DIM: &str = "dim";
const MAX_TOKENS: &str = "max_tokens";
const OVERLAP: &str = "overlap";
const QUANT: &str = "quant";
const TOKENIZER: &str = "tokenizer";

impl IndexSettings {
    /// The fields and values of the hash.
    pub fn to_fields(&self) -> Vec<(&'static str, String)> {
        vec![
            (EMBED_MODEL, self.embed_model.clone()),
            (GEN_MODEL, self.gen_model.clone()),
            (EMBEDDER, self.embedder.clone()),
            (DIM, self.dim.to_string()),
            (MAX_TOKENS, self.max_tokens.to_string()),
            (OVERLAP, self.overlap.to_string()),
            (QUANT, self.quant.name().to_owned()),
            (TOKENIZER, self.tokenizer.clone()),
        ]
    }

    /// The settings in a hash. Other fields may be there too. Numbers must be within the bounds of `INFER.INDEX`,
    /// because anybody can write the hash.
    ///
    /// # Errors
    /// [`IndexError::MissingField`], [`IndexError::BadField`].
    pub fn from_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, IndexError> {
        let fields: Vec<_> = fields.collect();
        let text = |field: &'static str| {
            let (_, value) =
                fields.iter().find(|(name, _)| *name == field.as_bytes()).ok_or(IndexError::MissingField { field })?;
            std::str::from_utf8(value).map_err(|_| IndexError::BadField { field })
        };
        let name = |field| {
            let name = text(field)?;
            check_name(field, name).map_err(|_| IndexError::BadField { field })?;
            Ok(name.to_owned())
        };
        let number = |field, min, max| {
            let number = text(field)?.parse::<u32>().ok().filter(|number| (min..=max).contains(number));
            number.ok_or(IndexError::BadField { field })
        };
        Ok(Self {
            embed_model: name(EMBED_MODEL)?,
            gen_model: name(GEN_MODEL)?,
            embedder: text(EMBEDDER)?.to_owned(),
            dim: number(DIM, limits::DIM_MIN, limits::DIM_MAX)?,
            max_tokens: number(MAX_TOKENS, limits::CHUNK_TOKENS_MIN, limits::CHUNK_TOKENS_MAX)?,
            overlap: number(OVERLAP, limits::OVERLAP_MIN, limits::OVERLAP_MAX)?,
            quant: Quant::from_name(text(QUANT)?).ok_or(IndexError::BadField { field: QUANT })?,
            tokenizer: text(TOKENIZER)?.to_owned(),
        })
    }
}

/// The attributes of a chunk's element in the vector set, which a `FILTER` of `VSIM` can use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChunkAttributes {
    /// Path of the document.
    pub path: String,
    /// Number of the chunk in the document, from 0.
    pub chunk: u32,
    /// First and last line of the chunk, from 1.
    pub lines: (u32, u32),
    /// Extension of the path, without the dot; may be empty.
    pub ext: String,
}

impl ChunkAttributes {
    /// As a JSON object, the lines as an array of two.
    pub fn to_json(&self) -> String {
        let (first, last) = self.lines;
        // Value writes the escapes; unlike to_string on the struct it cannot fail.
        format!(
            r#"{{"path":{},"chunk":{},"lines":[{first},{last}],"ext":{}}}"#,
            Value::from(self.path.as_str()),
            self.chunk,
            Value::from(self.ext.as_str())
        )
    }

    /// The inverse of [`ChunkAttributes::to_json`]; an object with further members is fine.
    ///
    /// # Errors
    /// [`IndexError::BadAttributes`].
    pub fn from_json(json: &[u8]) -> Result<Self, IndexError> {
        serde_json::from_slice(json).map_err(|_| IndexError::BadAttributes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> IndexSettings {
        IndexSettings {
            embed_model: "minilm".into(),
            gen_model: "llama".into(),
            dim: 384,
            max_tokens: 256,
            overlap: 1,
            quant: Quant::Bin,
            tokenizer: "abc123".into(),
            embedder: "def456".into(),
        }
    }

    fn read(fields: &[(&'static str, String)]) -> Result<IndexSettings, IndexError> {
        IndexSettings::from_fields(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// The fields of [`settings`] with one replaced.
    fn changed(field: &str, value: &str) -> Vec<(&'static str, String)> {
        let mut fields = settings().to_fields();
        for (name, old) in &mut fields {
            if *name == field {
                *old = value.to_owned();
            }
        }
        fields
    }

    #[test]
    fn settings_are_read_back_in_any_order_beside_other_fields() {
        let mut fields = settings().to_fields();
        fields.reverse();
        fields.push(("made_by", "somebody".into()));
        assert_eq!(read(&fields), Ok(settings()));
    }

    #[test]
    fn every_missing_field_is_named() {
        for (field, _) in settings().to_fields() {
            let mut fields = settings().to_fields();
            fields.retain(|(name, _)| *name != field);
            assert_eq!(read(&fields), Err(IndexError::MissingField { field }));
        }
    }

    #[test]
    fn a_value_that_no_command_writes_is_refused_by_its_field() {
        for (field, value) in [
            (DIM, "0"),
            (DIM, "many"),
            (DIM, "65537"),
            (MAX_TOKENS, "0"),
            (MAX_TOKENS, "99999"),
            (OVERLAP, "-1"),
            (OVERLAP, "9"),
            (QUANT, "q8"),
            (EMBED_MODEL, ""),
            (GEN_MODEL, "a\nb"),
        ] {
            assert_eq!(read(&changed(field, value)), Err(IndexError::BadField { field }), "{field} {value:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_utf8_is_refused() {
        let fields = settings().to_fields();
        let bytes = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), if *name == TOKENIZER { &b"\xff"[..] } else { value.as_bytes() }));
        assert_eq!(IndexSettings::from_fields(bytes), Err(IndexError::BadField { field: TOKENIZER }));
    }

    #[test]
    fn attributes_are_an_object_with_the_lines_as_an_array() {
        let attributes = ChunkAttributes { path: "a\"b/一.md".into(), chunk: 2, lines: (10, 31), ext: "md".into() };
        let json = attributes.to_json();
        assert_eq!(json, r#"{"path":"a\"b/一.md","chunk":2,"lines":[10,31],"ext":"md"}"#);
    }

    #[test]
    fn attributes_with_further_members_are_read() {
        let read = ChunkAttributes::from_json(br#"{"lines":[1,2],"ext":"","year":1999,"chunk":0,"path":"p"}"#);
        assert_eq!(read, Ok(ChunkAttributes { path: "p".into(), chunk: 0, lines: (1, 2), ext: String::new() }));
    }

    #[test]
    fn attributes_of_something_else_are_refused() {
        for json in ["", "{}", "[]", "null", r#"{"path":"p","chunk":-1,"lines":[1,2],"ext":""}"#, "\u{0}"] {
            assert_eq!(ChunkAttributes::from_json(json.as_bytes()), Err(IndexError::BadAttributes), "{json}");
        }
    }

    proptest! {
        #[test]
        fn attributes_are_read_back(path in any::<String>(), chunk in any::<u32>(), lines in any::<(u32, u32)>(), ext in any::<String>()) {
            let attributes = ChunkAttributes { path, chunk, lines, ext };
            prop_assert_eq!(ChunkAttributes::from_json(attributes.to_json().as_bytes()), Ok(attributes));
        }
    }
}
