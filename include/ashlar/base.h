/* ashlar/base.h - status codes, error records, and the hooks every other header uses.
 *
 * Conventions of the whole library
 *  - Functions that can fail return ash_status; out-parameters come last, before `ash_error *err`.
 *  - `err` may be NULL. It is filled where the failure happened, with one sentence that names the
 *    tensor, key, file or byte offset.
 *  - `x_new/open/load` hand ownership to the caller, `x_free/close` accept NULL.
 *  - `view/get` return borrowed memory, valid until the owner changes or is freed.
 *  - Objects are single-threaded unless their header says otherwise.
 */
#ifndef ASHLAR_BASE_H
#define ASHLAR_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASH_API __attribute__((visibility("default")))
#if defined(_WIN32) && (defined(__clang__) || defined(__GNUC__))
#define ASH_PRINTF(f, a) __attribute__((format(gnu_printf, f, a)))
#elif defined(__clang__) || defined(__GNUC__)
#define ASH_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define ASH_PRINTF(f, a)
#endif

/* Every status: name, code, exit code of the program, sentence. The one list of errors. */
#define ASH_STATUS_LIST(X)                                                                         \
    X(OK, 0, 0, "ok")                                                                              \
    X(E_USAGE, -1, 2, "the call's arguments are wrong")                                            \
    X(E_IO, -2, 3, "a file could not be read or written")                                          \
    X(E_FORMAT, -3, 3, "the data is malformed")                                                    \
    X(E_UNSUPPORTED, -4, 3, "the data is valid but not supported")                                 \
    X(E_RANGE, -5, 3, "a value is out of range")                                                   \
    X(E_NOMEM, -6, 4, "out of memory")                                                             \
    X(E_LIMIT, -7, 4, "a limit was reached")                                                       \
    X(E_STATE, -8, 5, "the object is in the wrong state for this call")                            \
    X(E_CANCELLED, -9, 5, "cancelled")                                                             \
    X(E_INTERNAL, -10, 5, "internal error")

typedef enum {
#define X(name, code, exit_code, text) ASH_##name = code,
    ASH_STATUS_LIST(X)
#undef X
} ash_status;

typedef struct {
    ash_status code;
    uint64_t pos;   /* byte offset in the input, where there is one */
    char msg[320];  /* one sentence, UTF-8, no newline */
} ash_error;

/* Stable name ("E_IO"), sentence and program exit code of a status. Never NULL. */
ASH_API const char *ash_status_name(ash_status s);
ASH_API const char *ash_status_text(ash_status s);
ASH_API int ash_status_exit(ash_status s);

/* Fill `err` (may be NULL) and return `code`, so that a failing path reads `return ash_fail(...)`. */
ASH_API ash_status ash_fail(ash_error *err, ash_status code, const char *fmt, ...) ASH_PRINTF(3, 4);
ASH_API ash_status ash_fail_at(ash_error *err, ash_status code, uint64_t pos, const char *fmt, ...)
    ASH_PRINTF(4, 5);
/* Put context in front of an error that is already filled: "tensor x: <msg>". Returns err's code. */
ASH_API ash_status ash_error_prefix(ash_error *err, const char *fmt, ...) ASH_PRINTF(2, 3);

#define ASH_TRY(expr)                                                                              \
    do {                                                                                           \
        ash_status ash_try_s_ = (expr);                                                            \
        if (ash_try_s_ != ASH_OK) return ash_try_s_;                                               \
    } while (0)
/* The same for functions with a cleanup label: needs a local `ash_status st`. */
#define ASH_TRY_GOTO(expr, label)                                                                  \
    do {                                                                                           \
        st = (expr);                                                                               \
        if (st != ASH_OK) goto label;                                                              \
    } while (0)

/* Borrowed bytes. Not NUL-terminated. */
typedef struct {
    const char *p;
    size_t n;
} ash_str;

/* Library version, e.g. "0.1.0". */
ASH_API const char *ash_version(void);

/* CPU levels of this architecture, each including the ones below. ASHLAR_CPU=<level name> masks (the only
 * environment variable the library reads). AVX512 means F+BW+DQ+VL+VNNI. */
#if defined(__aarch64__)
typedef enum { ASH_CPU_SCALAR = 0, ASH_CPU_NEON = 1, ASH_CPU_DOTPROD = 2, ASH_CPU_I8MM = 3, ASH_CPU_COUNT } ash_cpu_level;
#else
typedef enum { ASH_CPU_SCALAR = 0, ASH_CPU_AVX2 = 1, ASH_CPU_AVX512 = 2, ASH_CPU_COUNT } ash_cpu_level;
#endif
ASH_API ash_cpu_level ash_cpu_detect(void);          /* hardware and mask, cached after first call */
ASH_API const char *ash_cpu_level_name(ash_cpu_level l); /* "scalar", "avx2", "avx512"; "scalar", "neon", "dotprod", "i8mm" */
ASH_API bool ash_cpu_level_parse(const char *s, ash_cpu_level *out);
ASH_API const char *ash_cpu_model(void);             /* "AMD EPYC ..." or "unknown"; static storage */
ASH_API int ash_cpu_count(void);                     /* usable processors (affinity-aware), >= 1 */

/* Memory of this machine in bytes, as far as a control group lets this process have it: all of it, and what is free or can be freed now. */
typedef struct { uint64_t total, available; } ash_ram;
ASH_API ash_ram ash_ram_read(void);

/* Progress of long jobs. `done` of `total` units of `stage`; note may be NULL. Return false to
 * cancel: the job ends with ASH_E_CANCELLED, checkpointed where it can be. Called from the thread
 * that runs the job. */
typedef struct {
    bool (*fn)(void *ctx, const char *stage, double done, double total, const char *note);
    void *ctx;
} ash_progress;

/* Several processes at one job ("ranks": 0 .. n-1, rank 0 decides). gather: every rank gives sizes[rank] bytes at `mine`, and each gets
 * all of them, in rank order, at `all`; sizes[n] is the same everywhere. All ranks make the same calls. A rank whose job fails ends the
 * others too: it is told to them where they next meet, and who cannot tell must end them (ash_mpi_close does). */
typedef struct {
    int rank, n;
    ash_status (*gather)(void *ctx, const void *mine, const uint64_t *sizes, void *all, ash_error *err);
    void *ctx;
} ash_ranks;

#ifdef __cplusplus
}
#endif
#endif
