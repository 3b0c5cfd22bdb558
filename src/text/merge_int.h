/* merge_int.h - shared by merge.c (short words), merge_long.c and prefix_index.c (long words, linear) and
 * merge_bucket.c (any length and any vocabulary, n log n). */
#ifndef ASH_MERGE_INT_H
#define ASH_MERGE_INT_H

#include <stdatomic.h>

#include "text/text_int.h"

/* What is made late, behind the pointer of an otherwise unchanging vocabulary. */
struct ash_vocab_lazy { _Atomic(struct ash_prefix_index *) prefix; };

typedef struct { uint32_t start, len; int32_t id; } ash_sym; /* bytes of the word; id -1: no such token */
typedef struct { ash_sym *p; size_t n, cap; } ash_symvec;
bool ash_symvec_add(ash_symvec *v, ash_sym s); /* false: out of memory */

/* `spm` below: symbols are characters (SPM, CPE). What two neighbours make; false if nothing. The second begins where the first ends. */
static inline bool ash_pair_make(const ash_vocab *v, bool spm, const char *p, uint32_t s1, uint32_t l1, int32_t id1, uint32_t l2, int32_t id2,
                                 uint32_t *key, int32_t *id) {
    const uint8_t *u = (const uint8_t *)p + s1;
    uint32_t n = l1 + l2;
    if (n == 2 && (u[0] | u[1]) < 128) { /* most pairs there are */
        ash_pair2 q = v->pair2[u[0] * 128 + u[1]];
        return *key = q.key, *id = q.id, q.id >= 0;
    }
    if (!spm || v->merges) return id1 >= 0 && id2 >= 0 && ash_merge_find(v, id1, id2, key, id);
    if (n > v->max_raw) return false;
    uint32_t bit = (uint32_t)u[l1 - 1] * 256 + u[l1];
    if (!(v->joins[bit >> 3] >> (bit & 7) & 1)) return false;
    const ash_raw_slot *s = ash_vocab_raw_slot(v, p + s1, n);
    if (!s) return false;
    *id = s->id;
    *key = s->len_rank & 0xffffff;
    return true;
}

/* Length and id of the symbol that begins at p: a byte (BPE) or a character (SPM). */
static inline uint32_t ash_first_symbol(const ash_vocab *v, bool spm, const char *p, const char *end, int32_t *id) {
    uint8_t c = (uint8_t)*p;
    if (!spm) return *id = v->byte_id[c], 1;
    if (c < 128) return *id = v->char_id[c], 1;
    uint32_t cp;
    int k = ash_utf8_next(p, end, &cp);
    if (k == 0) return *id = -1, 1;
    *id = ash_vocab_raw_find(v, p, (size_t)k);
    return (uint32_t)k;
}

/* A symbol's tokens: its own, or those of its bytes. */
static inline void ash_emit(const ash_vocab *v, bool spm, const char *p, uint32_t len, int32_t id, ash_tokvec *out) {
    if (ASH_LIKELY(id >= 0)) {
        ash_tokvec_add(out, id);
        return;
    }
    if (!spm) return; /* a byte without a token: the models' own tokenizers drop it */
    bool lost = false;
    for (uint32_t i = 0; i < len; i++) {
        int32_t b = v->byte_id[(uint8_t)p[i]];
        if (b >= 0)
            ash_tokvec_add(out, b);
        else
            lost = true;
    }
    if (lost && v->unk >= 0) ash_tokvec_add(out, v->unk);
}

/* ---- short words (merge.c) ---- */
enum { ASH_SHORT_MAX = 40 };
/* How the last symbol came about. `rising`: no merge had a better key than the one before it. */
typedef struct { uint32_t n, key; int32_t l, r; bool rising; } ash_trace;
/* Encode p[start .. start + n), n <= ASH_SHORT_MAX; returns the number of symbols. trace may be NULL. */
uint32_t ash_merge_short(const ash_vocab *v, const char *p, uint32_t start, uint32_t n, ash_sym *out, ash_trace *trace);

