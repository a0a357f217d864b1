//! Reads a GGUF header, version 2 or 3. Order of the file: magic, version, counts, key-value pairs, tensor
//! descriptions, padding, tensor data. Only the header is read.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek};

use crate::error::{GgufError, quoted};
use crate::header::{Header, TensorInfo};
use crate::limits::{
    LONGEST_ARRAY, LONGEST_KEY, LONGEST_STRING, MAX_DIMS, MAX_METADATA, MAX_TENSOR_NAME, MAX_TENSORS, MAX_TOKENS,
    STRINGS_KEPT,
};
use crate::reader::Reader;
use crate::tensor_type::TensorType;
use crate::value::{Array, Value, ValueType};

/// The first four bytes of every GGUF file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data when the file names none (GGUF_DEFAULT_ALIGNMENT of gguf.h).
pub(crate) const DEFAULT_ALIGNMENT: u32 = 32;
/// The tokens of the vocabulary.
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
/// The type of each token.
pub(crate) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";

/// What [`crate::hazards`] needs of arrays that the header does not keep.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// Number of tokens, when the file has a vocabulary.
    pub(crate) tokens: Option<u64>,
    /// Whether a token stands for a raw byte (LLAMA_TOKEN_TYPE_BYTE).
    pub(crate) byte_tokens: bool,
}

/// Everything that one pass over a header gives.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) header: Header,
    pub(crate) vocabulary: Vocabulary,
    /// The strings of the array that the caller asked for, when it is there.
    pub(crate) strings: Option<Vec<String>>,
}

struct Parser<'a, R> {
    reader: Reader<R>,
    wanted: Option<&'a str>,
    kept: u64,
    parsed: Parsed,
}

/// Parses the header in `source`, which is `length` bytes long. The elements of the string array `wanted` are
/// kept in [`Parsed::strings`].
pub(crate) fn parse<R: Read + Seek>(source: R, length: u64, wanted: Option<&str>) -> Result<Parsed, GgufError> {
    let mut parser = Parser { reader: Reader::new(source, length), wanted, kept: 0, parsed: Parsed::default() };
    let (tensors, pairs) = parser.preamble()?;
    for _ in 0..pairs {
        parser.pair()?;
    }
    parser.alignment()?;
    parser.tensors(tensors)?;
    parser.data_section()?;
    Ok(parser.parsed)
}

fn malformed(text: impl Into<String>) -> GgufError {
    GgufError::Malformed(text.into())
}

