/* merge_bucket.c - merging a word of any length: a linked list of symbols, the pairs in one bucket per
 * key, and a bitmap over the buckets.
 *
 * Keys mostly grow while merging, so a bucket is taken out whole, in text order; the rare pair that comes
 * back with a key not above the current one goes through a heap. The order is that of one big heap, at a
 * fraction of its cache misses. */
#include "text/merge_int.h"

#include <stdlib.h>

typedef struct { uint32_t start, len; int32_t id, prev, next; } symbol;
typedef struct { uint32_t pos, size, next; } pair_entry;
typedef struct { uint64_t kp; uint32_t size; } heap_entry; /* key << 32 | pos */

struct ash_bucket {
    const ash_vocab *v;
    symbol *sym;
    size_t sym_cap;
    uint32_t *head;     /* [n_ranks] first entry + 1, 0: empty */
    uint64_t *bits[3];  /* non-empty buckets, 64-fold summaries */
    size_t n_bits[3];
    pair_entry *pool;
    size_t n_pool, pool_cap;
    uint32_t free_list; /* entry + 1 */
    uint64_t *run;      /* entries of the current bucket, pos << 32 | size */
    size_t run_cap;
    heap_entry *heap;
    size_t n_heap, heap_cap;
    bool oom;
};

ash_bucket *ash_bucket_new(const ash_vocab *v) {
    ash_bucket *m = ash_calloc(1, sizeof *m);
    if (!m) return NULL;
    m->v = v;
    size_t n = ASH_MAX(v->n_ranks, 1u);
    m->head = ash_calloc(n, sizeof *m->head);
    bool ok = m->head != NULL;
    for (int i = 0; i < 3; i++) {
        n = (n + 63) / 64;
        m->n_bits[i] = n;
        m->bits[i] = ash_calloc(n, sizeof(uint64_t));
        ok = ok && m->bits[i];
    }
    if (ok) return m;
    ash_bucket_free(m);
    return NULL;
}

void ash_bucket_free(ash_bucket *m) {
    if (!m) return;
    ash_free(m->sym);
    ash_free(m->head);
    for (int i = 0; i < 3; i++) ash_free(m->bits[i]);
    ash_free(m->pool);
    ash_free(m->run);
    ash_free(m->heap);
    ash_free(m);
}

static void bucket_push(ash_bucket *m, uint32_t key, uint32_t pos, uint32_t size) {
    uint32_t e = m->free_list;
    if (e) m->free_list = m->pool[e - 1].next;
    else {
        if (m->n_pool == m->pool_cap) {
            size_t cap = ASH_MAX(m->pool_cap * 2, (size_t)1024);
            pair_entry *p = ash_realloc(m->pool, cap * sizeof *p);
            if (!p) {
                m->oom = true;
                return;
            }
            m->pool = p;
            m->pool_cap = cap;
        }
        e = (uint32_t)++m->n_pool;
    }
    m->pool[e - 1] = (pair_entry){pos, size, m->head[key]};
    if (!m->head[key]) {
        m->bits[0][key >> 6] |= 1ull << (key & 63);
        m->bits[1][key >> 12] |= 1ull << (key >> 6 & 63);
        m->bits[2][key >> 18] |= 1ull << (key >> 12 & 63);
    }
    m->head[key] = e;
}

/* Least key with a non-empty bucket, or UINT32_MAX. */
static uint32_t bucket_min(const ash_bucket *m) {
    for (size_t i = 0; i < m->n_bits[2]; i++)
        if (m->bits[2][i]) {
            uint32_t a = (uint32_t)i * 64 + (uint32_t)__builtin_ctzll(m->bits[2][i]);
            uint32_t b = a * 64 + (uint32_t)__builtin_ctzll(m->bits[1][a]);
            return b * 64 + (uint32_t)__builtin_ctzll(m->bits[0][b]);
        }
    return UINT32_MAX;
}

static int cmp_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Empty a bucket into m->run, in text order; returns the number of entries. */
static size_t bucket_take(ash_bucket *m, uint32_t key) {
    size_t n = 0;
    uint32_t e = m->head[key], last = 0;
    for (uint32_t i = e; i; last = i, i = m->pool[i - 1].next) n++;
    if (n > m->run_cap) {
        size_t cap = ASH_MAX(n, m->run_cap * 2);
        uint64_t *r = ash_realloc(m->run, cap * sizeof *r);
        if (!r) {
            m->oom = true;
            return 0;
        }
        m->run = r;
        m->run_cap = cap;
    }
    size_t j = n; /* last in, first in the list: turn it round */
    bool sorted = true;
    for (uint32_t i = e; i; i = m->pool[i - 1].next) {
        j--;
        m->run[j] = (uint64_t)m->pool[i - 1].pos << 32 | m->pool[i - 1].size;
        sorted = sorted && (j + 1 == n || m->run[j] <= m->run[j + 1]);
    }
    if (!sorted) qsort(m->run, n, sizeof *m->run, cmp_u64);
    m->pool[last - 1].next = m->free_list;
    m->free_list = e;
    m->head[key] = 0;
    if ((m->bits[0][key >> 6] &= ~(1ull << (key & 63))) == 0 && (m->bits[1][key >> 12] &= ~(1ull << (key >> 6 & 63))) == 0)
        m->bits[2][key >> 18] &= ~(1ull << (key >> 12 & 63));
    return n;
}

