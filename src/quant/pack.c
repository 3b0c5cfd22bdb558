/* pack.c - bit packing of fitted blocks. Layouts: tensor/blocks.h. */
#include "quant/pack.h"
#include "quant/lanes.h"
#include "tensor/blocks.h"

#include <string.h>

/* Codes of a lane's n weights as bytes, plus `zero`. */
static void lane_codes(const fit_out *f, int lane, int n, int zero, uint8_t *q) {
    for (int j = 0; j < n; j++) q[j] = (uint8_t)((int)f->q[j * LANES + lane] + zero);
}

/* IQ4 levels back to their 4-bit codes: a level v sits in slot (v + 127) / 8, which is unique per level. */
static void lane_codes_iq4(const fit_out *f, int lane, uint8_t *q) {
    static const int8_t lev[16] = {IQ4_LEVELS};
    uint8_t slot[31];
    memset(slot, 0, sizeof slot);
    for (int i = 0; i < 16; i++) slot[(lev[i] + 127) >> 3] = (uint8_t)i;
    for (int j = 0; j < 32; j++) q[j] = slot[((int)f->q[j * LANES + lane] + 127) >> 3];
}

static void nibbles(uint8_t *dst, const uint8_t *q) {
    for (int j = 0; j < 16; j++) dst[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void fifth_bits(uint8_t *qh, const uint8_t *q) {
    for (int i = 0; i < 4; i++) {
        unsigned b = 0;
        for (int j = 0; j < 8; j++) b |= (unsigned)(q[8 * i + j] >> 4 & 1) << j;
        qh[i] = (uint8_t)b;
    }
}

/* Q4_K, Q5_K: twelve bytes of 6-bit sub-scales and minimums. */
static void pack_scale_min(uint8_t *s, const int *sc, const int *mn) {
    for (int b = 0; b < 4; b++) {
        s[b] = (uint8_t)(sc[b] | (sc[b + 4] >> 4) << 6);
        s[b + 4] = (uint8_t)(mn[b] | (mn[b + 4] >> 4) << 6);
        s[b + 8] = (uint8_t)((sc[b + 4] & 15) | (mn[b + 4] & 15) << 4);
    }
}

static void pack_q2_k(const fit_out *f, ash_blk_q2_k *b) {
    uint8_t q[256];
    for (int s = 0; s < 16; s++) {
        lane_codes(f, s, 16, 0, q + 16 * s);
        b->scales[s] = (uint8_t)(f->sc[s] | f->mn[s] << 4);
    }
    for (int i = 0; i < 64; i++) {
        const uint8_t *p = q + 128 * (i / 32) + i % 32;
        b->qs[i] = (uint8_t)(p[0] | p[32] << 2 | p[64] << 4 | p[96] << 6);
    }
    b->d = f->d[0], b->dmin = f->m[0];
}

static void pack_q3_k(const fit_out *f, ash_blk_q3_k *b) {
    uint8_t q[256];
    memset(b, 0, sizeof *b);
    for (int s = 0; s < 16; s++) {
        lane_codes(f, s, 16, 4, q + 16 * s);
        int sc = f->sc[s] + 32;
        b->scales[s % 8] |= (uint8_t)((sc & 15) << (s < 8 ? 0 : 4));
        b->scales[8 + s % 4] |= (uint8_t)((sc >> 4) << 2 * (s / 4));
    }
    for (int i = 0; i < 64; i++) {
        const uint8_t *p = q + 128 * (i / 32) + i % 32;
        b->qs[i] = (uint8_t)((p[0] & 3) | (p[32] & 3) << 2 | (p[64] & 3) << 4 | (p[96] & 3) << 6);
    }
    for (int l = 0; l < 32; l++)
        for (int s = 0; s < 8; s++) b->hmask[l] |= (uint8_t)((q[32 * s + l] >> 2) << s);
    b->d = f->d[0];
}

static void pack_q4_k(const fit_out *f, int lane, ash_blk_q4_k *b) {
    uint8_t q[256];
    for (int s = 0; s < 8; s++) lane_codes(f, lane + s, 32, 0, q + 32 * s);
    for (int i = 0; i < 128; i++) {
        const uint8_t *p = q + 64 * (i / 32) + i % 32;
        b->qs[i] = (uint8_t)(p[0] | p[32] << 4);
    }
    pack_scale_min(b->scales, f->sc + lane, f->mn + lane);
    b->d = f->d[lane], b->dmin = f->m[lane];
}

static void pack_q5_k(const fit_out *f, int lane, ash_blk_q5_k *b) {
    uint8_t q[256];
    memset(b->qh, 0, sizeof b->qh);
    for (int s = 0; s < 8; s++) {
        lane_codes(f, lane + s, 32, 0, q + 32 * s);
        for (int l = 0; l < 32; l++) b->qh[l] |= (uint8_t)((q[32 * s + l] >> 4) << s);
    }
    for (int i = 0; i < 128; i++) {
        const uint8_t *p = q + 64 * (i / 32) + i % 32;
        b->qs[i] = (uint8_t)((p[0] & 15) | (p[32] & 15) << 4);
    }
    pack_scale_min(b->scales, f->sc + lane, f->mn + lane);
    b->d = f->d[lane], b->dmin = f->m[lane];
}

static void pack_q6_k(const fit_out *f, ash_blk_q6_k *b) {
    uint8_t q[256];
    for (int s = 0; s < 16; s++) {
        lane_codes(f, s, 16, 32, q + 16 * s);
        b->scales[s] = (int8_t)f->sc[s];
    }
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *p = q + 128 * h + l;
            b->ql[64 * h + l] = (uint8_t)((p[0] & 15) | (p[64] & 15) << 4);
            b->ql[64 * h + 32 + l] = (uint8_t)((p[32] & 15) | (p[96] & 15) << 4);
            b->qh[32 * h + l] = (uint8_t)(p[0] >> 4 | (p[32] >> 4) << 2 | (p[64] >> 4) << 4 | (p[96] >> 4) << 6);
        }
    b->d = f->d[0];
}

static void pack_iq4_xs(const fit_out *f, int lane, ash_blk_iq4_xs *b) {
    unsigned high = 0;
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (int s = 0; s < 8; s++) {
        uint8_t q[32];
        lane_codes_iq4(f, lane + s, q);
        nibbles(b->qs + 16 * s, q);
        int sc = f->sc[lane + s] + 32;
        b->scales_l[s / 2] |= (uint8_t)((sc & 15) << 4 * (s % 2));
        high |= (unsigned)(sc >> 4) << 2 * s;
    }
    b->scales_h = (uint16_t)high;
    b->d = f->d[lane];
}

/* ---- lattice types ---- */

static void store16(uint8_t *p, unsigned v) { p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8); }
static void store32(uint8_t *p, uint32_t v) { store16(p, v & 0xffff), store16(p + 2, v >> 16); }

