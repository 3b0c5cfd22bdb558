/* merge.c - turn one word into tokens by merging neighbours, best pair first, leftmost of equals.
 *
 * Both tokenizer kinds are this one loop; they differ in what a pair makes. BPE looks up the two ids
 * (key = rank of the merge), SPM looks up the joined bytes (key = rank of the token's score).
 *
 * Three ways through, with the same result:
 *  - a small direct-mapped cache of words of at most 15 bytes: most of ordinary text;
 *  - short words: arrays and a scan for the best pair;
 *  - long words (a megabyte without a space): linked list of symbols, pairs in one bucket per key, and a
 *    bitmap over the buckets. Keys mostly grow while merging, so a bucket is taken out whole, in text
 *    order; the rare pair that comes back with a key not above the current one goes through a heap. */
#include "text/text_int.h"

#include <stdlib.h>

enum { CACHE_SIZE = 4096, CACHE_IDS = 7, CACHE_BYTES = 15, SHORT_MAX = 40, CACHE_AFTER = 64 };

typedef struct { uint64_t k[2]; int32_t n, id[CACHE_IDS]; } cache_entry;
typedef struct { uint32_t start, len; int32_t id, prev, next; } symbol;
typedef struct { uint32_t pos, size, next; } pair_entry;
typedef struct { uint64_t kp; uint32_t size; } heap_entry; /* key << 32 | pos */

struct ash_merger {
    const ash_vocab *v;
    cache_entry *cache;
    uint32_t n_words; /* the cache is made once there are some */
    /* long words */
    symbol *sym;
    size_t sym_cap;
    uint32_t *head;         /* [n_ranks] first entry + 1, 0: empty */
    uint64_t *bits[3];      /* non-empty buckets, 64-fold summaries */
    size_t n_bits[3];
    pair_entry *pool;
    size_t n_pool, pool_cap;
    uint32_t free_list;     /* entry + 1 */
    uint64_t *run;          /* entries of the current bucket, pos << 32 | size */
    size_t run_cap;
    heap_entry *heap;
    size_t n_heap, heap_cap;
    bool oom;
};

bool ash_tokvec_grow(ash_tokvec *t, size_t more) {
    if (t->oom) return false;
    size_t cap = ASH_MAX(t->cap * 2, ASH_MAX(t->n + more, (size_t)64));
    int32_t *p = cap > SIZE_MAX / sizeof *p ? NULL : ash_realloc(t->p, cap * sizeof *p);
    if (!p) return t->oom = true, false;
    t->p = p;
    t->cap = cap;
    return true;
}

ash_merger *ash_merger_new(const ash_vocab *v) {
    ash_merger *m = ash_calloc(1, sizeof *m);
    if (m) m->v = v;
    return m;
}

void ash_merger_free(ash_merger *m) {
    if (!m) return;
    ash_free(m->cache);
    ash_free(m->sym);
    ash_free(m->head);
    for (int i = 0; i < 3; i++) ash_free(m->bits[i]);
    ash_free(m->pool);
    ash_free(m->run);
    ash_free(m->heap);
    ash_free(m);
}

/* What two neighbours make; false if nothing. s1 and s2 are adjacent. */
static inline bool pair_make(const ash_vocab *v, bool spm, const char *p, uint32_t s1, uint32_t l1, int32_t id1, uint32_t l2, int32_t id2,
                             uint32_t *key, int32_t *id) {
    if (!spm) return ash_merge_find(v, id1, id2, key, id);
    const uint8_t *u = (const uint8_t *)p + s1;
    uint32_t n = l1 + l2;
    if (n > v->max_raw) return false;
    if (n == 2 && (u[0] | u[1]) < 128) *id = v->pair2[u[0] * 128 + u[1]];
    else {
        uint32_t bit = (uint32_t)u[l1 - 1] * 256 + u[l1];
        if (!(v->joins[bit >> 3] >> (bit & 7) & 1)) return false;
        *id = ash_vocab_raw_find(v, p + s1, n);
    }
    if (*id < 0) return false;
    *key = v->rank[*id];
    return true;
}

/* Length and id of the symbol that begins at p: a byte (BPE) or a character (SPM). */
static inline uint32_t first_symbol(const ash_vocab *v, bool spm, const char *p, const char *end, int32_t *id) {
    uint8_t c = (uint8_t)*p;
    if (!spm) return *id = v->byte_id[c], 1;
    if (c < 128) return *id = v->char_id[c], 1;
    uint32_t cp;
    int k = ash_utf8_next(p, end, &cp);
    if (k == 0) return *id = -1, 1;
    *id = ash_vocab_raw_find(v, p, (size_t)k);
    return (uint32_t)k;
}