/* ---- which tokens begin a text (prefix_index.c) ---- */
#define ASH_NO_PREFIX UINT32_MAX
/* How a token comes about, instead of the key of its last merge + 1. */
#define ASH_TI_SYMBOL 0u            /* nothing is merged */
#define ASH_TI_UNKNOWN UINT32_MAX   /* not looked at yet */
#define ASH_TI_NEVER (UINT32_MAX - 1) /* its bytes encode to something else */
#define ASH_TI_ODD (UINT32_MAX - 2) /* by merges of which a later one has a better key, or by too many */
typedef struct {
    int32_t id;                 /* -1: no token (of the first 256 entries, one a byte) */
    uint32_t len;
    uint64_t plus2;             /* bit ash_two(c, d): a longer token goes on with bytes c d */
    uint32_t plus1;             /* bit c % 32: this and byte c is a token */
    _Atomic uint32_t last, l, r; /* found out when first needed: key of its last merge + 1; the two entries that merged */
} ash_prefix_ent;
static inline uint32_t ash_two(uint8_t c, uint8_t d) { return ((uint32_t)c * 5 + (uint32_t)d * 19) & 63; }
/* Entries of two first bytes b1 * 256 + b2: [first[b].lo, first[b + 1].lo). If there are many of them (`sub` is not 0), those
 * whose third byte is c: [lo + s[c], lo + s[c + 1]), s = third + sub; the token of just the two bytes counts as c = 0. */
typedef struct { uint32_t lo, sub; } ash_prefix_first;
enum { ASH_PREFIX_MANY = 8, ASH_PREFIX_THIRD = 257 };
/* Two small tables that remember; an index of more than 2^19 entries does without.
 *  - seam: after entry a, of entry e and its prefixes: which is the first that stands beside a (32 bits, merge_long.c).
 *  - memo: key + 1 of what two entries make, or NOTHING: the two and the answer, of 19, 19 and 26 bits, all inverted. */
enum { ASH_SEAMS = 1 << 16, ASH_PAIRS = 1 << 14, ASH_MEMO_ENT = 19, ASH_MEMO_VAL = 64 - 2 * ASH_MEMO_ENT };
typedef struct ash_prefix_index {
    ash_prefix_first first[65537];
    uint16_t *third;       /* [ASH_PREFIX_THIRD] each, the first one unused */
    uint32_t n;
    uint64_t *key;         /* bytes 2..9, big-endian, zeros after the end */
    uint32_t *link;        /* length (at most 255) << 24 | how many places before it its longest prefix stands, 0: the one byte */
    ash_prefix_ent *ent;
    _Atomic uint32_t *edge; /* found out with `last`: key of the merge that ends its last symbol + 1; 0: not known */
    _Atomic uint64_t *memo; /* merge_long.c's keys of pairs, zeros at first, or NULL; any thread writes, always the same under the same key */
    _Atomic uint32_t *seam; /* merge_long.c's seams, likewise */
    bool odd;              /* SPM: a token is no UTF-8, so symbols could be cut */
} ash_prefix_index;
static inline uint32_t ash_prefix_len(const ash_prefix_index *x, uint32_t e) {
    uint32_t n = x->link[e] >> 24;
    return ASH_LIKELY(n < 255) ? n : x->ent[e].len;
}
/* The longest other token that begins entry e, whose first byte is c; or none. */
static inline uint32_t ash_prefix_parent(const ash_prefix_index *x, uint32_t e, uint8_t c) {
    uint32_t back = x->link[e] & 0xffffff;
    if (back) return e - back;
    return e >= 256 && x->ent[c].id >= 0 ? c : ASH_NO_PREFIX;
}
const ash_prefix_index *ash_prefix_index_get(const ash_vocab *v); /* made on first use; NULL: out of memory */
/* Longest token that p[0..n), n > 0, begins with, or none; the others are up the chain of parents. */
uint32_t ash_prefix_longest(const ash_prefix_index *x, const ash_vocab *v, const char *p, size_t n, uint64_t *work);

/* ---- long words ---- */
typedef struct ash_long ash_long; /* scratch */
ash_long *ash_long_new(const ash_vocab *v);
void ash_long_free(ash_long *l);
bool ash_long_merge(ash_long *l, const char *p, uint32_t n, ash_tokvec *out); /* appends the tokens; false: out of memory */

typedef struct ash_bucket ash_bucket; /* scratch */
ash_bucket *ash_bucket_new(const ash_vocab *v);
void ash_bucket_free(ash_bucket *b);
/* Encode p[start .. start + n), appending to out. False: out of memory. */
bool ash_bucket_merge(ash_bucket *b, const char *p, uint32_t start, uint32_t n, ash_symvec *out);

#endif
