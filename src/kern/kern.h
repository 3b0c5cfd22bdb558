/* kern.h - compute kernels behind one table.
 *
 * Every kernel has a scalar reference `ash_k_<name>_ref` (always compiled, the oracle) and may have
 * versions for the levels of an architecture, `ash_k_<name>_avx2` and so on. src/kern/list.inc is the one list: declarations here,
 * dispatch (dispatch.c), parity tests and kern_bench come from it.
 *
 * Determinism contract: an output element's value depends neither on how many rows or tokens are
 * computed with it nor on threads. For the 8-bit kernels it is stronger: integer sums are exact and
 * the float steps are prescribed below, so that all CPU levels, matrix-vector and matrix-matrix agree
 * bit for bit.
 *
 * Two weight-panel forms, 16 output rows side by side so that a vector lane is a row:
 *
 *  f32 panel   float p[K][16]                     y[t][r] = sum over k ascending of fma(p[k][r], x[t][k], acc), acc0 = 0
 *
 *  i8 panel    uint8_t q[K/4][16][4]  codes       w[r][k] = s[k/G][r] * (q - zp) (+ m[k/G][r] when has_min)
 *              float   s[K/G][16], m[K/G][16]     G = 16 or 32; zp per type
 *
 * 8-bit activations, per token: int8 q[K] in [-127, 127], one scale d per 32 values, and the integer
 * sums b of each 16 values: x ~ d[k/32] * q[k];  d = max|x| / 127, q = round-to-nearest-even(x / d), d = 0 for an all-zero group.
 *
 *   8-bit dot product of row r with token t, groups g ascending, starting from acc = 0:
 *     isum = sum_{k in g} (q_w - zp) * q_a          exact int32
 *     acc  = fmaf(s[g][r] * d[g], (float)isum, acc)              the product s*d rounded to float
 *     acc  = fmaf(m[g][r], d[g] * (float)bsum_g, acc)            only with has_min; bsum_g = sum of q_a over g
 *   (d[g] means the scale of the 32-group that g lies in.)
 */
#ifndef ASH_KERN_H
#define ASH_KERN_H

#include "ashlar/tensor.h"
#include "base/base.h"

#define ASH_PANEL_ROWS 16

/* 8-bit activations of n_tok tokens, K % 32 == 0 (callers pad with zeros). Token t: q + t*ld_q,
 * d + t*ld_d, b + t*ld_b. */
typedef struct {
    int8_t *q;
    float *d;    /* K/32 */
    int16_t *b;  /* K/16: sums of 16 codes, |b| <= 2032 */
    int64_t ld_q, ld_d, ld_b;
} ash_act8;

/* How a type looks in i8 panel form. G == 0: the type has no 8-bit form (F32, F16, BF16). */
typedef struct {
    int G;        /* 16 or 32 */
    int zp;       /* zero point of the unsigned codes, 0 with has_min */
    int qmax;     /* codes are <= qmax */
    bool has_min;
} ash_i8_form;
ash_i8_form ash_dtype_i8_form(ash_dtype t);

typedef struct {
    uint8_t *q;   /* [K/4][16][4], 64-byte aligned */
    float *s;     /* [K/G][16] */
    float *m;     /* [K/G][16], unused without has_min */
} ash_panel8;

/* ---- signatures ---- */
typedef void (*ash_decode_fn)(const void *src, float *dst, int64_t n);                 /* n multiple of the block */
/* Rows r < n_rows (<= 16) of K elements, row r at w + r*row_bytes; missing rows become zero rows. */
typedef void (*ash_unpack8_fn)(const void *w, size_t row_bytes, int n_rows, int K, ash_panel8 out);
/* n_rows any >= 1, one token (a's first): y[0..n_rows). Reads the GGUF's own layout. */
typedef void (*ash_gemv8_fn)(const void *w, size_t row_bytes, int64_t n_rows, int K, ash_act8 a, float *y);
/* ceil(n_rows/16) panels of form f against n_tok tokens: y[t*ldy + r], r < n_rows. Panel i is at p.q + i*K*16,
 * p.s + i*K/G*16, p.m + i*K/G*16. */
typedef void (*ash_gemm8_fn)(ash_panel8 p, ash_i8_form f, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy);
typedef void (*ash_quant8_fn)(const float *x, int K, int8_t *q, float *d, int16_t *b);
/* 16 rows (n_rows valid, the rest zero) row-major with stride ld into a f32 panel. */
typedef void (*ash_packf_fn)(const float *src, int64_t ld, int n_rows, int K, float *panel);
/* ceil(n_rows/16) consecutive f32 panels (K*16 floats each) against n_tok tokens. y[t*ldy + r], r < n_rows. */
typedef void (*ash_gemmf_fn)(const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy);
/* One token against rows in the GGUF's own layout (F32, F16, BF16): y[0..n_rows), same order as gemmf. */
typedef void (*ash_gemvf_fn)(const void *w, size_t row_bytes, int64_t n_rows, int K, const float *x, float *y);