static inline void emit(const ash_vocab *v, bool spm, const char *p, uint32_t len, int32_t id, ash_tokvec *out) {
    if (ASH_LIKELY(id >= 0)) {
        ash_tokvec_add(out, id);
        return;
    }
    if (!spm) return; /* a byte without a token: the models' own tokenizers drop it */
    bool lost = false;
    for (uint32_t i = 0; i < len; i++) {
        int32_t b = v->byte_id[(uint8_t)p[i]];
        if (b >= 0) ash_tokvec_add(out, b);
        else lost = true;
    }
    if (lost && v->unk >= 0) ash_tokvec_add(out, v->unk);
}

/* ---- short words ---- */
static inline void merge_short(const ash_vocab *v, const bool spm, const char *p, size_t n, ash_tokvec *out) {
    int32_t id[SHORT_MAX], made[SHORT_MAX];
    uint32_t key[SHORT_MAX];
    uint8_t at[SHORT_MAX + 1]; /* symbol i is p[at[i] .. at[i + 1]) */
    uint32_t k = 0, pos = 0;
    while (pos < n) {
        at[k] = (uint8_t)pos;
        pos += first_symbol(v, spm, p + pos, p + n, &id[k]);
        k++;
    }
    at[k] = (uint8_t)n;
#define SET(i)                                                                                                                             \
    if (!pair_make(v, spm, p, at[i], (uint32_t)(at[(i) + 1] - at[i]), id[i], (uint32_t)(at[(i) + 2] - at[(i) + 1]), id[(i) + 1], &key[i],  \
                   &made[i]))                                                                                                              \
    key[i] = UINT32_MAX
    for (uint32_t i = 0; i + 1 < k; i++) SET(i);
    while (k > 1) {
        uint32_t best = UINT32_MAX, bi = 0;
        for (uint32_t i = 0; i + 1 < k; i++)
            if (key[i] < best) best = key[i], bi = i;
        if (best == UINT32_MAX) break;
        id[bi] = made[bi];
        k--;
        for (uint32_t i = bi + 1; i < k; i++) {
            id[i] = id[i + 1];
            at[i] = at[i + 1];
            key[i] = key[i + 1];
            made[i] = made[i + 1];
        }
        at[k] = (uint8_t)n;
        if (bi + 1 < k) SET(bi);
        if (bi > 0) SET(bi - 1);
    }
#undef SET
    for (uint32_t i = 0; i < k; i++) emit(v, spm, p + at[i], (uint32_t)(at[i + 1] - at[i]), id[i], out);
}

/* ---- long words: buckets ---- */
static bool long_init(ash_merger *m) {
    if (m->head) return true;
    size_t n = ASH_MAX(m->v->n_ranks, 1u);
    m->head = ash_calloc(n, sizeof *m->head);
    bool ok = m->head != NULL;
    for (int i = 0; i < 3; i++) {
        n = (n + 63) / 64;
        m->n_bits[i] = n;
        m->bits[i] = ash_calloc(n, sizeof(uint64_t));
        ok = ok && m->bits[i];
    }
    if (ok) return true;
    ash_free(m->head);
    m->head = NULL;
    for (int i = 0; i < 3; i++) {
        ash_free(m->bits[i]);
        m->bits[i] = NULL;
    }
    return false;
}

