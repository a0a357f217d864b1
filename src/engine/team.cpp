// The threads of a forward pass. ggml shares the work of each step of a graph with three words of OpenMP: parallel,
// single, barrier. GCC makes calls of them, and they end here instead of in libgomp, because in a server beside others
// libgomp does badly (the figures are in docs/OPERATIONS.md, "Threads"):
//
// - It spins at a barrier for milliseconds. When another process has one of the CPUs, a token takes a hundred times as
//   long. With OMP_WAIT_POLICY=passive it never spins, and an idle machine is three times slower.
// - When all its teams together have more threads than there are CPUs it stops spinning as well; two workers are enough.
// - An exception on one of its threads ends the process. Here it ends the pass: failed assertions are errors on every
//   thread.
// - It does not tell that threads had to wait for a CPU, from which the caller learns that fewer are better now.
//
// Each thread that computes has a team of its own, whose helpers inherit its nice value, CPUs and signal mask. They sleep
// between passes, and end with their thread. Compilers with another OpenMP library do not make these calls and use that.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <exception>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include <fcntl.h>
#include <unistd.h>
#endif

#include "catching.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

// How long a thread spins for another one before it sleeps. On idle CPUs a small model makes it wait for microseconds,
// and to wake up takes some 50; a thread that has lost its CPU is away for milliseconds.
constexpr nanoseconds SPIN = std::chrono::microseconds(300);
// How much of one pass a thread spins in vain before it only sleeps until the end of the pass.
constexpr nanoseconds SPIN_IN_VAIN = std::chrono::milliseconds(2);
// How long a helper spins for the next pass.
constexpr nanoseconds SPIN_IDLE = std::chrono::microseconds(50);

// Thrown at a barrier of a pass that has failed on another thread.
struct Deserted {};

void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

// Waits until `word` is not `old` any more, for at most `limit`; whether it is.
bool spin(const std::atomic<int> & word, int old, nanoseconds limit) {
    const auto begun = Clock::now();
    for (unsigned i = 1; word.load(std::memory_order_acquire) == old; i++) {
        if (i % 64 == 0 && Clock::now() - begun > limit) {
            return false;
        }
        relax();
    }
    return true;
}

void sleep(const std::atomic<int> & word, int old) {
    while (word.load(std::memory_order_acquire) == old) {
        word.wait(old, std::memory_order_acquire);
    }
}

// Sequentially consistent, or the thread that is about to sleep could be overlooked.
void announce(std::atomic<int> & word, int value) {
    word.store(value);
    word.notify_all();
}

// How long this thread has been ready to run and had no CPU since it was made. Where the system does not tell, all the
// time that it did not run.
class Delay {
  public:
    nanoseconds now() {
#ifdef __linux__
        // "time on CPUs, time ready without one, times on CPUs"; see proc(5)
        char text[80];
        const ssize_t length = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
        if (length > 0) {
            text[length] = 0;
            unsigned long long delay = 0;
            if (std::sscanf(text, "%*u %llu", &delay) == 1) {
                return nanoseconds(delay);
            }
        }
#endif
        timespec cpu {};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
        const auto computed = std::chrono::seconds(cpu.tv_sec) + nanoseconds(cpu.tv_nsec);
        return std::chrono::duration_cast<nanoseconds>(Clock::now().time_since_epoch()) - computed;
    }

#ifdef __linux__
    Delay() : file(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {}
    ~Delay() {
        if (file >= 0) {
            close(file);
        }
    }

  private:
    int file;
#endif
};

thread_local Delay delay;

class Team;

// A thread in a pass.
struct Seat {
    Team * team;
    int number;
    // Spent spinning for threads that did not come.
    nanoseconds in_vain {};

    void wait(const std::atomic<int> & word, int old) {
        if (in_vain < SPIN_IN_VAIN) {
            if (spin(word, old, SPIN)) {
                return;
            }
            in_vain += SPIN;
        }
        sleep(word, old);
    }
};

thread_local Seat * seat = nullptr;
// Time that threads of passes begun by this one were ready to run and did not, the worst of each pass.
thread_local nanoseconds lost {};

struct alignas(64) Helper {
    // Number of the pass to take part in; negative to end.
    std::atomic<int> pass {0};
    nanoseconds lost {};
    std::thread thread;
};

class Team {
  public:
    ~Team() {
        for (auto & helper : helpers) {
            announce(helper->pass, -1);
            helper->thread.join();
        }
    }

