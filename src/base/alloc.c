/* alloc.c - allocation with a counter and a fault hook, arenas, growing buffers. */
#include "base/base.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic uint64_t g_count;
static _Atomic uint64_t g_live;       /* bytes of blocks not yet freed */
static _Atomic uint64_t g_bytes;      /* requested, cumulative */
static _Atomic uint64_t g_fail_after; /* 0 = never; counts down */

static bool should_fail(uint64_t bytes) {
    atomic_fetch_add_explicit(&g_bytes, bytes, memory_order_relaxed);
    uint64_t n = atomic_load_explicit(&g_fail_after, memory_order_relaxed);
    if (ASH_LIKELY(n == 0)) {
        atomic_fetch_add_explicit(&g_count, 1, memory_order_relaxed);
        return false;
    }
    n = atomic_fetch_sub(&g_fail_after, 1);
    if (n == 1) { /* stays failing until reset, as a full machine would */
        atomic_store(&g_fail_after, 1);
        return true;
    }
    atomic_fetch_add_explicit(&g_count, 1, memory_order_relaxed);
    return false;
}

uint64_t ash_alloc_count(void) { return atomic_load(&g_count); }
uint64_t ash_alloc_bytes(void) { return atomic_load(&g_bytes); }
void ash_alloc_fail_after(uint64_t n) { atomic_store(&g_fail_after, n); }

#ifdef _WIN32
/* Windows has no aligned block that free() takes, nor a size of a block: both are kept in front of it. */
typedef struct {
    void *raw;
    size_t n;
} block_head;
static size_t sys_size(void *p) { return ((block_head *)p)[-1].n; }
static void *sys_alloc(size_t n, size_t align) {
    if (n > SIZE_MAX - align - sizeof(block_head)) return NULL;
    char *raw = malloc(n + align + sizeof(block_head));
    if (!raw) return NULL;
    char *p = (char *)(((uintptr_t)raw + sizeof(block_head) + align - 1) & ~(uintptr_t)(align - 1));
    ((block_head *)(void *)p)[-1] = (block_head){raw, n};
    return p;
}
static void sys_free(void *p) {
    if (p) free(((block_head *)p)[-1].raw);
}
static void *sys_zeroed(size_t n) {
    void *p = sys_alloc(n, 16);
    return p ? memset(p, 0, n) : NULL;
}
static void *sys_realloc(void *p, size_t n) {
    void *q = sys_alloc(n, 16);
    if (!q || !p) return q;
    memcpy(q, p, ASH_MIN(n, sys_size(p)));
    sys_free(p);
    return q;
}
#else
static void *sys_alloc(size_t n, size_t align) {
    void *p = NULL;
    if (align <= 16) return malloc(n);
    return posix_memalign(&p, align, n) == 0 ? p : NULL;
}
#define sys_size(p) malloc_usable_size(p)
#define sys_zeroed(n) calloc(1, n)
#define sys_realloc(p, n) realloc(p, n)
#define sys_free(p) free(p)
#endif

uint64_t ash_alloc_live(void) { return atomic_load(&g_live); }

static void *born(void *p) {
    if (p) atomic_fetch_add_explicit(&g_live, sys_size(p), memory_order_relaxed);
    return p;
}
static void gone(void *p) {
    if (p) atomic_fetch_sub_explicit(&g_live, sys_size(p), memory_order_relaxed);
}

void *ash_alloc(size_t n) { return should_fail(n) ? NULL : born(sys_alloc(n ? n : 1, 16)); }
void *ash_calloc(size_t n, size_t size) {
    uint64_t total;
    if (ash_mul_ovf(n, size, &total) || should_fail(total)) return NULL;
    return born(sys_zeroed(total ? total : 1));
}
void *ash_realloc(void *p, size_t n) {
    if (should_fail(n)) return NULL;
    size_t old = p ? sys_size(p) : 0;
    void *q = sys_realloc(p, n ? n : 1);
    if (q) {
        atomic_fetch_sub_explicit(&g_live, old, memory_order_relaxed);
        born(q);
    }
    return q;
}
void *ash_alloc_aligned(size_t n, size_t align) { return should_fail(n) ? NULL : born(sys_alloc(n ? n : 1, align)); }
void ash_free(void *p) {
    gone(p);
    sys_free(p);
}

char *ash_strndup(const char *s, size_t n) {
    char *d = ash_alloc(n + 1);
    if (!d) return NULL;
    if (n) memcpy(d, s, n);
    d[n] = 0;
    return d;
}
char *ash_strdup(const char *s) { return ash_strndup(s, strlen(s)); }

/* ---- arena ---- */
struct ash_arena_block {
    struct ash_arena_block *next;
    size_t used, cap;
    _Alignas(16) char mem[];
};

void *ash_arena_alloc(ash_arena *a, size_t n) {
    if (n > SIZE_MAX / 2) return NULL;
    n = (n + 15) & ~(size_t)15;
    struct ash_arena_block *b = a->head;
    if (!b || b->cap - b->used < n) {
        size_t cap = ASH_MAX(n, b ? ASH_MIN(b->cap * 2, (size_t)1 << 20) : (size_t)4096);
        b = ash_alloc(sizeof *b + cap);
        if (!b) return NULL;
        b->next = a->head;
        b->used = 0;
        b->cap = cap;
        a->head = b;
        a->total += cap;
    }
    void *p = b->mem + b->used;
    b->used += n;
    return p;
}

char *ash_arena_strndup(ash_arena *a, const char *s, size_t n) {
    char *d = ash_arena_alloc(a, n + 1);
    if (!d) return NULL;
    if (n) memcpy(d, s, n);
    d[n] = 0;
    return d;
}

void ash_arena_free(ash_arena *a) {
    for (struct ash_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        ash_free(b);
    }
    *a = (ash_arena){0};
}

/* ---- growing buffer ---- */
static bool reserve(ash_buf *b, size_t more) {
    if (b->oom) return false;
    if (more > SIZE_MAX - b->n - 1) return b->oom = true, false;
    size_t need = b->n + more + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = ash_realloc(b->p, cap);
    if (!p) return b->oom = true, false;
    b->p = p;
    b->cap = cap;
    return true;
}

void ash_buf_add(ash_buf *b, const void *p, size_t n) {
    if (!reserve(b, n)) return;
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}
void ash_buf_adds(ash_buf *b, const char *s) { ash_buf_add(b, s, strlen(s)); }
void ash_buf_addc(ash_buf *b, char c) { ash_buf_add(b, &c, 1); }
void ash_buf_addf(ash_buf *b, const char *fmt, ...) {
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap2);
        b->n += (size_t)n;
    }
    va_end(ap2);
}
void ash_buf_reset(ash_buf *b) {
    b->n = 0;
    b->oom = false;
    if (b->p) b->p[0] = 0;
}
void ash_buf_free(ash_buf *b) {
    ash_free(b->p);
    *b = (ash_buf){0};
}
