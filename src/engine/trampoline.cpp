// C++ exceptions must not reach Rust frames: they abort the process, and the process is somebody's redis-server.
// Each infer_try_… function calls one llama.cpp function that can throw, catches everything, and says what happened.
//
// Assertions of llama.cpp and ggml abort the process too. ggml calls a function of ours before that; where an exception
// would be caught, here or by llama.cpp itself, that function throws one instead of returning.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "catching.h"

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
size_t llama_state_seq_get_size(llama_context * ctx, int32_t seq_id);
size_t llama_state_seq_get_data(llama_context * ctx, uint8_t * dst, size_t size, int32_t seq_id);
size_t llama_state_seq_set_data(llama_context * ctx, const uint8_t * src, size_t size, int32_t dest_seq_id);

typedef void (*ggml_abort_callback_t)(const char * message);
ggml_abort_callback_t ggml_set_abort_callback(ggml_abort_callback_t callback);
}

thread_local bool catching = false;
thread_local bool failed = false;

namespace {

// `message` is "path of a source file:line: what failed".
void on_abort(const char * message) {
    if (catching) {
        failed = true;
        const char * place = std::strstr(message, "llama.cpp/");
        throw std::runtime_error(place ? place : message);
    }
    std::fprintf(stderr, "%s\n", message);
}

// Runs `call`; an exception becomes 1 in *threw, or 2 when it was a failed assertion, and its text in `error`
// (NUL-terminated, cut to `capacity`).
template <typename Call> int32_t caught(Call call, uint8_t * threw, char * error, size_t capacity) {
    *threw = 0;
    catching = true;
    failed = false;
    int32_t result = 0;
    try {
        result = call();
    } catch (const std::exception & e) {
        *threw = 1;
        std::snprintf(error, capacity, "%s", e.what());
    } catch (...) {
        *threw = 1;
        std::snprintf(error, capacity, "unknown C++ exception");
    }
    catching = false;
    if (failed) {
        // llama.cpp may have caught it on the way and made a number of it.
        if (*threw == 0) {
            std::snprintf(error, capacity, "an assertion failed; the server log has it");
        }
        *threw = 2;
    }
    return result;
}

} // namespace

extern "C" {

void infer_catch_aborts() {
    ggml_set_abort_callback(on_abort);
}

void infer_begin_catching() {
    catching = true;
    failed = false;
}

bool infer_end_catching() {
    catching = false;
    return failed;
}

int32_t infer_try_run(void (*work)(void *), void * data, uint8_t * threw, char * error, size_t capacity) {
    return caught([&] { work(data); return 0; }, threw, error, capacity);
}

int32_t infer_try_decode(llama_context * ctx, const llama_batch * batch, uint8_t * threw, char * error, size_t capacity) {
    return caught([&] { return llama_decode(ctx, *batch); }, threw, error, capacity);
}

int32_t infer_try_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens, int32_t n_tokens_max, bool add_special,
                           bool parse_special, uint8_t * threw, char * error, size_t capacity) {
    return caught([&] { return llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special); }, threw, error, capacity);
}

int32_t infer_try_token_to_piece(const llama_vocab * vocab, int32_t token, char * buffer, int32_t length, bool special, uint8_t * threw, char * error,
                                 size_t capacity) {
    return caught([&] { return llama_token_to_piece(vocab, token, buffer, length, 0, special); }, threw, error, capacity);
}

// Each of the next three gives 0 in `done` when llama.cpp refuses.

int32_t infer_try_state_size(llama_context * ctx, int32_t sequence, size_t * done, uint8_t * threw, char * error, size_t capacity) {
    return caught([&] { *done = llama_state_seq_get_size(ctx, sequence); return 0; }, threw, error, capacity);
}

int32_t infer_try_state_save(llama_context * ctx, uint8_t * state, size_t size, int32_t sequence, size_t * done, uint8_t * threw, char * error,
                             size_t capacity) {
    return caught([&] { *done = llama_state_seq_get_data(ctx, state, size, sequence); return 0; }, threw, error, capacity);
}

int32_t infer_try_state_restore(llama_context * ctx, const uint8_t * state, size_t size, int32_t sequence, size_t * done, uint8_t * threw, char * error,
                                size_t capacity) {
    return caught([&] { *done = llama_state_seq_set_data(ctx, state, size, sequence); return 0; }, threw, error, capacity);
}
}
