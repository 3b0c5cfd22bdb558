/* base.h - internal foundation: memory, growing buffers, bounds-checked reading, files, threads,
 * clock, rng, hashes. Everything above row 0 may include this; it includes nothing of ashlar but the
 * public base.h. */
#ifndef ASH_BASE_INT_H
#define ASH_BASE_INT_H

#include "ashlar/base.h"

#include <stdarg.h>
#include <string.h>

#define ASH_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define ASH_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ASH_MAX(a, b) ((a) > (b) ? (a) : (b))
#define ASH_LIKELY(x) __builtin_expect(!!(x), 1)
#define ASH_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- checked size arithmetic: mandatory on anything read from outside. true = overflow ---- */
static inline bool ash_mul_ovf(uint64_t a, uint64_t b, uint64_t *out) { return __builtin_mul_overflow(a, b, out); }
static inline bool ash_add_ovf(uint64_t a, uint64_t b, uint64_t *out) { return __builtin_add_overflow(a, b, out); }

/* ---- memory (alloc.c). NULL on failure; n == 0 gives a valid pointer. Thread-safe. ---- */
void *ash_alloc(size_t n);
void *ash_calloc(size_t n, size_t size);          /* overflow-checked, zeroed */
void *ash_realloc(void *p, size_t n);
void *ash_alloc_aligned(size_t n, size_t align);  /* free with ash_free; align is a power of two */
void ash_free(void *p);
char *ash_strdup(const char *s);
char *ash_strndup(const char *s, size_t n);
/* Count of successful allocations so far (tests assert that the token loop makes none). */
uint64_t ash_alloc_count(void);
/* Bytes asked for so far, never reduced by frees (tests bound what a hostile file can make us ask for). */
uint64_t ash_alloc_bytes(void);
uint64_t ash_alloc_live(void); /* bytes allocated and not yet freed, as the allocator rounds them */
/* Tests: let the n-th allocation from now fail (n = 1 is the next one), 0 = never. */
void ash_alloc_fail_after(uint64_t n);

/* Arena: many small allocations freed at once. Zero-initialise to start; 16-byte aligned. */
typedef struct ash_arena { struct ash_arena_block *head; size_t total; } ash_arena;
void *ash_arena_alloc(ash_arena *a, size_t n);    /* NULL on failure */
char *ash_arena_strndup(ash_arena *a, const char *s, size_t n);
void ash_arena_free(ash_arena *a);

/* Growing byte buffer. Zero-initialise; `p` is always NUL-terminated after a successful append.
 * A failed append sets `oom` and keeps the content; check once at the end with ash_buf_ok. */
typedef struct { char *p; size_t n, cap; bool oom; } ash_buf;
void ash_buf_add(ash_buf *b, const void *p, size_t n);
void ash_buf_adds(ash_buf *b, const char *s);
void ash_buf_addc(ash_buf *b, char c);
void ash_buf_addf(ash_buf *b, const char *fmt, ...) ASH_PRINTF(2, 3);
void ash_buf_reset(ash_buf *b);                   /* keep capacity */
void ash_buf_free(ash_buf *b);
static inline bool ash_buf_ok(const ash_buf *b) { return !b->oom; }

/* ---- bounds-checked little-endian reader: all bytes from outside go through this. A failed read
 * sets `bad` (sticky), returns 0 and leaves `pos` at the failing byte. ---- */
typedef struct { const uint8_t *p; uint64_t n, pos; bool bad; } ash_rd;
static inline ash_rd ash_rd_init(const void *p, uint64_t n) { return (ash_rd){(const uint8_t *)p, n, 0, false}; }
static inline uint64_t ash_rd_left(const ash_rd *r) { return r->n - r->pos; }
const void *ash_rd_bytes(ash_rd *r, uint64_t n);  /* borrowed, NULL when short */
uint8_t ash_rd_u8(ash_rd *r);
uint16_t ash_rd_u16(ash_rd *r);
uint32_t ash_rd_u32(ash_rd *r);
uint64_t ash_rd_u64(ash_rd *r);
float ash_rd_f32(ash_rd *r);
double ash_rd_f64(ash_rd *r);

