/* prefix_index.c - which tokens begin the text at some place, longest first.
 *
 * All tokens that merging can make, sorted by their raw bytes, each with a link to the longest other
 * token that is a prefix of it. The last token not above the text in that order starts with every token
 * that begins the text, so a binary search and a few links give them all. Sorted by the first two bytes
 * through a table, by the next eight as one big-endian number, by the rest only where those are equal.
 *
 * Built on the first long word that any thread tokenizes, and kept with the vocabulary: most uses never
 * need it. */
#include "text/merge_int.h"

#include <stdlib.h>

static uint64_t be_key(const uint8_t *p, size_t n) { /* up to eight bytes, zeros after the end */
    uint64_t k;
    if (n >= 8) {
        memcpy(&k, p, 8);
        return __builtin_bswap64(k);
    }
    k = 0;
    for (size_t i = 0; i < n; i++) k |= (uint64_t)p[i] << (56 - 8 * i);
    return k;
}

/* ---- building ---- */
typedef struct {
    uint64_t key;
    const uint8_t *raw;
    uint32_t len;
    int32_t id;
} item; /* raw, len: without the first two bytes */

static int cmp_item(const void *pa, const void *pb) {
    const item *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    if (a->len > 8 && b->len > 8) {
        int c = memcmp(a->raw + 8, b->raw + 8, ASH_MIN(a->len, b->len) - 8);
        if (c) return c;
    }
    return (a->len > b->len) - (a->len < b->len); /* equal up to the end of one: the prefix first */
}

static bool is_prefix(const ash_vocab *v, int32_t a, int32_t b) {
    uint32_t na = v->raw_off[a + 1] - v->raw_off[a], nb = v->raw_off[b + 1] - v->raw_off[b];
    return na <= nb && memcmp(v->raw + v->raw_off[a], v->raw + v->raw_off[b], na) == 0;
}

static bool fill(ash_prefix_index *x, const ash_vocab *v) {
    uint32_t total = 256;
    for (uint32_t i = 0; i <= v->slot_mask; i++) {
        int32_t id = v->slots[i].id;
        if (id < 0) continue;
        const uint8_t *r = (const uint8_t *)v->raw + v->raw_off[id];
        uint32_t len = v->raw_off[id + 1] - v->raw_off[id];
        if (v->kind != ASH_VK_BPE && ash_utf8_span((const char *)r, len) != len) x->odd = true;
        if (len > 1) x->first[(r[0] << 8 | r[1]) + 1]++, total++;
    }
    x->first[0] = 256;
    for (int i = 0; i < 65536; i++) x->first[i + 1] += x->first[i];
    x->n = total;
    item *t = ash_alloc(total * sizeof *t);
    uint32_t *at = ash_alloc(65536 * sizeof *at);
    x->key = ash_alloc(total * sizeof *x->key);
    x->link = ash_alloc(total * sizeof *x->link);
    x->ent = ash_calloc(total, sizeof *x->ent);
    bool ok = t && at && x->key && x->link && x->ent;
    if (!ok) goto done;
    for (int i = 0; i < 256; i++) {
        x->key[i] = 0;
        x->ent[i].id = -1;
        x->ent[i].len = 1;
        atomic_init(&x->ent[i].last, ASH_TI_UNKNOWN);
        x->link[i] = 1u << 24;
    }
    memcpy(at, x->first, 65536 * sizeof *at);
    for (uint32_t i = 0; i <= v->slot_mask; i++) {
        int32_t id = v->slots[i].id;
        if (id < 0) continue;
        const uint8_t *r = (const uint8_t *)v->raw + v->raw_off[id];
        uint32_t len = v->raw_off[id + 1] - v->raw_off[id];
        if (len > 1)
            t[at[r[0] << 8 | r[1]]++] = (item){be_key(r + 2, len - 2), r + 2, len - 2, id};
        else
            x->ent[r[0]].id = id;
    }
    for (uint32_t b = 0; b < 65536; b++) {
        uint32_t lo = x->first[b], hi = x->first[b + 1];
        if (hi - lo > 1) qsort(t + lo, hi - lo, sizeof *t, cmp_item);
        for (uint32_t i = lo; i < hi; i++) {
            uint8_t c = (uint8_t)(b >> 8);
            uint32_t len = t[i].len + 2, up = i; /* the longest prefix is on the chain of the one before */
            for (up = i > lo ? i - 1 : 0; up && !is_prefix(v, t[up].id, t[i].id);)
                up -= x->link[up] & 0xffffff ? x->link[up] & 0xffffff : up;
            x->key[i] = t[i].key;
            x->ent[i].id = t[i].id;
            x->ent[i].len = len;
            atomic_init(&x->ent[i].last, ASH_TI_UNKNOWN);
            x->link[i] = ASH_MIN(len, 255u) << 24 | (up ? i - up : 0);
            for (uint32_t e = i; (e = ash_prefix_parent(x, e, c)) != ASH_NO_PREFIX;) {
                uint32_t k = x->ent[e].len;
                const uint8_t *r = (const uint8_t *)v->raw + v->raw_off[t[i].id] + k;
                if (len == k + 1)
                    x->ent[e].plus1 |= 1u << (r[0] & 31);
                else
                    x->ent[e].plus2 |= 1ull << ash_two(r[0], r[1]);
            }
        }
    }
done:
    ash_free(t);
    ash_free(at);
    return ok;
}

