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

static inline bool below(const item *a, const item *b) {
    if (a->key != b->key) return a->key < b->key;
    if (a->len > 8 && b->len > 8) {
        int c = memcmp(a->raw + 8, b->raw + 8, ASH_MIN(a->len, b->len) - 8);
        if (c) return c < 0;
    }
    return a->len < b->len; /* equal up to the end of one: the prefix first */
}

/* A merge sort of its own: several times as fast as qsort with its calls, and that is most of the building. */
static void sort_items(item *t, item *tmp, size_t n) {
    if (n <= 12) {
        for (size_t i = 1; i < n; i++) {
            item x = t[i];
            size_t j = i;
            for (; j > 0 && below(&x, &t[j - 1]); j--) t[j] = t[j - 1];
            t[j] = x;
        }
        return;
    }
    size_t m = n / 2, i = 0, j = m, k = 0;
    sort_items(t, tmp, m);
    sort_items(t + m, tmp, n - m);
    if (!below(&t[m], &t[m - 1])) return; /* in order already */
    memcpy(tmp, t, m * sizeof *t);
    while (i < m && j < n) {
        bool right = below(&t[j], &tmp[i]);
        t[k++] = right ? t[j] : tmp[i];
        j += right;
        i += !right;
    }
    memcpy(t + k, tmp + i, (m - i) * sizeof *t);
}

/* Byte i of an item whose first two are b. */
static inline uint8_t byte_at(const item *t, uint32_t b, uint32_t i) {
    return (uint8_t)(i < 2 ? b >> (8 * (1 - i)) : i < 10 ? t->key >> (8 * (9 - i)) : t->raw[i - 2]);
}

/* Is a, of the same first two bytes, a prefix of b? */
static inline bool is_prefix(const item *a, const item *b) {
    if (a->len > b->len) return false;
    if (a->len < 8) return a->len == 0 || (a->key ^ b->key) >> (64 - 8 * a->len) == 0;
    return a->key == b->key && memcmp(a->raw + 8, b->raw + 8, a->len - 8) == 0;
}

