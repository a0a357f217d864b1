//! The settings of an index.

use thiserror::Error;

use super::args::check_name;
use super::keys::FIRST_GENERATION;
use super::limits;
use super::options::{Kv, Quant};

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
    /// How the chunks in a prompt are read.
    pub kv: Kv,
    /// Fingerprint of the tokenizer of the answering model, whose tokens are stored.
    pub tokenizer: String,
    /// Which generation of keys holds the data, from 1; see [`super::keys`].
    pub generation: u32,
}

const EMBED_MODEL: &str = "embed_model";
const GEN_MODEL: &str = "gen_model";
const EMBEDDER: &str = "embedder";
const DIM: &str = "dim";
const MAX_TOKENS: &str = "max_tokens";
const OVERLAP: &str = "overlap";
const QUANT: &str = "quant";
const KV: &str = "kv";
const REREAD: &str = "reread";
const TOKENIZER: &str = "tokenizer";
const GENERATION: &str = "generation";

impl IndexSettings {
    /// Fields of the hash.
    pub const FIELDS: [&str; 11] =
        [EMBED_MODEL, GEN_MODEL, EMBEDDER, DIM, MAX_TOKENS, OVERLAP, QUANT, KV, REREAD, TOKENIZER, GENERATION];

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
            (KV, self.kv.name().to_owned()),
            (REREAD, self.kv.reread().to_string()),
            (TOKENIZER, self.tokenizer.clone()),
            (GENERATION, self.generation.to_string()),
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
            kv: Kv::from_name(text(KV)?, number(REREAD, limits::REREAD_MIN, limits::REREAD_MAX)?)
                .ok_or(IndexError::BadField { field: KV })?,
            tokenizer: text(TOKENIZER)?.to_owned(),
            generation: number(GENERATION, FIRST_GENERATION, u32::MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> IndexSettings {
        IndexSettings {
            embed_model: "minilm".into(),
            gen_model: "llama".into(),
            dim: 384,
            max_tokens: 256,
            overlap: 1,
            quant: Quant::Bin,
            kv: Kv::Chunk { reread: 8 },
            tokenizer: "abc123".into(),
            embedder: "def456".into(),
            generation: 3,
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
    fn the_fields_that_are_read_are_those_that_are_written() {
        assert_eq!(settings().to_fields().iter().map(|(name, _)| *name).collect::<Vec<_>>(), IndexSettings::FIELDS);
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
            (KV, "chunk"),
            (REREAD, "-1"),
            (EMBED_MODEL, ""),
            (GEN_MODEL, "a\nb"),
            (GENERATION, "0"),
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
}
