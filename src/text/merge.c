/* merge.c - turn one word into tokens by merging neighbours, best pair first, leftmost of equals.
 *
 * Both tokenizer kinds are this one loop; they differ in what a pair makes. BPE looks up the two ids
 * (key = rank of the merge), SPM looks up the joined bytes (key = rank of the token's score).
 *
 * Four ways through, with the same result:
 *  - a small direct-mapped cache of words of at most 15 bytes: most of ordinary text;
 *  - short words: arrays and a scan for the best pair;
 *  - long ones (a megabyte without a space) from left to right, merge_long.c;
 *  - while there are few of those, merge_bucket.c, which needs no index and n log n steps. */
#include "text/merge_int.h"

enum { CACHE_SIZE = 16384, CACHE_IDS = 7, CACHE_BYTES = 15, SHORT_MAX = ASH_SHORT_MAX, CACHE_AFTER = 64, LONG_AFTER = 4096 };

typedef struct {
    uint64_t k[2];
    int32_t n, id[CACHE_IDS];
} cache_entry;

struct ash_merger {
    const ash_vocab *v;
    cache_entry *cache;
    uint32_t n_words; /* the cache is made once there are some */
    uint64_t n_long;  /* bytes of long words so far */
    ash_symvec syms;
    ash_bucket *bucket;
    ash_long *lw;
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
    ash_free(m->syms.p);
    ash_bucket_free(m->bucket);
    ash_long_free(m->lw);
    ash_free(m);
}

bool ash_symvec_add(ash_symvec *v, ash_sym s) {
    if (v->n == v->cap) {
        size_t cap = ASH_MAX(v->cap * 2, (size_t)64);
        ash_sym *p = ash_realloc(v->p, cap * sizeof *p);
        if (!p) return false;
        v->p = p;
        v->cap = cap;
    }
    v->p[v->n++] = s;
    return true;
}

/* ---- short stretches ---- */
/* Encode p[start .. start + n), n <= SHORT_MAX; returns the number of symbols.
 *
 * A pair is one number, key << 6 | index of its left symbol, so that the least number is the best pair,
 * leftmost of equals; NONE where there is no pair. Keys are below 2^25 (checked at load). The search is
 * over all SHORT_MAX places, dead ones included: a loop of fixed length without branches. */
static inline uint32_t merge_short(const ash_vocab *v, const bool spm, const char *p, uint32_t start, uint32_t n, ash_sym *out,
                                   ash_trace *trace) {
    enum { NONE = INT32_MAX };
    int32_t id[SHORT_MAX], made[SHORT_MAX], pair[SHORT_MAX];
    uint8_t at[SHORT_MAX + 1], len[SHORT_MAX], prev[SHORT_MAX + 1], next[SHORT_MAX]; /* k ends the list */
    uint32_t k = 0, pos = 0;
    p += start;
    while (pos < n) {
        at[k] = (uint8_t)pos;
        len[k] = (uint8_t)ash_first_symbol(v, spm, p + pos, p + n, &id[k]);
        prev[k] = (uint8_t)(k - 1); /* 255 before the first */
        next[k] = (uint8_t)(k + 1);
        pos += len[k++];
    }
    for (uint32_t i = 0; i < SHORT_MAX; i++) pair[i] = NONE;
#define SET(i, j)                                                                                                                     \
    {                                                                                                                                 \
        uint32_t key_;                                                                                                                \
        pair[i] = ash_pair_make(v, spm, p, at[i], len[i], id[i], len[j], id[j], &key_, &made[i]) ? (int32_t)(key_ << 6 | (i)) : NONE; \
    }
    for (uint32_t i = 0; i + 1 < k; i++) SET(i, i + 1)
    for (;;) {
        int32_t best = NONE;
        for (uint32_t i = 0; i < SHORT_MAX; i++) best = pair[i] < best ? pair[i] : best;
        if (best == NONE) break;
        uint32_t i = (uint32_t)best & 63, j = next[i], l = prev[i], r = next[j];
        if (trace) {
            trace->rising = trace->n == 0 || (trace->rising && (uint32_t)best >> 6 >= trace->key);
            trace->key = (uint32_t)best >> 6;
            trace->l = id[i];
            trace->r = id[j];
            trace->n++;
        }
        id[i] = made[i];
        len[i] = (uint8_t)(len[i] + len[j]);
        next[i] = (uint8_t)r;
        prev[r] = (uint8_t)i;
        pair[j] = NONE;
        if (r < k)
            SET(i, r)
        else
            pair[i] = NONE;
        if (l < k) SET(l, i)
    }
#undef SET
    uint32_t m = 0;
    for (uint32_t i = 0; i < k; i = next[i]) out[m++] = (ash_sym){start + at[i], len[i], id[i]};
    return m;
}

uint32_t ash_merge_short(const ash_vocab *v, const char *p, uint32_t start, uint32_t n, ash_sym *out, ash_trace *trace) {
    return v->kind != ASH_VK_BPE ? merge_short(v, true, p, start, n, out, trace) : merge_short(v, false, p, start, n, out, trace);
}

static void merge_any_length(ash_merger *m, const bool spm, const char *p, uint32_t n, ash_tokvec *out) {
    const ash_vocab *v = m->v;
    if (m->lw || n > LONG_AFTER || (m->n_long += n) > LONG_AFTER) {
        if (!m->lw) m->lw = ash_long_new(v);
        if (!m->lw || !ash_long_merge(m->lw, p, n, out)) m->oom = true;
        return;
    }
    m->syms.n = 0;
    if (!m->bucket) m->bucket = ash_bucket_new(v);
    if (!m->bucket || !ash_bucket_merge(m->bucket, p, 0, n, &m->syms)) {
        m->oom = true;
        return;
    }
    for (size_t i = 0; i < m->syms.n; i++) ash_emit(v, spm, p + m->syms.p[i].start, m->syms.p[i].len, m->syms.p[i].id, out);
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
        ash_sym c[SHORT_MAX];
        uint32_t k = spm ? merge_short(m->v, true, p, 0, (uint32_t)n, c, NULL) : merge_short(m->v, false, p, 0, (uint32_t)n, c, NULL);
        for (uint32_t i = 0; i < k; i++) ash_emit(m->v, spm, p + c[i].start, c[i].len, c[i].id, out);
    } else
        merge_any_length(m, spm, p, (uint32_t)n, out);
}

ash_status ash_merge_word(ash_merger *m, const char *p, size_t n, ash_tokvec *out, ash_error *err) {
    const bool spm = m->v->kind != ASH_VK_BPE;
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
