/* merge_int.h - shared by merge.c (short words, chunks) and merge_bucket.c (any length at n log n). */
#ifndef ASH_MERGE_INT_H
#define ASH_MERGE_INT_H

#include "text/text_int.h"

typedef struct { uint32_t start, len; int32_t id; } ash_sym; /* bytes of the word; id -1: no such token */
typedef struct { ash_sym *p; size_t n, cap; } ash_symvec;
bool ash_symvec_add(ash_symvec *v, ash_sym s); /* false: out of memory */

/* What two neighbours make; false if nothing. The second begins where the first ends. */
static inline bool ash_pair_make(const ash_vocab *v, bool spm, const char *p, uint32_t s1, uint32_t l1, int32_t id1, uint32_t l2, int32_t id2,
                                 uint32_t *key, int32_t *id) {
    const uint8_t *u = (const uint8_t *)p + s1;
    uint32_t n = l1 + l2;
    if (n == 2 && (u[0] | u[1]) < 128) { /* most pairs there are */
        ash_pair2 q = v->pair2[u[0] * 128 + u[1]];
        return *key = q.key, *id = q.id, q.id >= 0;
    }
    if (!spm) return ash_merge_find(v, id1, id2, key, id);
    if (n > v->max_raw) return false;
    uint32_t bit = (uint32_t)u[l1 - 1] * 256 + u[l1];
    if (!(v->joins[bit >> 3] >> (bit & 7) & 1)) return false;
    *id = ash_vocab_raw_find(v, p + s1, n);
    if (*id < 0) return false;
    *key = v->rank[*id];
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

typedef struct ash_bucket ash_bucket; /* scratch */
ash_bucket *ash_bucket_new(const ash_vocab *v);
void ash_bucket_free(ash_bucket *b);
/* Encode p[start .. start + n), appending to out. False: out of memory. */
bool ash_bucket_merge(ash_bucket *b, const char *p, uint32_t start, uint32_t n, ash_symvec *out);

#endif