impl<R: Read + Seek> Parser<'_, R> {
    fn preamble(&mut self) -> Result<(u64, u64), GgufError> {
        if self.reader.bytes()? != MAGIC {
            return Err(malformed("it does not start with the magic bytes"));
        }
        let version = self.reader.u32()?;
        match version {
            2 | 3 => {}
            // A small number in the high bytes: written by a big-endian machine.
            _ if version & 0xffff == 0 => return Err(GgufError::BigEndian),
            _ => return Err(GgufError::Version(version)),
        }
        let tensors = self.reader.u64()?;
        let pairs = self.reader.u64()?;
        for (what, count, limit) in [("tensors", tensors, MAX_TENSORS), ("metadata pairs", pairs, MAX_METADATA)] {
            if count >= limit {
                return Err(malformed(format!("{count} {what}, the limit is {limit}")));
            }
        }
        self.parsed.header.version = version;
        self.parsed.header.file_size = self.reader.length();
        Ok((tensors, pairs))
    }

    fn name(&mut self, longest: u64, what: &str) -> Result<String, GgufError> {
        let length = self.reader.u64()?;
        if length > longest {
            self.reader.need(length)?;
            return Err(malformed(format!("{what} of {length} bytes, the limit is {longest}")));
        }
        let bytes = self.reader.vec(length)?;
        String::from_utf8(bytes).map_err(|error| malformed(format!("{what} {} is not UTF-8", quoted(error.as_bytes()))))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, GgufError> {
        let number = self.reader.u32()?;
        ValueType::from_number(number)
            .ok_or_else(|| malformed(format!("key {} has the unknown type {number}", quoted(key.as_bytes()))))
    }

    fn pair(&mut self) -> Result<(), GgufError> {
        let key = self.name(LONGEST_KEY, "a metadata key")?;
        if key.is_empty() {
            return Err(malformed("a metadata key is empty"));
        }
        let value = match self.value_type(&key)? {
            ValueType::Array => Value::Array(self.array(&key)?),
            ValueType::Str => self.string()?,
            scalar => self.scalar(scalar)?,
        };
        if self.parsed.header.metadata.contains_key(&key) {
            return Err(malformed(format!("key {} stands twice", quoted(key.as_bytes()))));
        }
        self.parsed.header.metadata.insert(key, value);
        Ok(())
    }

    fn string(&mut self) -> Result<Value, GgufError> {
        let length = self.reader.u64()?;
        if length > LONGEST_STRING || self.kept.saturating_add(length) > STRINGS_KEPT {
            self.reader.skip(length)?;
            return Ok(Value::LongStr(length));
        }
        let bytes = self.reader.vec(length)?;
        self.kept += length;
        Ok(Value::Str(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn scalar(&mut self, kind: ValueType) -> Result<Value, GgufError> {
        let reader = &mut self.reader;
        Ok(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(reader.bytes()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(reader.bytes()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(reader.bytes()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(reader.bytes()?)),
            ValueType::U32 => Value::U32(reader.u32()?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(reader.bytes()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(reader.bytes()?)),
            ValueType::Bool => Value::Bool(reader.bytes::<1>()? != [0]),
            ValueType::U64 => Value::U64(reader.u64()?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(reader.bytes()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(reader.bytes()?)),
            ValueType::Str | ValueType::Array => return Err(malformed("a nested array")),
        })
    }

    fn array(&mut self, key: &str) -> Result<Array, GgufError> {
        let element = self.value_type(key)?;
        let len = self.reader.u64()?;
        let mut values = Vec::new();
        match element {
            ValueType::Array => {
                return Err(malformed(format!("key {} is an array of arrays", quoted(key.as_bytes()))));
            }
            ValueType::Str => self.string_array(key, len)?,
            _ => {
                let bytes = element
                    .size()
                    .and_then(|size| size.checked_mul(len))
                    .ok_or_else(|| malformed(format!("key {} is an endless array", quoted(key.as_bytes()))))?;
                self.reader.need(bytes)?;
                if key == TOKEN_TYPES && element == ValueType::I32 {
                    self.token_types(len)?;
                } else if len <= LONGEST_ARRAY {
                    for _ in 0..len {
                        values.push(self.scalar(element)?);
                    }
                } else {
                    self.reader.skip(bytes)?;
                }
            }
        }
        Ok(Array { element, len, values })
    }

    fn string_array(&mut self, key: &str, len: u64) -> Result<(), GgufError> {
        // Each string takes at least its length field.
        self.reader.need(len.saturating_mul(8))?;
        if key == TOKENS {
            if len > MAX_TOKENS {
                return Err(malformed(format!("a vocabulary of {len} tokens, the limit is {MAX_TOKENS}")));
            }
            self.parsed.vocabulary.tokens = Some(len);
        }
        if self.wanted == Some(key) {
            let mut strings = Vec::new();
            for _ in 0..len {
                let length = self.reader.u64()?;
                strings.push(String::from_utf8_lossy(&self.reader.vec(length)?).into_owned());
            }
            self.parsed.strings = Some(strings);
            return Ok(());
        }
        if key == TOKENS {
            return self.distinct_tokens(len);
        }
        for _ in 0..len {
            let length = self.reader.u64()?;
            self.reader.skip(length)?;
        }
        Ok(())
    }

    /// Passes over the vocabulary and refuses a token that stands twice: llama.cpp asserts that there is none.
    /// 128-bit hashes stand for the tokens, so that the memory does not depend on their lengths.
    fn distinct_tokens(&mut self, len: u64) -> Result<(), GgufError> {
        let (first, second) = (RandomState::new(), RandomState::new());
        let mut seen = HashSet::new();
        for number in 0..len {
            let length = self.reader.u64()?;
            let (mut a, mut b) = (first.build_hasher(), second.build_hasher());
            // llama.cpp takes tokens as C strings and renames empty ones.
            let (mut ended, mut empty) = (false, true);
            self.reader.pieces(length, |piece| {
                for &byte in piece {
                    ended |= byte == 0;
                    if !ended {
                        empty = false;
                        a.write_u8(byte);
                        b.write_u8(byte);
                    }
                }
            })?;
            if empty {
                for byte in format!("[EMPTY_{number}]").into_bytes() {
                    a.write_u8(byte);
                    b.write_u8(byte);
                }
            }
            if !seen.insert((a.finish(), b.finish())) {
                return Err(GgufError::Unusable(format!(
                    "token {number} of its vocabulary has the text of an earlier token"
                )));
            }
        }
        Ok(())
    }

    fn token_types(&mut self, len: u64) -> Result<(), GgufError> {
        const BYTE: i32 = 6;
        for _ in 0..len {
            self.parsed.vocabulary.byte_tokens |= i32::from_le_bytes(self.reader.bytes()?) == BYTE;
        }
        Ok(())
    }

    fn alignment(&mut self) -> Result<(), GgufError> {
        let alignment = match self.parsed.header.metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(&Value::U32(alignment)) => alignment,
            Some(_) => return Err(malformed("general.alignment is not a 32-bit number")),
        };
        if !alignment.is_power_of_two() {
            return Err(malformed(format!("alignment {alignment} is not a power of two")));
        }
        self.parsed.header.alignment = alignment.into();
        Ok(())
    }

    fn tensors(&mut self, count: u64) -> Result<(), GgufError> {
        let mut names = HashSet::new();
        for _ in 0..count {
            let tensor = self.tensor()?;
            if !names.insert(tensor.name.clone()) {
                return Err(malformed(format!("tensor {} stands twice", quoted(tensor.name.as_bytes()))));
            }
            self.parsed.header.tensors.push(tensor);
        }
        Ok(())
    }

    fn tensor(&mut self) -> Result<TensorInfo, GgufError> {
        let name = self.name(MAX_TENSOR_NAME, "a tensor name")?;
        let bad = |what: String| malformed(format!("tensor {}: {what}", quoted(name.as_bytes())));
        let dimensions = self.reader.u32()?;
        if dimensions > MAX_DIMS {
            return Err(bad(format!("{dimensions} dimensions, the limit is {MAX_DIMS}")));
        }
        let mut dims = Vec::new();
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let dim = self.reader.u64()?;
            dims.push(dim);
            // ggml counts in signed 64-bit numbers and asserts that no dimension is 0.
            elements = elements
                .checked_mul(dim)
                .filter(|&n| n > 0 && i64::try_from(n).is_ok())
                .ok_or_else(|| bad("its dimensions are zero or too large".into()))?;
        }
        let kind = TensorType(self.reader.u32()?);
        let size = match kind.block() {
            None => None,
            Some((block, bytes)) => {
                if dims.first().unwrap_or(&1) % block != 0 {
                    return Err(bad(format!("its rows do not consist of whole blocks of {block} elements")));
                }
                let size = (elements / block).checked_mul(bytes).filter(|&n| i64::try_from(n).is_ok());
                Some(size.ok_or_else(|| bad("its size in bytes is too large".into()))?)
            }
        };
        let offset = self.reader.u64()?;
        Ok(TensorInfo { name, dims, kind, offset, size })
    }

    /// Tensors must lie one after the other, each padded to the alignment, and end inside the file.
    fn data_section(&mut self) -> Result<(), GgufError> {
        let header = &mut self.parsed.header;
        let padded = |bytes: u64| bytes.checked_next_multiple_of(header.alignment);
        let too_large = || malformed("the tensors together are too large");
        header.data_offset = padded(self.reader.position()).ok_or_else(too_large)?;
        // Where the next tensor must start; unknown after a tensor of unknown size.
        let mut next = Some(0);
        let mut end = 0;
        for tensor in &header.tensors {
            let name = || quoted(tensor.name.as_bytes());
            if next.is_some_and(|next| next != tensor.offset) || tensor.offset < end {
                return Err(malformed(format!("tensor {} does not follow the one before it", name())));
            }
            if tensor.offset % header.alignment != 0 {
                return Err(malformed(format!("tensor {} is not aligned", name())));
            }
            end = tensor.offset.checked_add(tensor.size.unwrap_or(0)).ok_or_else(too_large)?;
            next = match tensor.size {
                Some(_) => Some(padded(end).ok_or_else(too_large)?),
                None => None,
            };
        }
        let expected = header.data_offset.checked_add(end).ok_or_else(too_large)?;
        if !header.tensors.is_empty() && expected > header.file_size {
            return Err(GgufError::Truncated { expected, actual: header.file_size });
        }
        Ok(())
    }
}
