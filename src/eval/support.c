/* support.c - choosing the set: a histogram finds the K-th largest probability, one pass over the rest draws the tail. */
#include "eval/support.h"

static inline uint32_t bits_of(float x) { /* probabilities are not negative: their bits have their order */
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

/* Smallest bits among the `k` largest of n values (k < n). Fourteen, nine and nine bits at a time. */
static uint32_t kth_largest(const float *x, int64_t n, int64_t k) {
    static const int shift[3] = {18, 9, 0}, bits[3] = {14, 9, 9};
    uint32_t hist[1 << 14], prefix = 0;
    for (int pass = 0; pass < 3; pass++) {
        uint32_t mask = (1u << bits[pass]) - 1;
        int above = shift[pass] + bits[pass];
        memset(hist, 0, (mask + 1) * sizeof *hist);
        for (int64_t i = 0; i < n; i++) {
            uint32_t v = bits_of(x[i]);
            if (above < 32 && (v >> above) != (prefix >> above)) continue;
            hist[(v >> shift[pass]) & mask]++;
        }
        uint32_t b = mask;
        while (b > 0 && (int64_t)hist[b] < k) k -= hist[b--];
        prefix |= b << shift[pass];
    }
    return prefix;
}

void ash_support_choose(ash_support *s, const float *p, int64_t n_vocab, uint64_t seed) {
    s->n = 0;
    bool all = n_vocab <= ASH_SUP_N;
    uint32_t cut = all ? 0 : kth_largest(p, n_vocab, ASH_SUP_TOP);
    int ties = ASH_SUP_TOP; /* values equal to the cut that still belong to the top */
    for (int64_t i = 0; !all && i < n_vocab; i++) ties -= bits_of(p[i]) > cut;
    double rest = 0;
    for (int64_t i = 0, left = ties; i < n_vocab; i++) {
        uint32_t v = bits_of(p[i]);
        if (all || v > cut || (v == cut && left-- > 0)) {
            s->id[s->n] = (int32_t)i;
            s->w[s->n++] = p[i];
        } else {
            rest += (double)p[i];
        }
    }
    ash_rng rng;
    ash_rng_seed(&rng, seed);
    double step = rest / ASH_SUP_TAIL, next = step * ash_rng_f64(&rng), at = 0;
    for (int64_t i = 0, left = ties; i < n_vocab && rest > 0; i++) {
        uint32_t v = bits_of(p[i]);
        if (all || v > cut || (v == cut && left-- > 0)) continue;
        at += (double)p[i];
        int hits = 0;
        for (; at > next && hits < ASH_SUP_TAIL; hits++) next += step;
        if (hits && s->n < ASH_SUP_N) {
            s->id[s->n] = (int32_t)i;
            s->w[s->n++] = (float)(hits * step);
        }
    }
    double sum = 0;
    for (int i = 0; i < s->n; i++) sum += (double)s->w[i];
    for (int i = 0; i < s->n; i++) s->w[i] = (float)((double)s->w[i] / sum);
}
