// C++ exceptions must not reach Rust frames: they abort the process, and the process is somebody's redis-server.
// Each function here calls one llama.cpp function that can throw, catches everything, and says what happened.

#include <cstdint>
#include <cstdio>
#include <exception>

struct llama_context;
struct llama_vocab;

// Layout of llama.h; src/engine/trampoline.rs checks size and offsets against the generated bindings at compile time.
struct llama_batch {
    int32_t    n_tokens;
    int32_t  * token;
    float    * embd;
    int32_t  * pos;
    int32_t  * n_seq_id;
    int32_t ** seq_id;
    int8_t   * logits;
};

extern "C" {
int32_t llama_decode(llama_context * ctx, llama_batch batch);
int32_t llama_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens, int32_t n_tokens_max, bool add_special,
                       bool parse_special);
int32_t llama_token_to_piece(const llama_vocab * vocab, int32_t token, char * buf, int32_t length, int32_t lstrip, bool special);
}

namespace {

// Runs `call`; an exception becomes `true` in *threw and its text in `error` (NUL-terminated, cut to `capacity`).
template <typename Call> int32_t caught(Call call, bool * threw, char * error, size_t capacity) {
    *threw = false;
    try {
        return call();
    } catch (const std::exception & e) {
        std::snprintf(error, capacity, "%s", e.what());
    } catch (...) {
        std::snprintf(error, capacity, "unknown C++ exception");
    }
    *threw = true;
    return 0;
}

} // namespace

extern "C" {

int32_t infer_try_decode(llama_context * ctx, const llama_batch * batch, bool * threw, char * error, size_t capacity) {
    return caught([&] { return llama_decode(ctx, *batch); }, threw, error, capacity);
}

int32_t infer_try_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens, int32_t n_tokens_max, bool add_special,
                           bool parse_special, bool * threw, char * error, size_t capacity) {
    return caught([&] { return llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special); }, threw, error, capacity);
}

int32_t infer_try_token_to_piece(const llama_vocab * vocab, int32_t token, char * buffer, int32_t length, bool special, bool * threw, char * error,
                                 size_t capacity) {
    return caught([&] { return llama_token_to_piece(vocab, token, buffer, length, 0, special); }, threw, error, capacity);
}
}
