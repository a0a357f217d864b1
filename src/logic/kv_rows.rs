//! Keys and values of tokens, cut out of a saved sequence of llama.cpp and put together in another order.
//!
//! What a block of a prompt is to a model depends on what stands before it and where it stands. Read once behind the
//! beginning of the prompt alone, its rows can be put behind other blocks: that leaves out what the block would have seen of
//! them, so it is an approximation; the place is not, because a key is turned by an angle for each position (RoPE), and can be
//! turned on.
//!
//! The layout of a saved sequence is that of llama.cpp's `state_write` for one context: 16-bit floats, values not transposed
//! (flash attention), a stream for each sequence. Every length is checked against the bytes that are there.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use thiserror::Error;

/// `io_magic` of llama-context.cpp.
const MAGIC: u32 = 0xaf14_3cd8;
/// `GGML_TYPE_F16`.
const F16: u32 = 1;
/// Bytes of such a number.
const NUMBER: usize = size_of::<u16>();

/// Why a saved sequence cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KvError {
    /// It ends too early.
    #[error("a saved sequence ends in the middle of {0}")]
    Short(&'static str),
    /// Something in it is not as it is for the contexts of this module.
    #[error("a saved sequence has {0}")]
    Unexpected(&'static str),
    /// Rows of different models, or more tokens than there are.
    #[error("rows do not fit together: {0}")]
    Misfit(&'static str),
}

/// How a model turns its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which two numbers are turned together.
    pub pairs: Pairs,
    /// Numbers of a head that are turned, the first ones.
    pub turned: usize,
    /// Numbers of a head.
    pub head: usize,
    /// `rope.freq_base`.
    pub base: f64,
    /// What the angle of each pair is divided by; none where it is 1.
    pub divisors: Vec<f32>,
}

/// Which two numbers of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours: `LLAMA_ROPE_TYPE_NORM`.
    Neighbours,
    /// One of the first and one of the second half: `LLAMA_ROPE_TYPE_NEOX`.
    Halves,
}

/// Sizes of one layer, in numbers of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layer {
    key: usize,
    value: usize,
}

/// Keys and values of consecutive tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvRows {
    layers: Vec<Layer>,
    /// Position of the first token.
    first: usize,
    tokens: usize,
    /// For each layer the key of each token.
    keys: Vec<u16>,
    /// For each layer the value of each token.
    values: Vec<u16>,
}

impl KvRows {
    /// Cuts the tokens from position `from` on out of a saved sequence, whose positions begin with 0.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn cut(state: &[u8], from: usize) -> Result<Self, KvError> {
        let saved = Saved::parse(state)?;
        let tokens = saved.tokens.checked_sub(from).ok_or(KvError::Misfit("there are fewer tokens"))?;
        let layers: Vec<Layer> = saved.layers.iter().map(|saved| saved.layer).collect();
        let (key, value) = layers.iter().fold((0, 0), |(key, value), layer| (key + layer.key, value + layer.value));
        let (mut keys, mut values) = (Vec::with_capacity(tokens * key), Vec::with_capacity(tokens * value));
        for layer in &saved.layers {
            push(&mut keys, layer.keys.get(from * layer.layer.key * NUMBER..).unwrap_or_default());
            push(&mut values, layer.values.get(from * layer.layer.value * NUMBER..).unwrap_or_default());
        }
        Ok(Self { layers, first: from, tokens, keys, values })
    }

    /// Of two layers with two heads of four numbers and values of three, with numbers that tell where they come from.
    #[cfg(test)]
    pub fn example(first: usize, tokens: usize) -> Self {
        let layers = vec![Layer { key: 8, value: 3 }; 2];
        let number = |n: usize| f16::from_f32(((n * 37 + first) % 101) as f32 / 8.0).to_bits();
        let keys = (0..2 * 8 * tokens).map(number).collect();
        let values = (0..2 * 3 * tokens).map(|n| number(n + 5)).collect();
        Self { layers, first, tokens, keys, values }
    }

    /// How many tokens these are.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * NUMBER
    }

    /// The keys and the values of each layer, a row for each token.
    fn layers(&self) -> impl Iterator<Item = (Layer, &[u16], &[u16])> {
        let (mut keys, mut values) = (self.keys.as_slice(), self.values.as_slice());
        self.layers.iter().map(move |&layer| {
            let (key, other_keys) = keys.split_at(layer.key * self.tokens);
            let (value, other_values) = values.split_at(layer.value * self.tokens);
            (keys, values) = (other_keys, other_values);
            (layer, key, value)
        })
    }
}

