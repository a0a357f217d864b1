//! A LoRA adapter: what every context of its model adds to the weights.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::error::EngineError;
use super::llama_log;
use super::source::CheckedAdapter;
use super::trampoline;

/// An adapter in memory. llama.cpp frees it together with its model.
#[derive(Debug)]
pub(super) struct Adapter {
    ptr: NonNull<sys::llama_adapter_lora>,
    scale: f32,
    /// Bytes of its file, which is copied into memory.
    pub bytes: u64,
}

// SAFETY: nothing changes an adapter once it is loaded; contexts on several threads read it.
unsafe impl Send for Adapter {}
// SAFETY: as above.
unsafe impl Sync for Adapter {}

impl Adapter {
    /// Lets llama.cpp load a checked adapter, before the first context of the model is made: contexts reserve room for
    /// the adapters that are there.
    ///
    /// # Errors
    /// `LOADFAIL` with the reason.
    ///
    /// # Safety
    /// `model` is a live model that no other thread uses, and goes together with the adapter.
    pub(super) unsafe fn load(model: *mut sys::llama_model, file: &CheckedAdapter) -> Result<Self, EngineError> {
        let refused = |reason: String| {
            EngineError::LoadFailed(format!(
                "LORA: llama.cpp cannot load this file: {reason} ({})",
                file.path.display()
            ))
        };
        let path = CString::new(file.path.as_os_str().as_bytes()).map_err(|error| refused(error.to_string()))?;
        llama_log::take_error();
        // SAFETY: `path` is NUL-terminated; `model` by the caller's promise. llama.cpp catches its own exceptions here.
        let (loaded, _) = trampoline::catching(|| unsafe { sys::llama_adapter_lora_init(model, path.as_ptr()) });
        let Some(ptr) = NonNull::new(loaded) else {
            return Err(refused(llama_log::take_error().unwrap_or_else(|| "see the server log".to_owned())));
        };
        Ok(Self { ptr, scale: file.scale, bytes: file.bytes })
    }

    /// Adds it to all that `context` computes from now on.
    ///
    /// # Safety
    /// `context` is a live context of the adapter's model that no other thread uses.
    pub(super) unsafe fn apply(&self, context: NonNull<sys::llama_context>) {
        let (mut adapter, mut scale) = (self.ptr.as_ptr(), self.scale);
        // SAFETY: both arrays have one element; llama.cpp copies them. The context by the caller's promise.
        unsafe { sys::llama_set_adapters_lora(context.as_ptr(), &raw mut adapter, 1, &raw mut scale) };
    }
}