/* element-wise and attention pieces (all f32) */
typedef void (*ash_rmsnorm_fn)(const float *x, const float *w /* may be NULL */, int n, float eps, float *y);
typedef void (*ash_addto_fn)(float *y, const float *x, int64_t n);                      /* y += x */
typedef void (*ash_glu_fn)(float *g, const float *u, int64_t n);                        /* g = act(g) * u */
typedef void (*ash_cvt16_fn)(const float *x, uint16_t *y, int64_t n);                   /* f32 -> f16, nearest even */
typedef void (*ash_cvt32_fn)(const uint16_t *x, float *y, int64_t n);
/* One query head against keys: keys j in [0, n_keys) at k + j*ldk (hd floats or halves), oldest first.
 * s[j] = scale * dot(q, k_j), the dot one fma chain over d ascending. ldk, ldv in elements. */
typedef void (*ash_qk_fn)(const float *q, const void *k, int64_t ldk, int n_keys, int hd, float scale, float *s);
/* out[0..hd) += sum_j p[j] * v_j, j ascending. */
typedef void (*ash_pv_fn)(const float *p, const void *v, int64_t ldv, int n_keys, int hd, float *out);
/* The same for n_q rows of queries or probabilities on the same keys, bit for bit:
 * s[i*lds + j] = scale * dot(q_i, k_j);   out_i[0..hd) += sum_j p[i*ldp + j] * v_j. */
typedef void (*ash_qkm_fn)(const float *q, int64_t ldq, int n_q, const void *k, int64_t ldk, int n_keys, int hd, float scale, float *s,
                           int64_t lds);
typedef void (*ash_pvm_fn)(const float *p, int64_t ldp, int n_q, const void *v, int64_t ldv, int n_keys, int hd, float *out, int64_t ldo);
/* Blocks of the KV cache, kv_block.h: encode 32 tokens of hd floats; keys as f32 panels of 16 tokens (hd * 16 floats each), from
 * the first of consecutive blocks on; dimensions [d0, d0 + nd), d0 a multiple of 32, nd rounded up to one, of n consecutive tokens'
 * values from row `v` on. */
typedef void (*ash_kvenc_fn)(const float *x, int64_t ldx, int hd, uint8_t *block);
typedef void (*ash_kvpanel_fn)(const uint8_t *block, int hd, int n_panels, float *panels);
typedef void (*ash_kvrows_fn)(const uint8_t *v, int hd, int d0, int nd, int n, float *y, int64_t ldy);
/* What qkm (scale 1) and pvm make of the decoded keys of n_blocks blocks, and of those dimensions of n tokens' values. */
typedef void (*ash_qkb_fn)(const float *q, int64_t ldq, int n_q, const uint8_t *block, int n_blocks, int hd, float *s, int64_t lds);
typedef void (*ash_pvb_fn)(const float *p, int64_t ldp, int n_q, const uint8_t *v, int hd, int d0, int nd, int n, float *out, int64_t ldo);
/* In place: s -> exp(s - max) / sum, over n; returns nothing. Order of the sum is fixed by n only. */
typedef void (*ash_softmax_fn)(float *s, int n);
typedef void (*ash_softcap_fn)(float *s, int64_t n, float cap);                         /* s = cap * tanh(s / cap) */
/* max and log-sum-exp (double accumulation of float exps) of n values. */
typedef double (*ash_lse_fn)(const float *x, int64_t n);
/* sum_i p_i * (log p_i - log q_i) with p = softmax(a), q = softmax(b), given lse_a, lse_b. */
typedef double (*ash_kld_fn)(const float *a, double lse_a, const float *b, double lse_b, int64_t n);
/* Adjacent pairs (norm) or half-split (neox) rotation of n_head heads of hd, first n_rot dims; cs = n_rot/2 (cos, sin) pairs. */
typedef void (*ash_rope_fn)(float *x, int n_head, int hd, int n_rot, const float *cs);

/* ---- the table: filled once per CPU level, immutable ---- */
typedef struct {
    ash_cpu_level level;
#define ASH_KERN(slot, sig, ...) sig slot;
#define ASH_KERN_T(slot, sig, DTYPE, ...)
#include "kern/list.inc"
#undef ASH_KERN
#undef ASH_KERN_T
    ash_decode_fn decode[ASH_DTYPE_MAX];
    ash_unpack8_fn unpack8[ASH_DTYPE_MAX];
    ash_gemv8_fn gemv8[ASH_DTYPE_MAX]; /* NULL: use unpack8 + gemm8 (same bits) */
    ash_gemvf_fn gemvf[ASH_DTYPE_MAX]; /* NULL: use decode + packf + gemmf (same bits) */
} ash_kern;

/* Table for a level, clamped to what the machine has. Thread-safe, static storage. */
const ash_kern *ash_kern_get(ash_cpu_level level);

