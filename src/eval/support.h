/* support.h - a small weighted set of tokens that stands for the whole vocabulary at one position.
 *
 * The reference's K most likely tokens with their probabilities, plus S draws from the rest (systematic sampling in
 * proportion to probability), each with weight P_rest / S. KL on this discrete distribution estimates the KL over the
 * vocabulary: exact on the top, unbiased in the tail to second order, never negative, exactly 0 for equal logits. A
 * variant then needs K + S logits, whatever the vocabulary. */
#ifndef ASH_EVAL_SUPPORT_H
#define ASH_EVAL_SUPPORT_H

#include "base/base.h"

enum { ASH_SUP_TOP = 512, ASH_SUP_TAIL = 256, ASH_SUP_N = ASH_SUP_TOP + ASH_SUP_TAIL };

typedef struct {
    int n;                    /* entries, at most ASH_SUP_N */
    int32_t id[ASH_SUP_N];
    float w[ASH_SUP_N];       /* sums to 1 */
} ash_support;

/* From a row of probabilities (sum 1 up to rounding). Same seed, same set. */
void ash_support_choose(ash_support *s, const float *prob, int64_t n_vocab, uint64_t seed);

#endif