/// Rows without the first `skip` tokens.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The rows.
    pub rows: &'a KvRows,
    /// Tokens that are left out at the beginning.
    pub skip: usize,
}

impl Piece<'_> {
    /// How many tokens are left.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.rows.tokens.saturating_sub(self.skip)
    }
}

/// A saved sequence of `pieces` one behind the other from position 0 on, for a context of `streams` sequences. Keys are
/// turned to where they stand now.
///
/// # Errors
/// [`KvError::Misfit`] when the pieces are of different models or empty.
pub fn join(pieces: &[Piece<'_>], rope: &Rope, streams: u32) -> Result<Vec<u8>, KvError> {
    let layers = &pieces.first().ok_or(KvError::Misfit("there are none"))?.rows.layers;
    if pieces.iter().any(|piece| piece.rows.layers != *layers || piece.tokens() == 0) {
        return Err(KvError::Misfit("they are of different models, or empty"));
    }
    let heads_fit = |layer: &Layer| rope.head > 0 && layer.key.is_multiple_of(rope.head) && rope.turned <= rope.head;
    if !layers.iter().all(heads_fit) {
        return Err(KvError::Misfit("the heads of the model have another width"));
    }
    let tokens: usize = pieces.iter().map(Piece::tokens).sum();
    let count = u32::try_from(tokens).map_err(|_| KvError::Misfit("there are too many"))?;
    let numbers: usize = layers.iter().map(|layer| layer.key + layer.value).sum();
    let mut state = Vec::with_capacity(tokens * (numbers * NUMBER + 12) + 64 * (layers.len() + 1));
    let mut turns = Vec::with_capacity(pieces.len());
    let mut at = 0;
    for piece in pieces {
        let from = piece.rows.first + piece.skip;
        turns.push((at != from).then(|| Turn::by(at as f64 - from as f64, rope)));
        at += piece.tokens();
    }

    put(&mut state, &[MAGIC, 0, streams, count]);
    (0..count).for_each(|position| put(&mut state, &[position, 1, 0]));
    put(&mut state, &[0, u32::try_from(layers.len()).unwrap_or(u32::MAX), 0, 0]);
    let sources: Vec<Vec<_>> = pieces.iter().map(|piece| piece.rows.layers().collect()).collect();
    let mut memory = Memory::default();
    for (number, layer) in layers.iter().enumerate() {
        put(&mut state, &[F16]);
        state.extend_from_slice(&((layer.key * NUMBER) as u64).to_le_bytes());
        for ((piece, turn), source) in pieces.iter().zip(&turns).zip(&sources) {
            let Some((_, keys, _)) = source.get(number) else { continue };
            let keys = keys.get(piece.skip * layer.key..).unwrap_or_default();
            match turn {
                None => state.extend_from_slice(bytemuck::cast_slice(keys)),
                Some(turn) => turn.append(keys, rope, &mut memory, &mut state),
            }
        }
    }
    for (number, layer) in layers.iter().enumerate() {
        put(&mut state, &[F16]);
        state.extend_from_slice(&((layer.value * NUMBER) as u64).to_le_bytes());
        for (piece, source) in pieces.iter().zip(&sources) {
            let Some((_, _, values)) = source.get(number) else { continue };
            let values = values.get(piece.skip * layer.value..).unwrap_or_default();
            state.extend_from_slice(bytemuck::cast_slice(values));
        }
    }
    // The other streams are empty.
    (1..streams).for_each(|_| put(&mut state, &[0]));
    Ok(state)
}

/// Cosine and sine of the angle by which each pair of a head is turned.
struct Turn(Vec<(f32, f32)>);

impl Turn {
    fn by(positions: f64, rope: &Rope) -> Self {
        let divisor = |pair: usize| rope.divisors.get(pair).map_or(1.0, |&divisor| f64::from(divisor));
        let angle = |pair: usize| positions * rope.base.powf(-2.0 * pair as f64 / rope.turned as f64) / divisor(pair);
        let pairs = (0..rope.turned / 2).map(angle);
        Self(pairs.map(|angle| (angle.cos() as f32, angle.sin() as f32)).collect())
    }

    /// Appends turned `keys` to `state`.
    fn append(&self, keys: &[u16], rope: &Rope, memory: &mut Memory, state: &mut Vec<u8>) {
        let Memory { wide, narrow } = memory;
        wide.resize(keys.len(), 0.0);
        keys.reinterpret_cast::<f16>().convert_to_f32_slice(wide);
        for head in wide.chunks_exact_mut(rope.head) {
            self.turn(head, rope);
        }
        narrow.resize(wide.len(), f16::ZERO);
        narrow.convert_from_f32_slice(wide);
        state.extend_from_slice(bytemuck::cast_slice(narrow.reinterpret_cast()));
    }

    fn turn(&self, head: &mut [f32], rope: &Rope) {
        for (pair, &(cos, sin)) in self.0.iter().enumerate() {
            let (one, other) = match rope.pairs {
                Pairs::Neighbours => (2 * pair, 2 * pair + 1),
                Pairs::Halves => (pair, pair + rope.turned / 2),
            };
            let (x, y) = (head[one], head[other]);
            head[one] = x * cos - y * sin;
            head[other] = x * sin + y * cos;
        }
    }
}

/// What turning works in.
#[derive(Default)]
struct Memory {
    wide: Vec<f32>,
    narrow: Vec<f16>,
}

fn put(state: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| state.extend_from_slice(&number.to_le_bytes()));
}

