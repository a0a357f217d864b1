// The memory that ggml computes with: weights, caches, buffers. The linker redirects the calls by which ggml gets and
// frees it to here (`--wrap`, see build.rs).
//
// - Large pieces lie on huge pages where the system has some. Each token reads all weights once, and with pages of 4 KiB
//   much of that time goes into finding them (figures in docs/OPERATIONS.md, "Memory").
// - A forked process does not get them. Redis forks to save and has no use for them there; to copy their page tables
//   keeps it from answering for some 50 ms per GB on small pages, and what is computed meanwhile would be copied.

#ifdef __linux__

#include <cstddef>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

extern "C" int ggml_cpu_has_amx_int8();

namespace {

// Of x86-64, and of 64-bit ARM with pages of 4 KiB.
constexpr std::size_t HUGE_PAGE = std::size_t(2) << 20;
// What ggml itself aligns to on these CPUs.
constexpr std::size_t ALIGNMENT = 64;

// Advice on all pages that belong to `memory` alone. Where the system does not take it all works as without.
void advise(void * memory, std::size_t size, int advice) {
    static const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
    madvise(memory, size - size % page, advice);
}

// Whether pieces of this size stay behind when the process forks. The weights for the matrix unit AMX are freed without
// us, and what comes to lie in their place must not be missing.
bool stays_behind(std::size_t size) {
    static const bool is_freed_here = ggml_cpu_has_amx_int8() == 0;
    return size >= HUGE_PAGE && is_freed_here;
}

}  // namespace

extern "C" void * __wrap_ggml_aligned_malloc(std::size_t size) {
    const bool is_large = size >= HUGE_PAGE;
    void * memory = nullptr;
    if (size == 0 || posix_memalign(&memory, is_large ? HUGE_PAGE : ALIGNMENT, size) != 0) {
        return nullptr;
    }
    if (is_large) {
        advise(memory, size, MADV_HUGEPAGE);
    }
    if (stays_behind(size)) {
        advise(memory, size, MADV_DONTFORK);
    }
    return memory;
}

extern "C" void __wrap_ggml_aligned_free(void * memory, std::size_t size) {
    if (memory != nullptr && stays_behind(size)) {
        advise(memory, size, MADV_DOFORK);
    }
    std::free(memory);
}

#endif
