//! The element types of ggml and how many bytes they take.

/// An element type by its number in ggml's `enum ggml_type`. Numbers that this crate does not know stay
/// representable: a newer llama.cpp may know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType(pub u32);

/// One row of the type table.
struct Layout {
    number: u32,
    name: &'static str,
    /// Elements in a block.
    elements: u64,
    /// Bytes of a block.
    bytes: u64,
}

const fn layout(number: u32, name: &'static str, elements: u64, bytes: u64) -> Layout {
    Layout { number, name, elements, bytes }
}

/// `enum ggml_type` (ggml/include/ggml.h) with the block sizes of ggml/src/ggml-common.h, as of the llama.cpp
/// in llama-cpp-sys-2 0.1.161. Missing numbers are types that were removed from ggml.
const LAYOUTS: &[Layout] = &[
    layout(0, "F32", 1, 4),
    layout(1, "F16", 1, 2),
    layout(2, "Q4_0", 32, 18),
    layout(3, "Q4_1", 32, 20),
    layout(6, "Q5_0", 32, 22),
    layout(7, "Q5_1", 32, 24),
    layout(8, "Q8_0", 32, 34),
    layout(9, "Q8_1", 32, 36),
    layout(10, "Q2_K", 256, 84),
    layout(11, "Q3_K", 256, 110),
    layout(12, "Q4_K", 256, 144),
    layout(13, "Q5_K", 256, 176),
    layout(14, "Q6_K", 256, 210),
    layout(15, "Q8_K", 256, 292),
    layout(16, "IQ2_XXS", 256, 66),
    layout(17, "IQ2_XS", 256, 74),
    layout(18, "IQ3_XXS", 256, 98),
    layout(19, "IQ1_S", 256, 50),
    layout(20, "IQ4_NL", 32, 18),
    layout(21, "IQ3_S", 256, 110),
    layout(22, "IQ2_S", 256, 82),
    layout(23, "IQ4_XS", 256, 136),
    layout(24, "I8", 1, 1),
    layout(25, "I16", 1, 2),
    layout(26, "I32", 1, 4),
    layout(27, "I64", 1, 8),
    layout(28, "F64", 1, 8),
    layout(29, "IQ1_M", 256, 56),
    layout(30, "BF16", 1, 2),
    layout(34, "TQ1_0", 256, 54),
    layout(35, "TQ2_0", 256, 66),
    layout(39, "MXFP4", 32, 17),
    layout(40, "NVFP4", 64, 36),
    layout(41, "Q1_0", 128, 18),
    layout(42, "Q2_0", 64, 18),
];

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = Self(0);
    /// 16-bit IEEE floats.
    pub const F16: Self = Self(1);
    /// Blocks of 8-bit integers.
    pub const Q8_0: Self = Self(8);
    /// Blocks of 32 numbers of 4 bits with a 16-bit scale.
    pub const Q4_0: Self = Self(2);
    /// 16-bit floats with the exponent of 32-bit ones.
    pub const BF16: Self = Self(30);
    /// Blocks of 4-bit floats with a scale of their own.
    pub const NVFP4: Self = Self(40);

    fn layout(self) -> Option<&'static Layout> {
        LAYOUTS.iter().find(|row| row.number == self.0)
    }

    /// The name as llama.cpp prints it; `None` for an unknown number.
    pub fn name(self) -> Option<&'static str> {
        self.layout().map(|row| row.name)
    }

    /// Elements and bytes of one block; `None` for an unknown number.
    pub fn block(self) -> Option<(u64, u64)> {
        self.layout().map(|row| (row.elements, row.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_types_have_whole_blocks_and_unknown_ones_have_none() {
        assert_eq!(TensorType(12).block(), Some((256, 144)));
        assert_eq!(TensorType(12).name(), Some("Q4_K"));
        assert_eq!(TensorType(4).block(), None, "removed from ggml");
        assert_eq!(TensorType(u32::MAX).name(), None);
    }
}
