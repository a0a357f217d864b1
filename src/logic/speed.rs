//! What forward passes cost: learned from those that were made, so that the next one can be as long as it should.

use std::time::Duration;

/// Weight of the past in the running averages; a change of speed is followed in about five steps.
const PAST_WEIGHT: f64 = 0.8;

/// What forward passes have cost lately: a fixed part, as of a pass with decode tokens only, and
/// a part that grows with the prefill tokens.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Seconds of a pass without prefill, averaged; 0 while none was seen.
    pub(super) decode_seconds: f64,
    /// Seconds and tokens of prefill, both fading with each pass, so that their ratio is an
    /// average in which large passes weigh more than small ones.
    prefill_seconds: f64,
    prefill_tokens: f64,
}

impl Speed {
    pub(super) fn learn(&mut self, decode: usize, prefill: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        if prefill == 0 {
            if decode > 0 {
                self.decode_seconds = if self.decode_seconds == 0.0 {
                    elapsed
                } else {
                    self.decode_seconds * PAST_WEIGHT + elapsed * (1.0 - PAST_WEIGHT)
                };
            }
            return;
        }
        let seconds = if decode == 0 {
            elapsed
        } else {
            // A pass with prefill in it costs no less than one without.
            self.decode_seconds = self.decode_seconds.min(elapsed);
            elapsed - self.decode_seconds
        };
        self.prefill_seconds = self.prefill_seconds * PAST_WEIGHT + seconds;
        self.prefill_tokens = self.prefill_tokens * PAST_WEIGHT + prefill as f64;
    }

    /// Prefill tokens that are read in `seconds`; 0 while nothing is known.
    pub(super) fn prefill_tokens(&self, seconds: f64) -> usize {
        if self.prefill_tokens == 0.0 {
            return 0;
        }
        let tokens = seconds.max(0.0) * self.prefill_tokens / self.prefill_seconds;
        // The cast saturates when prefill took no measurable time.
        tokens as usize
    }
}