/// Appends numbers that may lie at any address.
fn push(numbers: &mut Vec<u16>, bytes: &[u8]) {
    let begin = numbers.len();
    numbers.resize(begin + bytes.len() / NUMBER, 0);
    if let Some(place) = numbers.get_mut(begin..) {
        bytemuck::cast_slice_mut::<u16, u8>(place).copy_from_slice(bytes);
    }
}

/// Where things are in a saved sequence.
struct Saved<'a> {
    tokens: usize,
    layers: Vec<SavedLayer<'a>>,
}

struct SavedLayer<'a> {
    layer: Layer,
    keys: &'a [u8],
    values: &'a [u8],
}

impl<'a> Saved<'a> {
    fn parse(state: &'a [u8]) -> Result<Self, KvError> {
        let mut rest = Reader(state);
        rest.expect(MAGIC, "another magic number")?;
        rest.number()?;
        let streams = rest.number()?;
        // Only the stream of the sequence has cells; those before it are empty.
        let mut before = 0;
        let tokens = loop {
            match rest.number()? {
                0 if before + 1 < streams => before += 1,
                count => break count as usize,
            }
        };
        if tokens == 0 {
            return Err(KvError::Unexpected("no tokens"));
        }
        for position in 0..tokens {
            let cell = rest.take(12, "its positions")?;
            if cell.get(..4) != Some(&(position as u32).to_le_bytes()[..]) || cell.get(4..8) != Some(&[1, 0, 0, 0][..])
            {
                return Err(KvError::Unexpected("cells that are not in order"));
            }
        }
        rest.expect(0, "values that are transposed")?;
        let count = rest.number()? as usize;
        if (rest.number()?, rest.number()?) != (0, 0) {
            return Err(KvError::Unexpected("quantised keys or values"));
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(rest.layer(tokens)?);
        }
        let mut layers = Vec::with_capacity(keys.len());
        for (key, keys) in keys {
            let (value, values) = rest.layer(tokens)?;
            layers.push(SavedLayer { layer: Layer { key, value }, keys, values });
        }
        for _ in before + 1..streams {
            rest.expect(0, "tokens of several sequences")?;
        }
        if layers.is_empty() || !rest.0.is_empty() {
            return Err(KvError::Unexpected("something behind its end"));
        }
        Ok(Self { tokens, layers })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], KvError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(KvError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn rows(&mut self, rows: usize, bytes: usize, what: &'static str) -> Result<&'a [u8], KvError> {
        self.take(rows.checked_mul(bytes).ok_or(KvError::Short(what))?, what)
    }

    /// The keys or the values of a layer, and how many numbers a token has of them.
    fn layer(&mut self, tokens: usize) -> Result<(usize, &'a [u8]), KvError> {
        self.expect(F16, "numbers of another type")?;
        let row = usize::try_from(self.long()?).map_err(|_| KvError::Unexpected("long rows"))?;
        if row == 0 || !row.is_multiple_of(NUMBER) {
            return Err(KvError::Unexpected("numbers of another type"));
        }
        Ok((row / NUMBER, self.rows(tokens, row, "its rows")?))
    }

    fn number(&mut self) -> Result<u32, KvError> {
        let bytes = self.take(4, "a number")?;
        Ok(bytes.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    fn long(&mut self) -> Result<u64, KvError> {
        let bytes = self.take(8, "a number")?;
        Ok(bytes.try_into().map(u64::from_le_bytes).unwrap_or_default())
    }

    fn expect(&mut self, wanted: u32, otherwise: &'static str) -> Result<(), KvError> {
        if self.number()? == wanted { Ok(()) } else { Err(KvError::Unexpected(otherwise)) }
    }
}

#[cfg(test)]
mod tests;
