//! Writes GGUF version 3 files: little-endian, tensor data aligned to 32 bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::limits::{LONGEST_KEY, MAX_DIMS, MAX_TENSOR_NAME};
use crate::parse::{DEFAULT_ALIGNMENT, MAGIC};
use crate::split::part_path;
use crate::tensor_type::TensorType;
use crate::value::ValueType;

const VERSION: u32 = 3;

/// Why a file was not written. Nothing is left at the path then, or what was there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A key, a tensor name or a shape breaks the format.
    #[error("{0}")]
    Invalid(String),
    /// The operating system refused.
    #[error("the file cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// The elements of a tensor, rows one after the other.
#[derive(Clone, Debug)]
pub enum TensorData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
    /// Blocks of [`BLOCK`] numbers: a 16-bit scale and 4 bits for each.
    Q4_0(Vec<Q4Block>),
}

/// Numbers in a block of a quantised tensor.
pub const BLOCK: usize = 32;

/// A block of Q4_0: scale, then the numbers as 4 bits each, in the layout of ggml's `block_q4_0`.
pub type Q4Block = (f16, [u8; BLOCK / 2]);

impl TensorData {
    /// `values` rounded to 16 bits.
    pub fn to_f16(values: &[f32]) -> Self {
        let mut halves = vec![f16::ZERO; values.len()];
        halves.convert_from_f32_slice(values);
        Self::F16(halves)
    }

    /// `values` in 4 bits, rounded as ggml's `quantize_row_q4_0_ref` does: the number furthest from 0 becomes -8. What
    /// follows the last full block is left out.
    pub fn to_q4_0(values: &[f32]) -> Self {
        let block = |values: &[f32]| {
            let furthest = values.iter().fold(0.0f32, |most, &v| if v.abs() > most.abs() { v } else { most });
            let scale = furthest / -8.0;
            let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
            // 8 stands for 0, and half is added because the conversion cuts off.
            let nibble = |value: f32| ((value * inverse + 8.5) as u8).min(15);
            let (low, high) = values.split_at(BLOCK / 2);
            (f16::from_f32(scale), std::array::from_fn(|at| nibble(low[at]) | nibble(high[at]) << 4))
        };
        Self::Q4_0(values.chunks_exact(BLOCK).map(block).collect())
    }

    fn kind(&self) -> TensorType {
        match self {
            Self::Q4_0(_) => TensorType::Q4_0,
            Self::F32(_) => TensorType::F32,
            Self::F16(_) => TensorType::F16,
        }
    }

    fn elements(&self) -> u64 {
        match self {
            Self::F32(values) => values.len() as u64,
            Self::F16(values) => values.len() as u64,
            Self::Q4_0(blocks) => (blocks.len() * BLOCK) as u64,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::F32(_) => self.elements() * 4,
            Self::F16(_) => self.elements() * 2,
            Self::Q4_0(blocks) => (blocks.len() * (2 + BLOCK / 2)) as u64,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
            Self::F16(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
            Self::Q4_0(blocks) => blocks.iter().try_for_each(|(scale, numbers)| {
                out.write_all(&scale.to_le_bytes())?;
                out.write_all(numbers)
            }),
        }
    }
}

#[derive(Clone, Debug)]
struct Pair {
    key: String,
    kind: ValueType,
    /// The value as it stands in the file.
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    data: TensorData,
}

/// Collects metadata and tensors, then writes them. Metadata stands in the order in which it was added.
///
/// Names and shapes are checked by [`Writer::write`], so that adding them needs no error handling.
#[derive(Debug)]
pub struct Writer {
    pairs: Vec<Pair>,
    tensors: Vec<Tensor>,
}

impl Writer {
    /// A file of this model architecture (`llama`, `bert`, …), which becomes `general.architecture`.
    pub fn new(architecture: &str) -> Self {
        let mut writer = Self { pairs: Vec::new(), tensors: Vec::new() };
        writer.string("general.architecture", architecture);
        writer
    }

    fn pair(&mut self, key: &str, kind: ValueType, bytes: Vec<u8>) -> &mut Self {
        self.pairs.push(Pair { key: key.to_owned(), kind, bytes });
        self
    }

    /// Adds a 32-bit unsigned number: ids, sizes, counts.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.pair(key, ValueType::U32, value.to_le_bytes().to_vec())
    }

    /// Adds a 16-bit unsigned number: the numbers of a split model.
    pub fn u16(&mut self, key: &str, value: u16) -> &mut Self {
        self.pair(key, ValueType::U16, value.to_le_bytes().to_vec())
    }

    /// Adds a 64-bit unsigned number.
    pub fn u64(&mut self, key: &str, value: u64) -> &mut Self {
        self.pair(key, ValueType::U64, value.to_le_bytes().to_vec())
    }

    /// Adds a 32-bit signed number.
    pub fn i32(&mut self, key: &str, value: i32) -> &mut Self {
        self.pair(key, ValueType::I32, value.to_le_bytes().to_vec())
    }