    int size() const { return members; }

    // Runs `work` on `threads` threads, this one among them; on fewer when the system refuses more.
    void run(void (*work)(void *), void * data, unsigned threads) {
        while (helpers.size() + 1 < threads && add_helper()) {
        }
        if (helpers.size() + 1 < threads) {
            threads = unsigned(helpers.size()) + 1;
        }
        this->work = work;
        this->data = data;
        members = int(threads);
        may_catch = catching;
        helper_failed = false;
        error = nullptr;
        broken = false;
        arrived = 0;
        running = int(threads) - 1;
        pass = pass == INT32_MAX ? 1 : pass + 1;
        for (unsigned i = 0; i + 1 < threads; i++) {
            announce(helpers[i]->pass, pass);
        }
        auto worst = take_part(0);
        for (int left = running; left != 0; left = running) {
            if (!spin(running, left, SPIN)) {
                sleep(running, left);
            }
        }
        for (unsigned i = 0; i + 1 < threads; i++) {
            worst = std::max(worst, helpers[i]->lost);
        }
        lost += worst;
        failed |= helper_failed;
        if (error) {
            std::rethrow_exception(std::exchange(error, nullptr));
        }
    }

    void barrier() {
        const int here = round;
        if (!broken) {
            if (arrived.fetch_add(1) + 1 == members) {
                arrived = 0;
                next_round();
            } else {
                seat->wait(round, here);
            }
        }
        if (broken) {
            throw Deserted();
        }
    }

  private:
    std::vector<std::unique_ptr<Helper>> helpers;
    int pass = 0;
    // Of the pass under way.
    void (*work)(void *) = nullptr;
    void * data = nullptr;
    int members = 1;
    bool may_catch = false;
    std::atomic<bool> helper_failed {false};
    std::exception_ptr error;
    std::atomic<bool> broken {false};
    alignas(64) std::atomic<int> running {0};
    alignas(64) std::atomic<int> arrived {0};
    alignas(64) std::atomic<int> round {0};

    void next_round() {
        round.fetch_add(1);
        round.notify_all();
    }

    bool add_helper() {
        auto helper = std::make_unique<Helper>();
        const int number = int(helpers.size()) + 1;
        try {
            helper->thread = std::thread([this, number, self = helper.get()] { serve(number, *self); });
        } catch (const std::system_error &) {
            return false;
        }
        helpers.push_back(std::move(helper));
        return true;
    }

    void serve(int number, Helper & self) {
        int done = 0;
        for (;;) {
            if (!spin(self.pass, done, SPIN_IDLE)) {
                sleep(self.pass, done);
            }
            done = self.pass;
            if (done < 0) {
                return;
            }
            catching = may_catch;
            failed = false;
            self.lost = take_part(number);
            if (failed) {
                helper_failed = true;
            }
            if (running.fetch_sub(1) == 1) {
                running.notify_all();
            }
        }
    }

    // This thread's part of the pass; how long it was ready to run and did not.
    nanoseconds take_part(int number) {
        Seat own {this, number};
        seat = &own;
        const auto before = delay.now();
        try {
            work(data);
        } catch (const Deserted &) {
            // The thread that failed has said why.
        } catch (...) {
            if (!broken.exchange(true)) {
                error = std::current_exception();
            }
            next_round();
        }
        seat = nullptr;
        return delay.now() - before;
    }
};

thread_local std::unique_ptr<Team> own_team;

} // namespace

extern "C" {

// 0 threads is "as many as you like", which only code outside of ggml's passes asks for.
void GOMP_parallel(void (*work)(void *), void * data, unsigned threads, unsigned) {
    if (threads < 2 || seat) {
        Seat * const outer = std::exchange(seat, nullptr);
        work(data);
        seat = outer;
        return;
    }
    if (!own_team) {
        own_team = std::make_unique<Team>();
    }
    own_team->run(work, data, threads);
}

void GOMP_barrier() {
    if (seat) {
        seat->team->barrier();
    }
}

bool GOMP_single_start() {
    return !seat || seat->number == 0;
}

int omp_get_thread_num() {
    return seat ? seat->number : 0;
}

int omp_get_num_threads() {
    return seat ? seat->team->size() : 1;
}

// Nanoseconds that threads were ready to run and did not, in all passes of this thread since the last call.
uint64_t infer_take_lost_ns() {
    return uint64_t(std::max<int64_t>(0, std::exchange(lost, nanoseconds {}).count()));
}
}