/* Minus signs of the 8 weights from j on, first weight lowest. */
static unsigned signs8(const fit_out *f, int lane, int j) {
    unsigned s = 0;
    for (int i = 0; i < 8; i++) s |= (unsigned)(f->q[(j + i) * LANES + lane] < 0) << i;
    return s;
}
static unsigned point(const fit_out *f, int lane, int g) { return f->idx[g * LANES + lane]; }

static void pack_iq2_xxs(const fit_out *f, int lane, ash_blk_iq2_xxs *b) {
    for (int s = 0; s < 8; s++) {
        uint32_t w = (uint32_t)f->sc[lane + s] << 28;
        for (int i = 0; i < 4; i++) {
            b->qs[8 * s + i] = (uint8_t)point(f, lane + s, i);
            w |= (signs8(f, lane + s, 8 * i) & 127u) << 7 * i;
        }
        store32(b->qs + 8 * s + 4, w);
    }
    b->d = f->d[lane];
}

static void pack_iq3_xxs(const fit_out *f, int lane, ash_blk_iq3_xxs *b) {
    for (int s = 0; s < 8; s++) {
        uint32_t w = (uint32_t)f->sc[lane + s] << 28;
        for (int i = 0; i < 4; i++) w |= (signs8(f, lane + s, 8 * i) & 127u) << 7 * i;
        store32(b->ss + 4 * s, w);
        for (int i = 0; i < 8; i++) b->qs[8 * s + i] = (uint8_t)point(f, lane + s, i);
    }
    b->d = f->d[lane];
}

/* Sixteen 4-bit sub-scales, low nibble first. */
static void scales16(const fit_out *f, uint8_t *s) {
    for (int i = 0; i < 8; i++) s[i] = (uint8_t)(f->sc[2 * i] | f->sc[2 * i + 1] << 4);
}

static void pack_iq2_xs(const fit_out *f, ash_blk_iq2_xs *b) {
    for (int i = 0; i < 32; i++) store16(b->qs + 2 * i, point(f, i / 2, i % 2) | (signs8(f, i / 2, 8 * (i % 2)) & 127u) << 9);
    scales16(f, b->scales);
    b->d = f->d[0];
}