static void heap_push(ash_bucket *m, uint32_t key, uint32_t pos, uint32_t size) {
    if (m->n_heap == m->heap_cap) {
        size_t cap = ASH_MAX(m->heap_cap * 2, (size_t)64);
        heap_entry *h = ash_realloc(m->heap, cap * sizeof *h);
        if (!h) {
            m->oom = true;
            return;
        }
        m->heap = h;
        m->heap_cap = cap;
    }
    heap_entry x = {(uint64_t)key << 32 | pos, size};
    size_t i = m->n_heap++;
    for (; i > 0 && m->heap[(i - 1) / 2].kp > x.kp; i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = x;
}

static heap_entry heap_pop(ash_bucket *m) {
    heap_entry top = m->heap[0], x = m->heap[--m->n_heap];
    size_t i = 0, n = m->n_heap;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= n) break;
        if (c + 1 < n && m->heap[c + 1].kp < m->heap[c].kp) c++;
        if (m->heap[c].kp >= x.kp) break;
        m->heap[i] = m->heap[c];
        i = c;
    }
    m->heap[i] = x;
    return top;
}

/* `floor`: key of the bucket being emptied; UINT32_MAX before the first. Symbols are addressed by
 * index; an entry whose symbols have changed since has another size and is skipped. */
static inline void consider(ash_bucket *m, const bool spm, const char *p, int32_t i, int64_t floor) {
    const symbol *a = &m->sym[i];
    if (a->next < 0) return;
    const symbol *b = &m->sym[a->next];
    uint32_t key;
    int32_t id;
    if (!ash_pair_make(m->v, spm, p, a->start, a->len, a->id, b->len, b->id, &key, &id)) return;
    if ((int64_t)key > floor) bucket_push(m, key, (uint32_t)i, a->len + b->len);
    else heap_push(m, key, (uint32_t)i, a->len + b->len);
}

static inline bool merge(ash_bucket *m, const bool spm, const char *p, uint32_t start, uint32_t n, ash_symvec *out) {
    const ash_vocab *v = m->v;
    size_t k = 0;
    uint32_t pos = start;
    m->oom = false;
    if (n > m->sym_cap) {
        ash_free(m->sym);
        m->sym_cap = 0;
        m->sym = ash_alloc(n * sizeof *m->sym);
        if (m->sym) m->sym_cap = n;
    }
    if (!m->sym) return false;
    symbol *s = m->sym;
    while (pos < start + n) {
        s[k].start = pos;
        s[k].len = ash_first_symbol(v, spm, p + pos, p + start + n, &s[k].id);
        s[k].prev = (int32_t)k - 1;
        s[k].next = (int32_t)k + 1;
        pos += s[k].len;
        k++;
    }
    s[k - 1].next = -1;
    m->n_pool = m->n_heap = 0;
    m->free_list = 0;
    for (size_t i = 0; i + 1 < k; i++) consider(m, spm, p, (int32_t)i, -1);
    uint32_t floor;
    while (!m->oom && (floor = bucket_min(m)) != UINT32_MAX) {
        size_t n_run = bucket_take(m, floor), r = 0;
        while (!m->oom && (r < n_run || m->n_heap)) {
            uint32_t at, size;
            if (m->n_heap && (r == n_run || m->heap[0].kp < ((uint64_t)floor << 32 | m->run[r] >> 32))) {
                heap_entry h = heap_pop(m);
                at = (uint32_t)h.kp;
                size = h.size;
            } else {
                at = (uint32_t)(m->run[r] >> 32);
                size = (uint32_t)m->run[r++];
            }
            symbol *a = &s[at];
            if (a->len == 0 || a->next < 0) continue;
            symbol *b = &s[a->next];
            if (a->len + b->len != size) continue;
            uint32_t key;
            int32_t id;
            if (!ash_pair_make(v, spm, p, a->start, a->len, a->id, b->len, b->id, &key, &id)) continue;
            a->id = id;
            a->len = size;
            b->len = 0;
            a->next = b->next;
            if (b->next >= 0) s[b->next].prev = (int32_t)at;
            if (a->prev >= 0) consider(m, spm, p, a->prev, floor);
            consider(m, spm, p, (int32_t)at, floor);
        }
    }
    if (m->oom) return false; /* the buckets may hold leftovers: the caller gives up */
    for (int32_t i = 0; i >= 0; i = s[i].next)
        if (!ash_symvec_add(out, (ash_sym){s[i].start, s[i].len, s[i].id})) return false;
    return true;
}

bool ash_bucket_merge(ash_bucket *m, const char *p, uint32_t start, uint32_t n, ash_symvec *out) {
    if (n == 0) return true;
    return m->v->kind != ASH_VK_BPE ? merge(m, true, p, start, n, out) : merge(m, false, p, start, n, out);
}
