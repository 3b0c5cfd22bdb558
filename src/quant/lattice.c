/* lattice.c - building the search form of the codebooks. */
#include "quant/lattice.h"

#include "base/base.h"
#include "tensor/codebooks.h"

#include <pthread.h>

static lattice all[LAT_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Magnitude i of a point; the IQ1 grid's bytes are signed. */
static int entry(lat_kind kind, int p, int i) {
    switch (kind) {
    case LAT_IQ2_XXS: return (int)(ash_iq2xxs_grid[p] >> 8 * i & 255);
    case LAT_IQ2_XS: return (int)(ash_iq2xs_grid[p] >> 8 * i & 255);
    case LAT_IQ2_S: return (int)(ash_iq2s_grid[p] >> 8 * i & 255);
    case LAT_IQ3_XXS: return (int)(ash_iq3xxs_grid[p] >> 8 * i & 255);
    case LAT_IQ3_S: return (int)(ash_iq3s_grid[p] >> 8 * i & 255);
    default: return (int8_t)(ash_iq1_grid[p] >> 8 * i & 255);
    }
}

static void build(lat_kind kind) {
    /* points, weights per point, and the factor of the decoder (blocks.h) that is not d * (2 sub-scale + 1) */
    static const struct {
        int n, k;
        float factor;
    } form[LAT_COUNT] = {{256, 8, 0.125f}, {512, 8, 0.125f}, {1024, 8, 0.125f}, {256, 4, 0.25f}, {512, 4, 1.0f}, {2048, 8, 1.0f}};
    lattice *l = &all[kind];
    int n = form[kind].n, h = form[kind].k / 2, value[LAT_MAX_VALUES], nv = 0;
    l->k = form[kind].k;
    for (int want = -1; want < 256; want++) {
        bool seen = false;
        for (int p = 0; p < n && !seen; p++)
            for (int i = 0; i < l->k; i++) seen |= entry(kind, p, i) == want;
        if (seen && nv < LAT_MAX_VALUES) value[nv++] = want;
    }
    l->nv = nv;
    l->n_half = 1;
    for (int i = 0; i < h; i++) l->n_half *= nv;
    for (int i = 0; i < nv; i++) l->v[i] = (float)value[i] * form[kind].factor;
    uint16_t half[2048][2];
    for (int p = 0; p < n; p++)
        for (int s = 0; s < 2; s++) {
            int c = 0;
            for (int j = h - 1; j >= 0; j--) {
                int t = 0;
                while (t + 1 < nv && value[t] != entry(kind, p, s * h + j)) t++;
                c = c * nv + t;
            }
            half[p][s] = (uint16_t)c;
        }
    for (int c = 0; c < l->n_half; c++) {
        int at = 0; /* in the current four */
        for (int p = 0; p < n; p++) {
            if (half[p][1] != c) continue;
            lat_four *f = &l->four[l->n_fours];
            f->hi = (uint16_t)(c * 64);
            for (int j = at; j < 4; j++) f->lo[j] = (uint16_t)(half[p][0] * 64), l->id[4 * l->n_fours + j] = (uint16_t)p;
            if (++at == 4) at = 0, l->n_fours++;
        }
        if (at) l->n_fours++;
    }
}

static void build_all(void) {
    for (int k = 0; k < LAT_COUNT; k++) build((lat_kind)k);
}

const lattice *ash_lattice(lat_kind k) {
    pthread_once(&once, build_all);
    return &all[k];
}