/* ---- drivers (matmul.c): threads, panels, choice of kernel ---- */
typedef struct {
    ash_dtype type;
    const uint8_t *data;   /* n_rows rows of row_bytes, GGUF layout */
    size_t row_bytes;
    int64_t n_rows;
    int K;
} ash_mat;

/* Scratch each thread needs for matrices up to K columns (bytes, a multiple of 64; at least 256 * K). Float and
 * 8-bit drivers share the blocks. */
size_t ash_mm_scratch_bytes(int K);

/* One job: y[t*ldy + r] = sum_k w[r][k] * x[t][k]. */
typedef struct {
    const ash_mat *w;
    float *y;
    int64_t ldy;
} ash_mm_job;

/* Several matrices over the same input in one dispatch (Q+K+V, gate+up). scratch: n_threads blocks of
 * scratch_bytes. No allocation. */
void ash_mm_f32(const ash_kern *k, ash_pool *pool, void *scratch, size_t scratch_bytes, const ash_mm_job *jobs, int n_jobs,
                const float *x, int64_t ldx, int n_tok);
/* Same on 8-bit activations. A matrix whose type has no 8-bit form is computed from xf (the float input). */
void ash_mm_i8(const ash_kern *k, ash_pool *pool, void *scratch, size_t scratch_bytes, const ash_mm_job *jobs, int n_jobs,
               ash_act8 a, const float *xf, int64_t ldx, int n_tok);
/* Quantize n_tok rows of K floats (stride ldx) into `a`, in parallel. */
void ash_mm_quant8(const ash_kern *k, ash_pool *pool, const float *x, int64_t ldx, int K, int n_tok, ash_act8 a);

/* Attention of n_q query tokens on one KV head, for its whole group of query heads (attn.c). Every value
 * is what qk, softcap, softmax and pv give for that token and head alone, bit for bit, whatever n_q, the
 * split into runs, or other tokens' ranges. Keys are numbered through the runs, oldest first; quantized ones are
 * decoded to floats first. Runs of blocks hold whole blocks and start at multiples of 32 in that numbering. */
/* A run of keys or values of one KV head. */
typedef enum {
    ASH_KEYS_F32,
    ASH_KEYS_F16,
    ASH_KEYS_K8, /* blocks of 32 tokens: kv_block.h */
    ASH_KEYS_V8,
    ASH_KEYS_K4,
    ASH_KEYS_V4
} ash_keys_form;
typedef struct {
    ash_keys_form form;
    const void *p;           /* the first key or block */
    int64_t ld;              /* plain: elements from key to key */
    int n;
} ash_keys;

#define ASH_ATTN_RUNS 8
typedef struct {
    int hd;                  /* head dimension of K and V */
    int n_k, n_v;            /* runs; both cover the same keys */
    ash_keys k[ASH_ATTN_RUNS], v[ASH_ATTN_RUNS];
    int group;               /* query heads that share this KV head */
    int n_q;
    const float *q;          /* head h of token t at q + t*ldq + h*hd */
    int64_t ldq;
    float *out;              /* overwritten; head h of token t at out + t*ldo + h*hd */
    int64_t ldo;
    const int *lo, *hi;      /* n_q each: token t sees keys [lo[t], hi[t]), at least one */
    float scale;
    float cap;               /* soft-cap of scores, 0: none */
} ash_attn;
size_t ash_attn_scratch_bytes(int hd, int group, int n_keys);
/* scratch: 64-byte aligned, of one thread. No allocation. q is multiplied by `scale` before the scores are summed. */
void ash_attn_run(const ash_kern *k, const ash_attn *a, void *scratch);

/* The same in three steps whose parts may run on different threads, for n_q * group <= ASH_ATTN_ROWS rows: scores of all keys in
 * parts [j0, j1), cut at multiples of 32; weights of every row; outputs in parts of dimensions, cut at multiples of 32. */
#define ASH_ATTN_ROWS 96
typedef struct {
    int base, end;           /* keys that have a column in s */
    size_t pitch;            /* floats from row to row; row: token * group + head */
    float *s;                /* the caller's */
} ash_attn_scores;
ash_attn_scores ash_attn_shape(const ash_attn *a);                      /* all but s */
/* Where in a thread's scratch the scores are that the steps below do not touch: ash_attn_scratch_bytes' group rows of n_keys. */
float *ash_attn_shared(void *scratch, int hd, int group);
void ash_attn_score(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int j0, int j1, void *scratch);
void ash_attn_weigh(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int row);
void ash_attn_sum(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int d0, int d1, void *scratch);

/* Whole matrix as f32 panels: ash_packed_floats(n_rows, K) floats, 64-byte aligned. Then kern->gemmf runs on it. */
static inline size_t ash_packed_floats(int64_t n_rows, int K) { return (size_t)((n_rows + 15) / 16 * 16) * (size_t)K; }
void ash_mm_pack(const ash_kern *k, ash_pool *pool, const ash_mat *w, float *panels);

#endif
