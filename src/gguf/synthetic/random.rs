//! Random tensors.

use crate::synthetic::Weights;
use crate::write::TensorData;

/// SplitMix64 (Steele, Lea, Flood 2014): enough for weights, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `count` numbers of mean 0 and the given standard deviation, evenly distributed.
    pub(crate) fn values(&mut self, count: u64, deviation: f32) -> Vec<f32> {
        // An even distribution over (-a, a) has the standard deviation a / sqrt(3).
        let half_width = deviation * 3f32.sqrt();
        (0..count)
            .map(|_| {
                let unit = (self.next() >> 40) as f32 / (1u64 << 24) as f32;
                (unit * 2.0 - 1.0) * half_width
            })
            .collect()
    }

    /// A weight matrix with `columns` inputs and `rows` outputs that keeps the size of its input times `gain`.
    pub(crate) fn matrix(&mut self, columns: u64, rows: u64, gain: f32) -> Vec<f32> {
        self.values(columns * rows, gain / (columns as f32).sqrt())
    }
}

impl Weights {
    /// `values` in this format.
    pub(crate) fn data(self, values: Vec<f32>) -> TensorData {
        match self {
            Self::F32 => TensorData::F32(values),
            Self::F16 => TensorData::to_f16(&values),
            Self::Q4_0 => TensorData::to_q4_0(&values),
        }
    }
}