static void pack_iq2_s(const fit_out *f, ash_blk_iq2_s *b) {
    memset(b->qh, 0, sizeof b->qh);
    for (int i = 0; i < 32; i++) {
        unsigned p = point(f, i / 2, i % 2);
        b->qs[i] = (uint8_t)p;
        b->qh[i / 4] |= (uint8_t)(p >> 8 << 2 * (i % 4));
        b->signs[i] = (uint8_t)signs8(f, i / 2, 8 * (i % 2));
    }
    scales16(f, b->scales);
    b->d = f->d[0];
}

static void pack_iq3_s(const fit_out *f, int lane, ash_blk_iq3_s *b) {
    memset(b->qh, 0, sizeof b->qh);
    for (int i = 0; i < 64; i++) {
        unsigned p = point(f, lane + i / 8, i % 8);
        b->qs[i] = (uint8_t)p;
        b->qh[i / 8] |= (uint8_t)(p >> 8 << i % 8);
    }
    for (int i = 0; i < 32; i++) b->signs[i] = (uint8_t)signs8(f, lane + i / 4, 8 * (i % 4));
    for (int i = 0; i < 4; i++) b->scales[i] = (uint8_t)(f->sc[lane + 2 * i] | f->sc[lane + 2 * i + 1] << 4);
    b->d = f->d[lane];
}

static void pack_iq1_s(const fit_out *f, int lane, ash_blk_iq1_s *b) {
    for (int s = 0; s < 8; s++) {
        unsigned h = (unsigned)f->sc[lane + s] << 12 | (point(f, lane + s, 0) & FIT_IDX_MINUS);
        for (int i = 0; i < 4; i++) {
            unsigned p = point(f, lane + s, i) & 2047u;
            b->qs[4 * s + i] = (uint8_t)p;
            h |= p >> 8 << 3 * i;
        }
        store16(b->qh + 2 * s, h);
    }
    b->d = f->d[lane];
}

static void pack_iq1_m(const fit_out *f, ash_blk_iq1_m *b) {
    for (int i = 0; i < 32; i += 2) {
        unsigned nib[2];
        for (int k = 0; k < 2; k++) {
            unsigned p = point(f, i / 2, k);
            b->qs[i + k] = (uint8_t)p;
            nib[k] = (p >> 8 & 7) | (p & FIT_IDX_MINUS ? 8 : 0);
        }
        b->qh[i / 2] = (uint8_t)(nib[0] | nib[1] << 4);
    }
    for (int w = 0; w < 4; w++) {
        unsigned s = (unsigned)(f->d[0] >> 4 * w & 15) << 12;
        for (int k = 0; k < 4; k++) s |= (unsigned)f->sc[4 * w + k] << 3 * k;
        store16(b->scales + 2 * w, s);
    }
}

/* ---- one scale for many weights, four-bit floats ---- */

static void pack_tq2_0(const fit_out *f, int lane, ash_blk_tq2_0 *b) {
    memset(b->qs, 0, sizeof b->qs);
    for (int s = 0; s < 8; s++) {
        uint8_t q[32];
        lane_codes(f, lane + s, 32, 1, q);
        for (int l = 0; l < 32; l++) b->qs[32 * (s / 4) + l] |= (uint8_t)(q[l] << 2 * (s % 4));
    }
    b->d = f->d[lane];
}

/* Five digits, first one highest, as a fraction of 256 rounded up; the four of qh get a zero behind them. */
static uint8_t ternary_byte(const uint8_t *q, int step, int n) {
    unsigned v = 0;
    for (int s = 0; s < 5; s++) v = 3 * v + (s < n ? q[s * step] : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

static void pack_tq1_0(const fit_out *f, int lane, ash_blk_tq1_0 *b) {
    uint8_t q[256];
    for (int s = 0; s < 8; s++) lane_codes(f, lane + s, 32, 1, q + 32 * s);
    for (int l = 0; l < 32; l++) b->qs[l] = ternary_byte(q + l, 32, 5);
    for (int l = 0; l < 16; l++) b->qs[32 + l] = ternary_byte(q + 160 + l, 16, 5);
    for (int l = 0; l < 4; l++) b->qh[l] = ternary_byte(q + 240 + l, 4, 4);
    b->d = f->d[lane];
}

static void pack_q2_0(const fit_out *f, int lane, ash_blk_q2_0 *b) {
    uint8_t q[64];
    for (int s = 0; s < 2; s++) lane_codes(f, lane + s, 32, 1, q + 32 * s);
    for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)(q[4 * i] | q[4 * i + 1] << 2 | q[4 * i + 2] << 4 | q[4 * i + 3] << 6);
    b->d = f->d[lane];
}

static void pack_q1_0(const fit_out *f, int lane, ash_blk_q1_0 *b) {
    for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)(~signs8(f, lane + i / 4, 8 * (i % 4)) & 255u);
    b->d = f->d[lane];
}