static void bucket_push(ash_merger *m, uint32_t key, uint32_t pos, uint32_t size) {
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
static uint32_t bucket_min(const ash_merger *m) {
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
static size_t bucket_take(ash_merger *m, uint32_t key) {
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

static void heap_push(ash_merger *m, uint32_t key, uint32_t pos, uint32_t size) {
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

static heap_entry heap_pop(ash_merger *m) {
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
static inline void consider(ash_merger *m, const bool spm, const char *p, int32_t i, int64_t floor) {
    const symbol *a = &m->sym[i];
    if (a->next < 0) return;
    const symbol *b = &m->sym[a->next];
    uint32_t key;
    int32_t id;
    if (!pair_make(m->v, spm, p, a->start, a->len, a->id, b->len, b->id, &key, &id)) return;
    if ((int64_t)key > floor) bucket_push(m, key, (uint32_t)i, a->len + b->len);
    else heap_push(m, key, (uint32_t)i, a->len + b->len);
}

static inline void merge_long(ash_merger *m, const bool spm, const char *p, size_t n, ash_tokvec *out) {
    const ash_vocab *v = m->v;
    size_t k = 0, pos = 0;
    if (n > m->sym_cap) {
        ash_free(m->sym);
        m->sym_cap = 0;
        m->sym = ash_alloc(n * sizeof *m->sym);
        if (m->sym) m->sym_cap = n;
    }
    if (!m->sym || !long_init(m)) {
        m->oom = true;
        return;
    }
    symbol *s = m->sym;
    while (pos < n) {
        s[k].start = (uint32_t)pos;
        s[k].len = first_symbol(v, spm, p + pos, p + n, &s[k].id);
        s[k].prev = (int32_t)k - 1;
        s[k].next = (int32_t)k + 1;
        pos += s[k].len;
        k++;
    }
    s[k - 1].next = -1;
    m->n_pool = 0;
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
            if (!pair_make(v, spm, p, a->start, a->len, a->id, b->len, b->id, &key, &id)) continue;
            a->id = id;
            a->len = size;
            b->len = 0;
            a->next = b->next;
            if (b->next >= 0) s[b->next].prev = (int32_t)at;
            if (a->prev >= 0) consider(m, spm, p, a->prev, floor);
            consider(m, spm, p, (int32_t)at, floor);
        }
    }
    if (m->oom) return;
    for (int32_t i = 0; i >= 0; i = s[i].next) emit(v, spm, p + s[i].start, s[i].len, s[i].id, out);
}

/* ---- cache ---- */
static inline void cache_key(const char *p, size_t n, uint64_t k[2]) {
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        if (n > 8) {
            memcpy(&b, p + n - 8, 8);
            b >>= 8 * (16 - n);
        }
    } else if (n >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x | (uint64_t)y << (8 * (n - 4));
    } else { /* 1..3 */
        const uint8_t *u = (const uint8_t *)p;
        a = u[0] | (uint64_t)u[n / 2] << (8 * (n / 2)) | (uint64_t)u[n - 1] << (8 * (n - 1));
    }
    k[0] = a;
    k[1] = b | (uint64_t)n << 56;
}

static inline void merge_any(ash_merger *m, const bool spm, const char *p, size_t n, ash_tokvec *out) {
    if (!spm && m->v->pre->ignore_merges) {
        int32_t id = ash_vocab_raw_find(m->v, p, n);
        if (id >= 0) {
            ash_tokvec_add(out, id);
            return;
        }
    }
    if (n <= SHORT_MAX) {
        if (spm) merge_short(m->v, true, p, n, out);
        else merge_short(m->v, false, p, n, out);
    } else {
        if (spm) merge_long(m, true, p, n, out);
        else merge_long(m, false, p, n, out);
    }
}

ash_status ash_merge_word(ash_merger *m, const char *p, size_t n, ash_tokvec *out, ash_error *err) {
    const bool spm = m->v->kind == ASH_VK_SPM;
    cache_entry *e = NULL;
    uint64_t k[2];
    if (n == 0) return ASH_OK;
    if (n <= CACHE_BYTES) {
        if (!m->cache && ++m->n_words > CACHE_AFTER) {
            m->cache = ash_calloc(CACHE_SIZE, sizeof *m->cache);
            if (!m->cache) goto nomem;
        }
        if (m->cache) {
            cache_key(p, n, k);
            uint64_t h = (k[0] ^ (k[1] * 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;
            e = &m->cache[h >> 32 & (CACHE_SIZE - 1)];
            if (e->k[0] == k[0] && e->k[1] == k[1]) {
                if (out->cap - out->n < CACHE_IDS && !ash_tokvec_grow(out, CACHE_IDS)) goto nomem;
                for (int i = 0; i < CACHE_IDS; i++) out->p[out->n + (size_t)i] = e->id[i];
                out->n += (size_t)e->n;
                return ASH_OK;
            }
        }
    }
    size_t before = out->n;
    merge_any(m, spm, p, n, out);
    if (m->oom || out->oom) goto nomem;
    if (e && out->n - before <= CACHE_IDS) {
        e->k[0] = k[0];
        e->k[1] = k[1];
        e->n = (int32_t)(out->n - before);
        for (int32_t i = 0; i < e->n; i++) e->id[i] = out->p[before + (size_t)i];
    }
    return ASH_OK;
nomem:
    return ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
}
