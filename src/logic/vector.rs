//! Embedding vectors: unit length, bytes, similarity.

/// Scales `vector` to length 1. One without direction (all zeros, or a value that is not finite) stays as it is.
pub fn l2_normalize(vector: &mut [f32]) {
    let length = norm(vector);
    if length > 0.0 && length.is_finite() {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

/// The bytes of `vector` as `VADD … FP32` takes them: little-endian `f32`.
pub fn to_fp32(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// In `f64`, where the squares of all `f32` values have a place.
fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vector_gets_length_one_and_keeps_its_direction() {
        let mut vector = [3.0, -4.0];
        l2_normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
    }

    #[test]
    fn a_vector_without_direction_stays_as_it_is() {
        let mut zeros = [0.0; 3];
        l2_normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
        let mut infinite = [1.0, f32::INFINITY];
        l2_normalize(&mut infinite);
        assert_eq!(infinite, [1.0, f32::INFINITY]);
    }

    #[test]
    fn squares_beyond_f32_do_not_overflow() {
        let mut vector = [f32::MAX, 0.0];
        l2_normalize(&mut vector);
        assert_eq!(vector, [1.0, 0.0]);
    }

    #[test]
    fn values_are_little_endian_f32() {
        assert_eq!(to_fp32(&[1.0, -2.0]), [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    }

    proptest! {
        #[test]
        fn every_normalized_vector_has_length_one(vector in prop::collection::vec(prop::num::f32::NORMAL, 1..40)) {
            let mut vector = vector;
            l2_normalize(&mut vector);
            prop_assert!((norm(&vector) - 1.0).abs() < 1e-5);
        }
    }
}
