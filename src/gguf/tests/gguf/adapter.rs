//! LoRA adapters that fit a model, and those that do not.

use std::path::PathBuf;

use redis_infer_gguf::synthetic::{LlamaShape, LoraShape, write_llama, write_lora};
use redis_infer_gguf::{Adapter, GgufError, Header, TensorData, Writer, check_adapter, check_file};
use tempfile::TempDir;

struct Files {
    folder: TempDir,
    base: Header,
    vocab: u32,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.gguf");
    let vocab = write_llama(&path, &LlamaShape::default(), 1).unwrap().vocab;
    Files { base: check_file(&path).unwrap(), folder, vocab }
}

impl Files {
    fn path(&self) -> PathBuf {
        self.folder.path().join("lora.gguf")
    }

    fn check(&self) -> Result<Adapter, GgufError> {
        check_adapter(&self.path(), &self.base)
    }

    #[track_caller]
    fn refused(&self, part: &str) {
        let refusal = self.check().unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal}");
    }

    /// An adapter with this metadata that changes one tensor.
    fn write(&self, architecture: &str, change: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::new(architecture);
        change(&mut writer);
        writer.write(&self.path()).unwrap();
    }

    /// A sound adapter but for its tensors, whose names and shapes are given.
    fn with_tensors(&self, tensors: &[(&str, &[u64])]) {
        self.write("llama", |writer| {
            writer.string("general.type", "adapter").string("adapter.type", "lora").f32("adapter.lora.alpha", 1.0);
            for (name, dims) in tensors {
                let count: u64 = dims.iter().product();
                writer.tensor(name, dims, TensorData::F32(vec![0.0; count as usize]));
            }
        });
    }
}

const A: &str = "blk.0.attn_k.weight.lora_a";
const B: &str = "blk.0.attn_k.weight.lora_b";

#[test]
fn an_adapter_made_for_the_model_fits() {
    let files = files();
    let shape = LoraShape { embedding: true, ..LoraShape::default() };
    write_lora(&files.path(), &LlamaShape::default(), files.vocab, &shape, 7).unwrap();
    let adapter = files.check().unwrap();
    assert_eq!((adapter.header.tensors.len(), adapter.ignored), (2 * (2 * 7 + 2), 0));
}

#[test]
fn a_model_is_no_adapter() {
    let files = files();
    std::fs::copy(files.folder.path().join("base.gguf"), files.path()).unwrap();
    files.refused("general.type is 'model', not 'adapter'");
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let files = files();
    files.write("llama", |_| ());
    files.refused("general.type is missing");
    files.write("llama", |writer| _ = writer.u32("general.type", 1));
    files.refused("general.type is missing");
    files.write("llama", |writer| _ = writer.string("general.type", "adapter").string("adapter.type", "dora"));
    files.refused("adapter.type is 'dora'");
    let lora = |writer: &mut Writer| _ = writer.string("general.type", "adapter").string("adapter.type", "lora");
    files.write("qwen2", lora);
    files.refused("architecture 'qwen2', the model's is 'llama'");
    files.write("llama", |writer| {
        lora(writer);
        writer.f32("adapter.lora.alpha", f32::NAN);
    });
    files.refused("adapter.lora.alpha");
    files.write("llama", |writer| {
        lora(writer);
        writer.u32("adapter.lora.alpha", 1);
    });
    files.refused("adapter.lora.alpha");
    files.write("llama", |writer| {
        lora(writer);
        writer.u32s("adapter.alora.invocation_tokens", &[1]);
    });
    files.refused("activated LoRA");
    files.write("llama", |writer| {
        lora(writer);
        writer.u16("split.count", 2);
    });
    files.refused("split into several files");
    files.write("llama", lora);
    files.refused("changes no weight");
}

#[test]
fn halves_that_do_not_fit_the_weight_or_each_other_are_refused() {
    let files = files();
    files.with_tensors(&[(A, &[64, 4]), (B, &[4, 32])]);
    files.check().unwrap();
    let wrong: [(&[u64], &[u64]); 7] = [
        (&[32, 4], &[4, 32]),
        (&[64, 4], &[4, 64]),
        (&[64, 4], &[8, 32]),
        (&[4, 64], &[32, 4]),
        (&[64, 4, 2], &[4, 32]),
        (&[64, 4], &[4, 32, 2]),
        (&[64], &[4, 32]),
    ];
    for (a, b) in wrong {
        files.with_tensors(&[(A, a), (B, b)]);
        files.refused("do not fit the [64, 32] of the model");
    }
    files.with_tensors(&[(A, &[64, 4, 1, 2]), (B, &[4, 32])]);
    files.refused("do not fit");
}

#[test]
fn the_token_embedding_is_changed_the_other_way_round() {
    let files = files();
    let vocab = u64::from(files.vocab);
    let names = ["token_embd.weight.lora_a", "token_embd.weight.lora_b"];
    files.with_tensors(&[(names[0], &[4, vocab]), (names[1], &[4, 64])]);
    files.check().unwrap();
    files.with_tensors(&[(names[0], &[4, vocab]), (names[1], &[8, 64])]);
    files.refused("do not fit");
    let mut tied = files.base.clone();
    tied.tensors.retain(|tensor| tensor.name != "output.weight");
    files.with_tensors(&[(names[0], &[4, vocab]), (names[1], &[4, 64])]);
    let refusal = check_adapter(&files.path(), &tied).unwrap_err().to_string();
    assert!(refusal.contains("also computes its logits"), "{refusal}");
}

#[test]
fn tensors_that_mean_nothing_for_the_model_are_refused() {
    let files = files();
    files.with_tensors(&[(A, &[64, 4])]);
    files.refused("one half of the change to 'blk.0.attn_k.weight' is missing");
    files.with_tensors(&[("blk.9.attn_k.weight.lora_a", &[64, 4]), ("blk.9.attn_k.weight.lora_b", &[4, 32])]);
    files.refused("the model has no tensor 'blk.9.attn_k.weight'");
    files.with_tensors(&[("blk.0.attn_k.weight", &[64, 4])]);
    files.refused("neither half");
    files.with_tensors(&[("x.lora_a.lora_a", &[64, 4])]);
    files.refused("neither half");
    files.with_tensors(&[("blk.0.attn_norm.weight.lora_a", &[64, 4]), ("blk.0.attn_norm.weight.lora_b", &[4, 1])]);
    files.refused("cannot adapt");
}

#[test]
fn norms_are_counted_because_llama_cpp_leaves_them_out() {
    let files = files();
    files.with_tensors(&[(A, &[64, 4]), (B, &[4, 32]), ("blk.0.attn_norm.weight", &[64])]);
    assert_eq!(files.check().unwrap().ignored, 1);
}