    /// Adds a 32-bit float.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.pair(key, ValueType::F32, value.to_le_bytes().to_vec())
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.pair(key, ValueType::Bool, vec![value.into()])
    }

    /// Adds a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.pair(key, ValueType::Str, encoded(value))
    }

    /// Adds an array of strings.
    pub fn strings<S: AsRef<str>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        let elements = values.iter().flat_map(|value| encoded(value.as_ref())).collect();
        self.array(key, ValueType::Str, values.len(), elements)
    }

    /// Adds an array of 32-bit signed numbers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, ValueType::I32, values.len(), elements)
    }

    /// Adds an array of 32-bit unsigned numbers.
    pub fn u32s(&mut self, key: &str, values: &[u32]) -> &mut Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, ValueType::U32, values.len(), elements)
    }

    /// Adds an array of 32-bit floats.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, ValueType::F32, values.len(), elements)
    }

    fn array(&mut self, key: &str, element: ValueType, len: usize, mut elements: Vec<u8>) -> &mut Self {
        let mut bytes = (element as u32).to_le_bytes().to_vec();
        bytes.extend((len as u64).to_le_bytes());
        bytes.append(&mut elements);
        self.pair(key, ValueType::Array, bytes)
    }

    /// Adds a tensor. `dims` is in ggml's order: the length of a row first.
    pub fn tensor(&mut self, name: &str, dims: &[u64], data: TensorData) -> &mut Self {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), data });
        self
    }

    /// Writes the file and returns its size in bytes. It appears at `path` complete or not at all, and
    /// replaces what was there.
    ///
    /// # Errors
    /// When a key or tensor stands twice, a name is too long, a shape does not fit its data, or the operating
    /// system refuses.
    pub fn write(&self, path: &Path) -> Result<u64, WriteError> {
        self.validate()?;
        let Some(name) = path.file_name() else {
            return Err(WriteError::Invalid("the path has no file name".into()));
        };
        // The number keeps threads that write to one path apart; the last to finish wins.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let written = self.write_to(&temporary).and_then(|size| {
            fs::rename(&temporary, path)?;
            Ok(size)
        });
        if written.is_err() {
            // The first error is the one to report; there may be nothing to remove.
            let _ = fs::remove_file(&temporary);
        }
        Ok(written?)
    }

    /// Writes the file in `parts` files beside `prefix`, as `llama-gguf-split` does: the first has all metadata, and
    /// each has its share of the tensors. Returns their paths.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write_split(&self, prefix: &Path, parts: u16) -> Result<Vec<PathBuf>, WriteError> {
        let share = self.tensors.len().div_ceil(usize::from(parts).max(1)).max(1);
        let mut shares = self.tensors.chunks(share);
        let mut paths = Vec::new();
        for number in 0..parts {
            let mut part = Self { pairs: Vec::new(), tensors: shares.next().unwrap_or_default().to_vec() };
            if number == 0 {
                part.pairs.clone_from(&self.pairs);
            }
            part.u16("split.no", number)
                .u16("split.count", parts)
                .i32("split.tensors.count", i32::try_from(self.tensors.len()).unwrap_or(i32::MAX));
            let path = part_path(prefix, u64::from(number) + 1, parts.into());
            part.write(&path)?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn validate(&self) -> Result<(), WriteError> {
        let invalid = |text: String| Err(WriteError::Invalid(text));
        let mut names = HashSet::new();
        for pair in &self.pairs {
            if pair.key.is_empty() || pair.key.len() as u64 > LONGEST_KEY {
                return invalid(format!("metadata key '{}' is empty or too long", pair.key));
            }
            if !names.insert(&pair.key) {
                return invalid(format!("metadata key '{}' was added twice", pair.key));
            }
        }
        let mut names = HashSet::new();
        for tensor in &self.tensors {
            if tensor.name.len() as u64 > MAX_TENSOR_NAME {
                return invalid(format!("tensor name '{}' is longer than {MAX_TENSOR_NAME} bytes", tensor.name));
            }
            if !names.insert(&tensor.name) {
                return invalid(format!("tensor '{}' was added twice", tensor.name));
            }
            let broken = tensor.dims.first().is_some_and(|row| !row.is_multiple_of(BLOCK as u64));
            if broken && matches!(tensor.data, TensorData::Q4_0(_)) {
                return invalid(format!("the rows of tensor '{}' are not whole blocks of {BLOCK}", tensor.name));
            }
            let elements = tensor.dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            if tensor.dims.len() > MAX_DIMS as usize || elements != Some(tensor.data.elements()) || elements == Some(0)
            {
                return invalid(format!(
                    "tensor '{}' of shape {:?} has {} elements",
                    tensor.name,
                    tensor.dims,
                    tensor.data.elements()
                ));
            }
        }
        Ok(())
    }

    fn write_to(&self, path: &Path) -> io::Result<u64> {
        let header = self.header();
        let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
        out.write_all(&header)?;
        let mut position = header.len() as u64;
        pad(&mut out, &mut position)?;
        for tensor in &self.tensors {
            tensor.data.write(&mut out)?;
            position += tensor.data.bytes();
            pad(&mut out, &mut position)?;
        }
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(position)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for pair in &self.pairs {
            out.extend(encoded(&pair.key));
            out.extend((pair.kind as u32).to_le_bytes());
            out.extend(&pair.bytes);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            out.extend(encoded(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.data.kind().0.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.data.bytes().next_multiple_of(DEFAULT_ALIGNMENT.into());
        }
        out
    }
}

/// A string as it stands in the file: its length in 8 bytes, then its bytes.
fn encoded(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn pad(out: &mut impl Write, position: &mut u64) -> io::Result<()> {
    let aligned = position.next_multiple_of(DEFAULT_ALIGNMENT.into());
    for _ in *position..aligned {
        out.write_all(&[0])?;
    }
    *position = aligned;
    Ok(())
}
