//! What a cross-encoder makes of a pair, computed here from the tensors of its file: BERT as its authors describe it, with
//! GELU in its tanh form, as llama.cpp has it.

use std::path::Path;

use redis_infer_gguf::{Header, TensorType, check_file, read_strings};

/// A model file in memory.
pub struct CrossEncoder {
    header: Header,
    bytes: Vec<u8>,
    tokens: Vec<String>,
}

impl CrossEncoder {
    /// Reads a file whose tensors are F32.
    pub fn open(path: &Path) -> Self {
        Self {
            header: check_file(path).unwrap(),
            bytes: std::fs::read(path).unwrap(),
            tokens: read_strings(path, "tokenizer.ggml.tokens").unwrap(),
        }
    }

    /// The score of a query and a text, both of whole words of the vocabulary: `[CLS] query [SEP] text [SEP]`. `segments`
    /// are the token types of the query and of the text.
    pub fn score(&self, query: &str, text: &str, segments: [usize; 2]) -> f64 {
        let [cls, sep] = ["[CLS]", "[SEP]"].map(|token| vec![self.id(token)]);
        let words = |text: &str| text.split(' ').map(|word| self.id(&format!("\u{2581}{word}"))).collect::<Vec<_>>();
        let [first, second] = [[cls, words(query), sep.clone()].concat(), [words(text), sep].concat()];
        let typed = |tokens: Vec<usize>, segment: usize| tokens.into_iter().map(move |token| (token, segment));
        self.forward(&typed(first, segments[0]).chain(typed(second, segments[1])).collect::<Vec<_>>())
    }

    fn id(&self, token: &str) -> usize {
        self.tokens.iter().position(|known| known == token).unwrap_or_else(|| panic!("no token {token}"))
    }

    fn number(&self, key: &str) -> usize {
        self.header.arch_u32(key).unwrap() as usize
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensor = self.header.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(tensor.kind, TensorType::F32);
        let start = usize::try_from(self.header.data_offset + tensor.offset).unwrap();
        let data = &self.bytes[start..][..usize::try_from(tensor.size.unwrap()).unwrap()];
        data.as_chunks::<4>().0.iter().map(|float| f64::from(f32::from_le_bytes(*float))).collect()
    }

    fn row(&self, name: &str, row: usize) -> Vec<f64> {
        let width = self.number("embedding_length");
        self.tensor(name)[row * width..][..width].to_vec()
    }

    fn linear(&self, name: &str, input: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        weight.chunks(input.len()).zip(bias).map(|(row, bias)| dot(row, input) + bias).collect()
    }

    fn norm(&self, name: &str, input: &[f64]) -> Vec<f64> {
        const EPSILON: f64 = 1e-12;
        let (weight, bias) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let length = input.len() as f64;
        let mean = input.iter().sum::<f64>() / length;
        let variance = input.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length;
        let scaled = input.iter().map(|x| (x - mean) / (variance + EPSILON).sqrt());
        scaled.zip(weight).zip(bias).map(|((x, weight), bias)| x * weight + bias).collect()
    }

    /// The score of a sequence of tokens and their types.
    fn forward(&self, tokens: &[(usize, usize)]) -> f64 {
        let mut states: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(position, &(token, segment))| {
                let segment = self.row("token_types.weight", segment);
                let word = self.row("token_embd.weight", token);
                let place = self.row("position_embd.weight", position);
                self.norm("token_embd_norm", &sum(&sum(&word, &segment), &place))
            })
            .collect();
        for layer in 0..self.number("block_count") {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let attended = self.attention(layer, &states);
            for (state, attended) in states.iter_mut().zip(attended) {
                let attended = self.linear(&name("attn_output"), &attended);
                let between = self.norm(&name("attn_output_norm"), &sum(state, &attended));
                let wide: Vec<f64> = self.linear(&name("ffn_up"), &between).into_iter().map(gelu).collect();
                let narrow = self.linear(&name("ffn_down"), &wide);
                *state = self.norm(&name("layer_output_norm"), &sum(&between, &narrow));
            }
        }
        let pooled: Vec<f64> = self.linear("cls", &states[0]).into_iter().map(f64::tanh).collect();
        self.linear("cls.output", &pooled)[0]
    }

    /// What each token takes from all tokens, all heads side by side.
    fn attention(&self, layer: usize, states: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let [queries, keys, values] = ["attn_q", "attn_k", "attn_v"].map(|part| {
            states.iter().map(|state| self.linear(&format!("blk.{layer}.{part}"), state)).collect::<Vec<_>>()
        });
        let width = states[0].len() / self.number("attention.head_count");
        let of_token = |query: &Vec<f64>| {
            let of_head = |head: usize| {
                let part = head * width..(head + 1) * width;
                let scale = (width as f64).sqrt();
                let weights = keys.iter().map(|key| (dot(&query[part.clone()], &key[part.clone()]) / scale).exp());
                let weights: Vec<f64> = weights.collect();
                let whole: f64 = weights.iter().sum();
                part.map(|i| values.iter().zip(&weights).map(|(value, w)| value[i] * w).sum::<f64>() / whole)
                    .collect::<Vec<f64>>()
            };
            (0..self.number("attention.head_count")).flat_map(of_head).collect()
        };
        queries.iter().map(of_token).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}
