//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// Whether somebody wants the program to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that signals set.
    ///
    /// # Errors
    /// When the system lets no handler be set.
    pub fn handled() -> Result<Self, Failure> {
        let interrupt = Self::default();
        let handled = interrupt.clone();
        ctrlc::set_handler(move || {
            if handled.0.swap(true, Ordering::Relaxed) {
                process::exit(130);
            }
        })
        .map_err(|error| Failure::new(format!("Ctrl-C cannot be handled: {error}")))?;
        Ok(interrupt)
    }

    /// Sets it as a signal would.
    #[cfg(test)]
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
