/* sweep_layer.c - what a layer needs before chunks can pass through it: its matrices unpacked into float32 and 8-bit panels, and
 * the rotations of all positions. */
#include "eval/sweep_int.h"

#include <math.h>

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

ash_status ash_layer_mem_alloc(ash_layer_mem *lm, const ash_model *m, bool whole, ash_error *err) {
    size_t nf = 0, nq = 0, ns = 0;
    *lm = (ash_layer_mem){0};
    for (int l = 0; l < m->hp.n_layer; l++) {
        size_t f = 0, q = 0, s = 0;
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            f += ash_packed_floats(w->n_rows, w->K);
            q += ash_dmat_q_bytes(w->n_rows, w->K);
            s += up16(ash_dmat_s_floats(w->n_rows, w->K));
        }
        nf = ASH_MAX(nf, f), nq = ASH_MAX(nq, q), ns = ASH_MAX(ns, s);
    }
    lm->floats = nf;
    lm->f = ash_alloc_aligned(nf * sizeof(float), 64);
    if (!whole) {
        lm->q = ash_alloc_aligned(nq, 64);
        lm->s = ash_alloc_aligned(ns * sizeof(float), 64);
    }
    if (lm->f && (whole || (lm->q && lm->s))) return ASH_OK;
    ash_layer_mem_free(lm);
    return ash_fail(err, ASH_E_NOMEM, "out of memory for the weights of a layer");
}

void ash_layer_mem_free(ash_layer_mem *lm) {
    ash_free(lm->f);
    ash_free(lm->q);
    ash_free(lm->s);
    *lm = (ash_layer_mem){0};
}

void ash_layer_pack(const ash_exec *e, const ash_layer_mem *lm, const ash_model *m, int l, const float *packed[ASH_W_COUNT]) {
    float *f = lm->f;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *w = &m->layers[l].w[r];
        packed[r] = w->data ? f : NULL;
        if (w->data) ash_mm_pack(e->k, e->pool, w, f);
        f += ash_packed_floats(w->n_rows, w->K);
    }
}

size_t ash_layer_change_floats(const ash_model *m) {
    size_t most = 0;
    for (int l = 0; l < m->hp.n_layer; l++) {
        size_t n = 0;
        ash_part p;
        for (int r = 0; r < ASH_ROLE_COUNT; r++) {
            const bool here = ASH_ROLES_LAYER >> r & 1 || (r == ASH_ROLE_PLE_IN && l == 0);
            if (!here || !ash_part_of(m, l, r, &p)) continue;
            n += r < ASH_ROLE_N_LAYER ? ash_packed_floats(p.w->n_rows, p.w->K) : up16((size_t)p.n_mat * (size_t)p.w->n_rows * (size_t)p.w->K);
        }
        most = ASH_MAX(most, n);
    }
    return most;
}

void ash_layer_weights(const ash_exec *e, const ash_layer_mem *lm, int l, ash_dlayer *L) {
    float *f = lm->f, *s = lm->s;
    uint8_t *q = lm->q;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *w = &L->m->layers[l].w[r];
        ash_dmat *d = &L->w[r];
        *d = (ash_dmat){w->K, (w->K + 31) / 32 * 32, w->n_rows, f, q, s};
        ash_mm_pack(e->k, e->pool, w, f);
        ash_dmat_build(e, d);
        f += ash_packed_floats(w->n_rows, w->K);
        q += ash_dmat_q_bytes(w->n_rows, w->K);
        s += up16(ash_dmat_s_floats(w->n_rows, w->K));
    }
    L->layer = l;
}

ash_status ash_layer_ropes(ash_dlayer *L, ash_error *err) {
    const ash_hparams *hp = &L->m->hp;
    for (int kind = 0; kind < hp->n_rope; kind++) {
        const ash_rope *r = &hp->rope[kind];
        float *cs = L->cs[kind] = ash_alloc_aligned((size_t)L->T * (size_t)r->n_rot * sizeof(float) + 64, 64);
        if (!cs) return ash_fail(err, ASH_E_NOMEM, "out of memory for rotations");
        for (int t = 0; t < L->T; t++)
            for (int i = 0; i < r->n_rot / 2; i++) {
                double a = (double)r->freq[i] * t;
                cs[(size_t)t * (size_t)r->n_rot + 2 * (size_t)i] = (float)cos(a) * r->magnitude;
                cs[(size_t)t * (size_t)r->n_rot + 2 * (size_t)i + 1] = (float)sin(a) * r->magnitude;
            }
    }
    return ASH_OK;
}

void ash_layer_ropes_free(ash_dlayer *L) {
    for (int i = 0; i < ASH_ROPE_KINDS; i++) {
        ash_free(L->cs[i]);
        L->cs[i] = NULL;
    }
}