/* ---- files (file.c, map.c) ---- */
/* errno as a status and a sentence: "cannot <what> <path>: <why>" */
ash_status ash_io_fail(ash_error *err, const char *what, const char *path);
typedef struct { const uint8_t *p; uint64_t n; char *path; } ash_map; /* read-only mapping */
ash_status ash_map_open(ash_map *m, const char *path, ash_error *err); /* empty file: p NULL, n 0 */
void ash_map_close(ash_map *m);
/* What the kernel is told about part of a mapping (range.c). RANDOM is a hint; FORGET drops the pages until they
 * are read again; POPULATE reads the pages in; LOCK keeps them (ASH_E_LIMIT
 * where the limit is lower); HUGE asks for large pages (ASH_E_UNSUPPORTED where the kernel has none for files). */
typedef enum { ASH_RANGE_RANDOM, ASH_RANGE_FORGET, ASH_RANGE_POPULATE, ASH_RANGE_LOCK, ASH_RANGE_HUGE } ash_range_how;
ash_status ash_range_use(const void *p, uint64_t n, ash_range_how how, ash_error *err);
/* Read a whole file (at most `limit` bytes) into an owned, NUL-terminated buffer; "-" is stdin. */
ash_status ash_file_read(const char *path, uint64_t limit, ash_buf *out, ash_error *err);

/* Written beside and renamed: nothing is visible under `path` until commit. Short writes, ENOSPC and
 * fsync failures are reported by write or commit; close without commit removes the temporary. */
typedef struct ash_outfile ash_outfile;
ash_status ash_outfile_open(ash_outfile **f, const char *path, ash_error *err);
ash_status ash_outfile_write(ash_outfile *f, const void *p, size_t n, ash_error *err);
ash_status ash_outfile_seek(ash_outfile *f, uint64_t pos, ash_error *err);
uint64_t ash_outfile_pos(const ash_outfile *f);
ash_status ash_outfile_commit(ash_outfile **f, ash_error *err); /* fsync + rename, frees f on success and failure */
void ash_outfile_abort(ash_outfile *f);                          /* accepts NULL */
ash_status ash_file_write_atomic(const char *path, const void *p, size_t n, ash_error *err);
/* Scratch memory backed by an unlinked file in `dir` (spill space): the kernel may write it back. */
ash_status ash_spill_map(const char *dir, uint64_t n, void **p, ash_error *err);
void ash_spill_unmap(void *p, uint64_t n);
/* n bytes that read as zero and take memory only where they are written: stands in for tensor data that is not there. */
ash_status ash_zero_map(uint64_t n, void **p, ash_error *err);
void ash_zero_unmap(void *p, uint64_t n);

/* ---- threads (pool.c): a fixed set of workers that spin briefly, then park ---- */
typedef struct ash_pool ash_pool;
/* n_threads >= 1 counts the caller. Owns n_threads-1 workers. */
ash_status ash_pool_new(ash_pool **p, int n_threads, ash_error *err);
void ash_pool_free(ash_pool *p);
int ash_pool_threads(const ash_pool *p);          /* NULL pool counts as 1 */
/* Call fn(ctx, begin, end, ith) over [0, n) in pieces of about `grain`, claimed dynamically by all
 * threads incl. the caller; returns when all is done. `ith` in [0, threads) indexes per-thread
 * scratch. Results must not depend on who runs what. Not reentrant; no allocation. NULL pool runs inline. */
typedef void (*ash_pool_fn)(void *ctx, int64_t begin, int64_t end, int ith);
void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *ctx);

/* ---- clock, rng, hashes, log ---- */
double ash_now(void);                             /* monotonic seconds */
typedef struct { uint64_t s[4]; } ash_rng;        /* xoshiro256** (Blackman, Vigna) */
void ash_rng_seed(ash_rng *r, uint64_t seed);     /* splitmix64 expansion */
uint64_t ash_rng_u64(ash_rng *r);
double ash_rng_f64(ash_rng *r);                   /* [0, 1) */
uint64_t ash_rng_below(ash_rng *r, uint64_t n);   /* unbiased, n >= 1 */
uint64_t ash_hash64(const void *p, size_t n);     /* XXH3 */
size_t ash_utf8_put(uint32_t c, char out[4]);      /* a character as UTF-8: 1 to 4 bytes */
typedef struct { uint32_t h[8]; uint64_t n; uint8_t buf[64]; } ash_sha256;
void ash_sha256_init(ash_sha256 *s);
void ash_sha256_add(ash_sha256 *s, const void *p, size_t n);
void ash_sha256_hex(ash_sha256 *s, char out[65]);
ash_status ash_sha256_file(const char *path, char out[65], ash_error *err);

#endif
