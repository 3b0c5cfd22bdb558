/* attn.c - attention of a block of query tokens on one KV head, from the table's kernels. Scores of all
 * visible keys, soft-cap, softmax, weighted values; see kern.h for what makes the result independent of
 * batching.
 */
#include "kern/kern.h"

size_t ash_attn_scratch_bytes(int hd, int group, int n_keys) {
    (void)hd, (void)group;
    return ((size_t)ASH_MAX(n_keys, 1) * sizeof(float) + 63) / 64 * 64;
}

/* Calls of qk or pv on the part of segment g that [lo, hi) covers; *off is where its keys start. */
typedef struct {
    const char *k, *v;
    int64_t ldk, ldv;
    int n, at; /* keys, and index of the first one from lo */
} run_part;

static int visible(const ash_attn *a, int lo, int hi, run_part out[2]) {
    size_t es = a->f16 ? 2 : 4;
    int n = 0, base = 0;
    for (int g = 0; g < a->n_seg; base += a->seg[g].n, g++) {
        int b = ASH_MAX(lo - base, 0), e = ASH_MIN(hi - base, a->seg[g].n);
        if (b >= e) continue;
        out[n++] = (run_part){(const char *)a->seg[g].k + (size_t)b * (size_t)a->seg[g].ldk * es,
                              (const char *)a->seg[g].v + (size_t)b * (size_t)a->seg[g].ldv * es, a->seg[g].ldk, a->seg[g].ldv, e - b,
                              base + b - lo};
    }
    return n;
}

void ash_attn_run(const ash_kern *k, const ash_attn *a, void *scratch) {
    float *s = scratch;
    ash_qk_fn qk = a->f16 ? k->qk_f16 : k->qk_f32;
    ash_pv_fn pv = a->f16 ? k->pv_f16 : k->pv_f32;
    for (int t = 0; t < a->n_q; t++) {
        run_part p[2];
        int np = visible(a, a->lo[t], a->hi[t], p), n = a->hi[t] - a->lo[t];
        for (int h = 0; h < a->group; h++) {
            const float *q = a->q + t * a->ldq + (int64_t)h * a->hd;
            float *o = a->out + t * a->ldo + (int64_t)h * a->hd;
            for (int i = 0; i < np; i++) qk(q, p[i].k, p[i].ldk, p[i].n, a->hd, a->scale, s + p[i].at);
            if (a->cap > 0) k->softcap(s, n, a->cap);
            k->softmax(s, n);
            memset(o, 0, (size_t)a->hd * sizeof *o);
            for (int i = 0; i < np; i++) pv(s + p[i].at, p[i].v, p[i].ldv, p[i].n, a->hd, o);
        }
    }
}
