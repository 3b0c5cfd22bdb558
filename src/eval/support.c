/* support.c - choosing the set: a radix histogram finds the K-th largest logit, one pass over the rest draws the tail. */
#include "eval/support.h"

#include <math.h>

static inline uint32_t key_of(float x) { /* unsigned, same order as the floats */
    uint32_t b;
    memcpy(&b, &x, 4);
    return b ^ ((uint32_t)((int32_t)b >> 31) | 0x80000000u);
}

/* Smallest key among the `k` largest (k < n). Eleven, eleven and ten bits at a time. */
static uint32_t kth_largest(const float *x, int64_t n, int64_t k) {
    static const int shift[3] = {21, 10, 0}, bits[3] = {11, 11, 10};
    uint32_t prefix = 0;
    for (int pass = 0; pass < 3; pass++) {
        uint32_t hist[2048] = {0}, mask = (1u << bits[pass]) - 1;
        int above = shift[pass] + bits[pass];
        for (int64_t i = 0; i < n; i++) {
            uint32_t v = key_of(x[i]);
            if (above < 32 && (v >> above) != (prefix >> above)) continue;
            hist[(v >> shift[pass]) & mask]++;
        }
        uint32_t b = mask;
        while (b > 0 && (int64_t)hist[b] < k) k -= hist[b--];
        prefix |= b << shift[pass];
    }
    return prefix;
}

void ash_support_choose(ash_support *s, const float *logits, double lse, int64_t n_vocab, uint64_t seed) {
    s->n = 0;
    if (n_vocab <= ASH_SUP_N) { /* everything */
        double sum = 0;
        for (int64_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i] - lse);
        for (int64_t i = 0; i < n_vocab; i++) {
            s->id[s->n] = (int32_t)i;
            s->w[s->n++] = (float)(exp((double)logits[i] - lse) / sum);
        }
        return;
    }
    uint32_t cut = kth_largest(logits, n_vocab, ASH_SUP_TOP);
    double top = 0;
    int ties = ASH_SUP_TOP;
    for (int64_t i = 0; i < n_vocab; i++) ties -= key_of(logits[i]) > cut;
    int ties_left = ties;
    for (int64_t i = 0; i < n_vocab; i++) {
        uint32_t v = key_of(logits[i]);
        if (v < cut || (v == cut && ties_left-- <= 0)) continue;
        double p = exp((double)logits[i] - lse);
        s->id[s->n] = (int32_t)i;
        s->w[s->n++] = (float)p;
        top += p;
    }
    double rest = 0;
    ties_left = ties;
    for (int64_t i = 0; i < n_vocab; i++) {
        uint32_t v = key_of(logits[i]);
        if (v > cut || (v == cut && ties_left-- > 0)) continue;
        rest += (double)expf(logits[i] - (float)lse);
    }
    ash_rng rng;
    ash_rng_seed(&rng, seed);
    double step = rest / ASH_SUP_TAIL, next = step * ash_rng_f64(&rng), at = 0;
    ties_left = ties;
    for (int64_t i = 0; i < n_vocab && rest > 0; i++) {
        uint32_t v = key_of(logits[i]);
        if (v > cut || (v == cut && ties_left-- > 0)) continue;
        at += (double)expf(logits[i] - (float)lse);
        int hits = 0;
        while (at > next && s->n + (hits > 0 ? 0 : 1) <= ASH_SUP_N && hits < ASH_SUP_TAIL) {
            hits++;
            next += step;
        }
        if (hits && s->n < ASH_SUP_N) {
            s->id[s->n] = (int32_t)i;
            s->w[s->n++] = (float)(hits * step);
        }
    }
    double sum = 0;
    for (int i = 0; i < s->n; i++) sum += (double)s->w[i];
    for (int i = 0; i < s->n; i++) s->w[i] = (float)((double)s->w[i] / sum);
}