/* n levels of a lane to four-bit float codes: sign, then the magnitude's place in 0, 1, 2, 3, 4, 6, 8, 12. */
static void lane_codes_fp4(const fit_out *f, int lane, int n, uint8_t *q) {
    static const uint8_t place[13] = {0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7};
    for (int j = 0; j < n; j++) {
        int v = (int)f->q[j * LANES + lane];
        q[j] = (uint8_t)(place[v < 0 ? -v : v] | (v < 0 ? 8 : 0));
    }
}

static void pack_mxfp4(const fit_out *f, int lane, ash_blk_mxfp4 *b) {
    uint8_t q[32];
    lane_codes_fp4(f, lane, 32, q);
    nibbles(b->qs, q);
    b->e = (uint8_t)f->sc[lane];
}

static void pack_nvfp4(const fit_out *f, int lane, ash_blk_nvfp4 *b) {
    for (int s = 0; s < 4; s++) {
        uint8_t q[16];
        lane_codes_fp4(f, lane + s, 16, q);
        for (int j = 0; j < 8; j++) b->qs[8 * s + j] = (uint8_t)(q[j] | q[j + 8] << 4);
        b->sc[s] = (uint8_t)f->sc[lane + s];
    }
}

void ash_pack(ash_dtype t, const fit_out *f, int n_blocks, uint8_t *const *dst) {
    for (int i = 0; i < n_blocks; i++) {
        void *p = dst[i];
        uint8_t q[32];
        switch (t) {
        case ASH_Q4_0: {
            ash_blk_q4_0 *b = p;
            lane_codes(f, i, 32, 8, q);
            nibbles(b->qs, q);
            b->d = f->d[i];
            break;
        }
        case ASH_Q5_0: {
            ash_blk_q5_0 *b = p;
            lane_codes(f, i, 32, 16, q);
            nibbles(b->qs, q);
            fifth_bits(b->qh, q);
            b->d = f->d[i];
            break;
        }
        case ASH_Q4_1: {
            ash_blk_q4_1 *b = p;
            lane_codes(f, i, 32, 0, q);
            nibbles(b->qs, q);
            b->d = f->d[i], b->m = f->m[i];
            break;
        }
        case ASH_Q5_1: {
            ash_blk_q5_1 *b = p;
            lane_codes(f, i, 32, 0, q);
            nibbles(b->qs, q);
            fifth_bits(b->qh, q);
            b->d = f->d[i], b->m = f->m[i];
            break;
        }
        case ASH_Q8_0: {
            ash_blk_q8_0 *b = p;
            for (int j = 0; j < 32; j++) b->qs[j] = (int8_t)f->q[j * LANES + i];
            b->d = f->d[i];
            break;
        }
        case ASH_IQ4_NL: {
            ash_blk_iq4_nl *b = p;
            lane_codes_iq4(f, i, q);
            nibbles(b->qs, q);
            b->d = f->d[i];
            break;
        }
        case ASH_Q2_K: pack_q2_k(f, p); break;
        case ASH_Q3_K: pack_q3_k(f, p); break;
        case ASH_Q4_K: pack_q4_k(f, 8 * i, p); break;
        case ASH_Q5_K: pack_q5_k(f, 8 * i, p); break;
        case ASH_Q6_K: pack_q6_k(f, p); break;
        case ASH_IQ4_XS: pack_iq4_xs(f, 8 * i, p); break;
        case ASH_IQ2_XXS: pack_iq2_xxs(f, 8 * i, p); break;
        case ASH_IQ2_XS: pack_iq2_xs(f, p); break;
        case ASH_IQ2_S: pack_iq2_s(f, p); break;
        case ASH_IQ3_XXS: pack_iq3_xxs(f, 8 * i, p); break;
        case ASH_IQ3_S: pack_iq3_s(f, 8 * i, p); break;
        case ASH_IQ1_S: pack_iq1_s(f, 8 * i, p); break;
        case ASH_IQ1_M: pack_iq1_m(f, p); break;
        case ASH_TQ1_0: pack_tq1_0(f, 8 * i, p); break;
        case ASH_TQ2_0: pack_tq2_0(f, 8 * i, p); break;
        case ASH_Q2_0: pack_q2_0(f, 2 * i, p); break;
        case ASH_Q1_0: pack_q1_0(f, 4 * i, p); break;
        case ASH_MXFP4: pack_mxfp4(f, i, p); break;
        case ASH_NVFP4: pack_nvfp4(f, 4 * i, p); break;
        default: break;
        }
    }
}