static void index_free(ash_prefix_index *x) {
    if (!x) return;
    ash_free(x->key);
    ash_free(x->link);
    ash_free(x->ent);
    ash_free(x);
}

ash_status ash_vocab_lazy_new(ash_vocab *v, ash_error *err) {
    v->lazy = ash_calloc(1, sizeof *v->lazy);
    return v->lazy ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary");
}

void ash_vocab_lazy_free(ash_vocab *v) {
    if (!v->lazy) return;
    index_free(atomic_load_explicit(&v->lazy->prefix, memory_order_relaxed));
    ash_free(v->lazy);
    v->lazy = NULL;
}

const ash_prefix_index *ash_prefix_index_get(const ash_vocab *v) {
    ash_prefix_index *x = atomic_load_explicit(&v->lazy->prefix, memory_order_acquire), *other = NULL;
    if (x) return x;
    x = ash_calloc(1, sizeof *x);
    if (!x || !fill(x, v)) {
        index_free(x);
        return NULL;
    }
    if (atomic_compare_exchange_strong_explicit(&v->lazy->prefix, &other, x, memory_order_acq_rel, memory_order_acquire)) return x;
    index_free(x); /* another thread was faster */
    return other;
}

/* ---- searching ---- */
/* Is entry e, of the text's first two bytes, a prefix of p[0..n)? tk: key of p + 2. */
static inline bool begins(const ash_prefix_index *x, const ash_vocab *v, uint32_t e, const uint8_t *p, size_t n, uint64_t tk) {
    uint32_t len = x->link[e] >> 24;
    if (len > n) return false;
    if (ASH_LIKELY(len < 10)) return len <= 2 || ((x->key[e] ^ tk) >> (8 * (10 - len))) == 0;
    len = x->ent[e].len;
    return len <= n && x->key[e] == tk && memcmp(v->raw + v->raw_off[x->ent[e].id] + 10, p + 10, len - 10) == 0;
}

uint32_t ash_prefix_longest(const ash_prefix_index *x, const ash_vocab *v, const char *text, size_t n, uint64_t *work) {
    const uint8_t *p = (const uint8_t *)text;
    uint32_t one = x->ent[p[0]].id >= 0 ? p[0] : ASH_NO_PREFIX;
    if (n < 2) return one;
    uint32_t b = (uint32_t)p[0] << 8 | p[1], lo = x->first[b], m = x->first[b + 1] - lo;
    if (m == 0) return one;
    uint64_t tk = be_key(p + 2, n - 2);
    const uint64_t *k = x->key + lo;
    while (m > 1) { /* the first key above tk is among the m from k on, or right behind them; no branch in here */
        uint32_t half = m / 2;
        k += half & (0u - (uint32_t)(k[half - 1] <= tk));
        m -= half;
    }
    uint32_t e = (uint32_t)(k - x->key) + (*k <= tk);
    if (e == lo) return one;
    e--;
    /* longer than the key and equal in it: may lie above the text */
    while (x->key[e] == tk && x->link[e] >> 24 > 10) {
        uint32_t len = x->ent[e].len;
        size_t both = ASH_MIN((size_t)len, n);
        int c = both > 10 ? memcmp(v->raw + v->raw_off[x->ent[e].id] + 10, p + 10, both - 10) : 0;
        if (c < 0 || (c == 0 && len <= n)) break;
        if (e == lo) return one;
        e--;
        ++*work;
    }
    while (e >= 256 && !begins(x, v, e, p, n, tk)) {
        e = ash_prefix_parent(x, e, p[0]);
        ++*work;
        if (e == ASH_NO_PREFIX) break;
    }
    return e;
}