static bool fill(ash_prefix_index *x, const ash_vocab *v) {
    uint32_t total = 256;
    /* by id, as their bytes lie; but only those that the hash table has */
    uint64_t *in = ash_calloc((size_t)v->n / 64 + 1, sizeof *in);
    if (!in) return false;
    for (uint32_t i = 0; i <= v->slot_mask; i++)
        if (v->slots[i].id >= 0) in[v->slots[i].id >> 6] |= 1ull << (v->slots[i].id & 63);
    for (int32_t id = 0; id < v->n; id++) {
        if (!(in[id >> 6] >> (id & 63) & 1)) continue;
        const uint8_t *r = (const uint8_t *)v->raw + v->raw_off[id];
        uint32_t len = v->raw_off[id + 1] - v->raw_off[id];
        if (v->kind != ASH_VK_BPE && ash_utf8_span((const char *)r, len) != len) x->odd = true;
        if (len > 1) x->first[(r[0] << 8 | r[1]) + 1].lo++, total++;
    }
    uint32_t n_third = 1;
    x->first[0].lo = 256;
    for (int i = 0; i < 65536; i++) {
        uint32_t m = x->first[i + 1].lo;
        if (m > ASH_PREFIX_MANY && m <= UINT16_MAX) x->first[i].sub = n_third++ * ASH_PREFIX_THIRD;
        x->first[i + 1].lo = x->first[i].lo + m;
    }
    x->n = total;
    item *t = ash_alloc(total * sizeof *t), *tmp = ash_alloc((total / 2 + 1) * sizeof *tmp);
    uint32_t *at = ash_alloc(65536 * sizeof *at);
    x->third = ash_calloc((size_t)n_third * ASH_PREFIX_THIRD, sizeof *x->third);
    x->key = ash_alloc(total * sizeof *x->key);
    x->link = ash_alloc(total * sizeof *x->link);
    x->ent = ash_calloc(total, sizeof *x->ent);
    x->edge = ash_calloc(total, sizeof *x->edge);
    bool memo = total < 1u << ASH_MEMO_ENT;
    if (memo) x->memo = ash_calloc(ASH_PAIRS, sizeof *x->memo), x->seam = ash_calloc(ASH_SEAMS, sizeof *x->seam);
    bool ok = t && tmp && at && ((x->memo && x->seam) || !memo) && x->third && x->key && x->link && x->ent && x->edge;
    if (!ok) goto done;
    for (int i = 0; i < 256; i++) {
        x->key[i] = 0;
        x->ent[i].id = -1;
        x->ent[i].len = 1;
        atomic_init(&x->ent[i].last, ASH_TI_UNKNOWN);
        x->link[i] = 1u << 24;
    }
    for (int i = 0; i < 65536; i++) at[i] = x->first[i].lo;
    for (int32_t id = 0; id < v->n; id++) {
        if (!(in[id >> 6] >> (id & 63) & 1)) continue;
        const uint8_t *r = (const uint8_t *)v->raw + v->raw_off[id];
        uint32_t len = v->raw_off[id + 1] - v->raw_off[id];
        if (len > 1)
            t[at[r[0] << 8 | r[1]]++] = (item){be_key(r + 2, len - 2), r + 2, len - 2, id};
        else
            x->ent[r[0]].id = id;
    }
    for (uint32_t b = 0; b < 65536; b++) {
        uint32_t lo = x->first[b].lo, hi = x->first[b + 1].lo;
        uint16_t *s = x->third + x->first[b].sub;
        if (hi - lo > 1) sort_items(t + lo, tmp, hi - lo);
        for (uint32_t i = lo; i < hi; i++) {
            uint8_t c = (uint8_t)(b >> 8);
            uint32_t len = t[i].len + 2, up = i; /* the longest prefix is on the chain of the one before */
            for (up = i > lo ? i - 1 : 0; up && !is_prefix(&t[up], &t[i]);) up -= x->link[up] & 0xffffff ? x->link[up] & 0xffffff : up;
            x->key[i] = t[i].key;
            if (x->first[b].sub) s[(t[i].key >> 56) + 1] = (uint16_t)(i - lo + 1);
            x->ent[i].id = t[i].id;
            x->ent[i].len = len;
            atomic_init(&x->ent[i].last, ASH_TI_UNKNOWN);
            x->link[i] = ASH_MIN(len, 255u) << 24 | (up ? i - up : 0);
            for (uint32_t e = i; (e = ash_prefix_parent(x, e, c)) != ASH_NO_PREFIX;) {
                uint32_t k = x->ent[e].len;
                uint8_t next = byte_at(&t[i], b, k);
                if (len == k + 1)
                    x->ent[e].plus1 |= 1u << (next & 31);
                else
                    x->ent[e].plus2 |= 1ull << ash_two(next, byte_at(&t[i], b, k + 1));
            }
        }
        for (int c = 1; x->first[b].sub && c < ASH_PREFIX_THIRD; c++) s[c] = ASH_MAX(s[c], s[c - 1]);
    }
done:
    ash_free(in);
    ash_free(t);
    ash_free(tmp);
    ash_free(at);
    return ok;
}

static void index_free(ash_prefix_index *x) {
    if (!x) return;
    ash_free(x->third);
    ash_free(x->key);
    ash_free(x->link);
    ash_free(x->ent);
    ash_free(x->edge);
    ash_free(x->memo);
    ash_free(x->seam);
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
    const ash_prefix_first *f = &x->first[(uint32_t)p[0] << 8 | p[1]];
    uint32_t lo = f->lo, m = f[1].lo - lo;
    if (m == 0) return one;
    uint64_t tk = be_key(p + 2, n - 2);
    if (f->sub) { /* only those of the same third byte; or else the token of two bytes, which comes first */
        const uint16_t *s = x->third + f->sub + (tk >> 56);
        if (s[0] == s[1]) return x->link[lo] >> 24 == 2 ? lo : one;
        m = s[1] - s[0];
        lo += s[0];
    }
    const uint64_t *k = x->key + lo;
    while (m > 1) { /* the first key above tk is among the m from k on, or right behind them; no branch in here */
        uint32_t half = m / 2;
        k += half & (0u - (uint32_t)(k[half - 1] <= tk));
        m -= half;
    }
    uint32_t e = (uint32_t)(k - x->key) + (*k <= tk);
    if (e == lo) return x->link[f->lo] >> 24 == 2 ? f->lo : one;
    e--;
    /* longer than the key and equal in it: may lie above the text */
    while (x->key[e] == tk && x->link[e] >> 24 > 10) {
        uint32_t len = x->ent[e].len;
        size_t both = ASH_MIN((size_t)len, n);
        int c = both > 10 ? memcmp(v->raw + v->raw_off[x->ent[e].id] + 10, p + 10, both - 10) : 0;
        if (c < 0 || (c == 0 && len <= n)) break;
        if (e == f->lo) return one;
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
