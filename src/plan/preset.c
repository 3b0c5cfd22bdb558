/* preset.c - stock presets: what `llama-quantize MODEL OUT NAME` makes of each tensor, as one table of rules.
 *
 * A preset is a base type and rules for some kinds of tensor that depend on depth, on query heads per KV head, on experts and on whether
 * there is importance. The rules were found by watching what llama-quantize (0.5.0-dev) says it would write for real and made-up headers,
 * and tests/long/presets.sh watches again. First rule that matches decides, then rows that the type's blocks do not divide
 * take the type of `coarser`. docs/formats/presets.md shows the table in words. */
#include "ashlar/plan.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- the presets: name, general.file_type, base type ---- */
#define PRESETS(X)                                                                                                              \
    X(F32, 0, F32) X(F16, 1, F16) X(Q4_0, 2, Q4_0) X(Q4_1, 3, Q4_1) X(Q8_0, 7, Q8_0) X(Q5_0, 8, Q5_0) X(Q5_1, 9, Q5_1)          \
    X(Q2_K, 10, Q2_K) X(Q3_K_S, 11, Q3_K) X(Q3_K_M, 12, Q3_K) X(Q3_K_L, 13, Q3_K) X(Q4_K_S, 14, Q4_K) X(Q4_K_M, 15, Q4_K)      \
    X(Q5_K_S, 16, Q5_K) X(Q5_K_M, 17, Q5_K) X(Q6_K, 18, Q6_K) X(IQ2_XXS, 19, IQ2_XXS) X(IQ2_XS, 20, IQ2_XS)                    \
    X(Q2_K_S, 21, Q2_K) X(IQ3_XS, 22, IQ3_S) X(IQ3_XXS, 23, IQ3_XXS) X(IQ1_S, 24, IQ1_S) X(IQ4_NL, 25, IQ4_NL)                 \
    X(IQ3_S, 26, IQ3_S) X(IQ3_M, 27, IQ3_S) X(IQ2_S, 28, IQ2_XS) X(IQ2_M, 29, IQ2_S) X(IQ4_XS, 30, IQ4_XS)                     \
    X(IQ1_M, 31, IQ1_M) X(BF16, 32, BF16) X(TQ1_0, 36, TQ1_0) X(TQ2_0, 37, TQ2_0) X(MXFP4_MOE, 38, Q8_0) X(Q1_0, 40, Q1_0)     \
    X(Q2_0, 41, Q2_0)

enum {
#define X(name, id, base) P_##name,
    PRESETS(X)
#undef X
    N_PRESETS
};
static const struct { const char *name; uint32_t file_type; ash_dtype base; } presets[N_PRESETS] = {
#define X(name, id, base) {#name, id, ASH_##base},
    PRESETS(X)
#undef X
};

/* ---- kinds of tensor, and when a rule holds ---- */
enum { HEAD, TABLE, ATTN_Q, ATTN_K, ATTN_V, ATTN_O, DOWN, GATE_UP, OTHER };

enum {
    FIRST8 = 1 << 0,  /* first eighth of the layers */
    FIRST16 = 1 << 1, /* first sixteenth */
    FIRST2 = 1 << 2,  /* layers 0, 1 */
    FIRST4 = 1 << 3,  /* layers 0 .. 3 */
    ENDS = 1 << 4,    /* first and last eighth */
    SPREAD = 1 << 5,  /* first and last eighth, and every third between */
    GQA4 = 1 << 6,    /* four query heads or more per KV head */
    EXPERTS4 = 1 << 7, /* four experts or more */
    EXPERTS8 = 1 << 8, /* eight experts exactly */
    DEEP80 = 1 << 9,   /* eighty layers exactly, and not a llama without grouped heads */
    IMATRIX = 1 << 10,
    NO_IMATRIX = 1 << 11,
    ODD_ROW = 1 << 12, /* row no multiple of 256 */
    STACK = 1 << 13    /* experts' matrices in one tensor */
};

typedef struct {
    uint64_t presets; /* bits */
    int kind, when;   /* all bits of `when` must hold */
    ash_dtype type;
} rule;

#define B(name) (1ull << P_##name)
#define IQ12S (B(IQ1_S) | B(IQ1_M) | B(IQ2_XXS) | B(IQ2_XS))
#define IQ2L (B(IQ2_S) | B(IQ2_M))
#define IQ12 (IQ12S | IQ2L)
#define PLAIN (B(F32) | B(F16) | B(BF16) | B(Q8_0) | B(MXFP4_MOE)) /* one type throughout */
#define MIXED (~PLAIN)
/* whose attention output is widened for eight experts */
#define OUT8                                                                                                                       \
    (IQ12 | B(Q2_K) | B(IQ3_XXS) | B(IQ3_XS) | B(IQ3_S) | B(IQ3_M) | B(Q3_K_S) | B(Q3_K_M) | B(IQ4_NL) | B(IQ4_XS) | B(Q4_K_S) | B(Q4_K_M))

static const rule rules[] = {
    {B(MXFP4_MOE), GATE_UP, STACK, ASH_MXFP4},
    {B(MXFP4_MOE), DOWN, STACK, ASH_MXFP4},
    /* the head, or the table that is head as well */
    {MIXED, HEAD, ODD_ROW, ASH_Q8_0},
    {IQ12 | B(IQ3_XXS), HEAD, 0, ASH_Q5_K},
    {MIXED, HEAD, 0, ASH_Q6_K},
    /* a table that is only looked up in */
    {IQ12S, TABLE, 0, ASH_Q2_K},
    {IQ2L | B(IQ3_XXS), TABLE, 0, ASH_IQ3_S},
    {B(TQ1_0) | B(TQ2_0) | B(Q2_0), TABLE, 0, ASH_Q4_K},
    /* values */
    {IQ12, ATTN_V, GQA4, ASH_Q4_K},
    {IQ12, ATTN_V, EXPERTS4, ASH_Q4_K},
    {IQ2L, ATTN_V, 0, ASH_IQ3_S},
    {IQ12S, ATTN_V, 0, ASH_Q2_K},
    {MIXED, ATTN_V, EXPERTS8, ASH_Q8_0},
    {B(Q4_K_M) | B(Q5_K_M), ATTN_V, SPREAD, ASH_Q6_K},
    {B(Q2_K) | B(IQ3_M) | B(Q3_K_S) | B(Q3_K_M) | B(Q4_K_S) | B(Q4_K_M), ATTN_V, DEEP80, ASH_Q5_K},
    {B(Q2_K_S) | B(IQ3_XXS) | B(IQ3_XS) | B(IQ3_S), ATTN_V, DEEP80 | GQA4, ASH_Q5_K},
    {B(Q2_K) | B(Q2_K_S) | B(IQ3_XXS) | B(IQ3_XS) | B(IQ3_S), ATTN_V, GQA4, ASH_Q4_K},
    {B(Q2_K), ATTN_V, 0, ASH_Q3_K},
    {B(IQ3_XXS), ATTN_V, IMATRIX, ASH_IQ3_XXS},
    {B(IQ3_XXS), ATTN_V, 0, ASH_IQ3_S},
    {B(IQ3_M), ATTN_V, 0, ASH_Q4_K},
    {B(Q3_K_M), ATTN_V, FIRST2, ASH_Q5_K},
    {B(Q3_K_M), ATTN_V, 0, ASH_Q4_K},
    {B(Q3_K_L), ATTN_V, 0, ASH_Q5_K},
    {B(IQ4_NL) | B(IQ4_XS), ATTN_V, GQA4, ASH_Q5_K},
    {B(Q4_K_S), ATTN_V, FIRST4, ASH_Q5_K},
    /* keys and queries */
    {IQ12, ATTN_K, EXPERTS8, ASH_Q4_K},
    {MIXED, ATTN_K, EXPERTS8, ASH_Q8_0},
    {B(IQ3_XXS), ATTN_K, 0, ASH_IQ2_S},
    {B(IQ3_XXS), ATTN_Q, 0, ASH_IQ2_S},
    {B(IQ3_XS), ATTN_K, 0, ASH_IQ3_XXS},
    {B(IQ3_XS), ATTN_Q, 0, ASH_IQ3_XXS},
    /* attention output */
    {OUT8, ATTN_O, EXPERTS8, ASH_Q5_K},
    {B(Q3_K_L), ATTN_O, EXPERTS8, ASH_Q3_K},
    {B(IQ1_S) | B(IQ1_M), ATTN_O, 0, ASH_IQ2_XXS},
    {IQ2L | B(IQ3_XXS), ATTN_O, 0, ASH_IQ3_S},
    {B(Q2_K), ATTN_O, 0, ASH_Q3_K},
    {B(Q3_K_M) | B(IQ3_M), ATTN_O, 0, ASH_Q4_K},
    {B(Q3_K_L), ATTN_O, 0, ASH_Q5_K},
    /* feed-forward */
    {B(Q2_K), DOWN, 0, ASH_Q3_K},
    {B(Q2_K_S), DOWN, FIRST8, ASH_Q4_K},
    {IQ12S, DOWN, FIRST8, ASH_Q2_K},
    {IQ2L, DOWN, FIRST8, ASH_IQ3_S},
    {B(IQ3_XXS), DOWN, NO_IMATRIX | FIRST8, ASH_Q4_K},
    {B(IQ3_XXS), DOWN, NO_IMATRIX, ASH_Q3_K},
    {B(IQ3_M), DOWN, FIRST8, ASH_Q4_K},
    {B(IQ3_M), DOWN, EXPERTS8 | SPREAD, ASH_Q4_K},
    {B(Q3_K_M), DOWN, FIRST16, ASH_Q5_K},
    {B(Q3_K_M), DOWN, 0, ASH_Q4_K},
    {B(Q3_K_L), DOWN, 0, ASH_Q5_K},
    {B(IQ4_NL) | B(IQ4_XS), DOWN, NO_IMATRIX | FIRST8, ASH_Q5_K},
    {B(Q4_K_S), DOWN, FIRST8, ASH_Q5_K},
    {B(Q4_K_M) | B(Q5_K_M), DOWN, SPREAD, ASH_Q6_K},
    {B(Q4_0), DOWN, IMATRIX | FIRST8, ASH_Q4_1},
    {B(Q5_0), DOWN, IMATRIX | FIRST8, ASH_Q5_1},
    {B(IQ3_XS), GATE_UP, ENDS, ASH_IQ3_S},
    {B(IQ3_XS), GATE_UP, 0, ASH_IQ3_XXS},
};

/* What stands in for a type whose blocks do not divide the row; F16 where blocks of 32 do not either. */
static const struct { ash_dtype from, to; } coarser[] = {
    {ASH_IQ1_S, ASH_IQ4_NL}, {ASH_IQ1_M, ASH_IQ4_NL}, {ASH_IQ2_XXS, ASH_IQ4_NL}, {ASH_IQ2_XS, ASH_IQ4_NL}, {ASH_IQ2_S, ASH_IQ4_NL},
    {ASH_IQ3_XXS, ASH_IQ4_NL}, {ASH_IQ3_S, ASH_IQ4_NL}, {ASH_IQ4_XS, ASH_IQ4_NL}, {ASH_TQ1_0, ASH_Q4_0}, {ASH_TQ2_0, ASH_Q4_0},
    {ASH_Q2_K, ASH_Q4_0}, {ASH_Q3_K, ASH_Q4_0}, {ASH_Q4_K, ASH_Q5_0}, {ASH_Q5_K, ASH_Q5_1}, {ASH_Q6_K, ASH_Q8_0}};

/* Matrices that stay as they are: small, or used in ways that quantizing breaks. */
static const char *const untouched[] = {"per_layer_model_proj", "altup", "laurel", "position_embd", "token_types", "ssm_conv1d", "shortconv", "time_mix_", "attn_rel_b"};

size_t ash_preset_count(void) { return N_PRESETS; }
const char *ash_preset_name(size_t i) { return i < N_PRESETS ? presets[i].name : "?"; }
uint32_t ash_preset_file_type(size_t i) { return i < N_PRESETS ? presets[i].file_type : 0; }

bool ash_preset_find(const char *name, size_t *out) {
    static const struct { const char *alias; int preset; } aliases[] = {{"Q3_K", P_Q3_K_M}, {"Q4_K", P_Q4_K_M}, {"Q5_K", P_Q5_K_M}};
    for (size_t i = 0; i < N_PRESETS; i++)
        if (strcasecmp(name, presets[i].name) == 0) return *out = i, true;
    for (size_t i = 0; i < ASH_ARRAY_LEN(aliases); i++)
        if (strcasecmp(name, aliases[i].alias) == 0) return *out = (size_t)aliases[i].preset, true;
    return false;
}

bool ash_preset_general(size_t i) {
    const uint64_t special = B(IQ1_S) | B(IQ1_M) | B(TQ1_0) | B(TQ2_0) | B(Q1_0) | B(Q2_0) | B(MXFP4_MOE);
    return i < N_PRESETS && !(special >> i & 1);
}

/* ---- a model's facts ---- */
typedef struct {
    bool own_head, imatrix, llama;
    int64_t n_layer, gqa, n_expert, n_v; /* n_v: tensors of kind ATTN_V */
    uint32_t *v_before;                  /* of them, in lower layers than l: MAX_LAYER + 2 counts */
} facts;

enum { MAX_LAYER = 100000 };

/* "blk.7.attn_v.weight" -> kind and layer (-1: not in a block). */
static int kind_of(const char *name, bool own_head, int64_t *layer) {
    static const struct { const char *stem; int kind; } stems[] = {{"attn_v.", ATTN_V}, {"attn_qkv.", ATTN_V}, {"attn_kv_b.", ATTN_V}, {"attn_q.", ATTN_Q}, {"attn_k.", ATTN_K},
                                                                   {"attn_output.", ATTN_O}, {"ffn_down", DOWN}, {"ffn_gate", GATE_UP}, {"ffn_up", GATE_UP}};
    *layer = -1;
    if (strcmp(name, "output.weight") == 0) return HEAD;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0) return own_head ? TABLE : HEAD;
    if (strncmp(name, "blk.", 4) != 0) return OTHER;
    char *end;
    long l = strtol(name + 4, &end, 10);
    if (end == name + 4 || *end != '.' || l < 0 || l > MAX_LAYER) return OTHER;
    *layer = l;
    for (size_t i = 0; i < ASH_ARRAY_LEN(stems); i++)
        if (strncmp(end + 1, stems[i].stem, strlen(stems[i].stem)) == 0) return stems[i].kind;
    return OTHER;
}

/* A whole number in the metadata, ARCH.key; the first of an array. */
static int64_t number(const ash_gguf *g, ash_str arch, const char *key, int64_t missing) {
    char name[160];
    int64_t v;
    snprintf(name, sizeof name, "%.*s.%s", (int)ASH_MIN(arch.n, 80), arch.p, key);
    if (ash_gguf_get_i64(g, name, &v)) return v;
    const ash_gguf_kv *kv = ash_gguf_find(g, name);
    return kv && ash_gguf_array_i64(kv, 0, &v) ? v : missing;
}

static ash_status count_v(facts *f, const ash_gguf *g, ash_error *err) {
    f->v_before = ash_calloc(MAX_LAYER + 2, sizeof *f->v_before);
    if (!f->v_before) return ash_fail(err, ASH_E_NOMEM, "out of memory for a preset");
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        int64_t layer;
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        if (kind_of(t->name, f->own_head, &layer) == ATTN_V && ash_plan_is_matrix(t)) f->v_before[layer + 1]++, f->n_v++;
    }
    for (size_t l = 1; l < MAX_LAYER + 2; l++) f->v_before[l] += f->v_before[l - 1];
    return ASH_OK;
}

static int situation(const facts *f, const ash_gguf_tensor *t, uint64_t row, int64_t i, int64_t n) {
    int w = 0;
    if (i >= 0 && n > 0) {
        bool first = i < n / 8, last = i >= 7 * n / 8;
        if (first) w |= FIRST8;
        if (i < n / 16) w |= FIRST16;
        if (i < 2) w |= FIRST2;
        if (i < 4) w |= FIRST4;
        if (first || last) w |= ENDS;
        if (first || last || (i - n / 8) % 3 == 2) w |= SPREAD;
    }
    if (f->gqa >= 4) w |= GQA4;
    if (f->n_expert >= 4) w |= EXPERTS4;
    if (f->n_expert == 8) w |= EXPERTS8;
    if (f->n_layer == 80 && !(f->llama && f->gqa <= 1)) w |= DEEP80;
    w |= f->imatrix ? IMATRIX : NO_IMATRIX;
    if (row % 256) w |= ODD_ROW;
    if (t->n_dims > 2) w |= STACK;
    return w;
}

static ash_dtype type_for(size_t preset, int kind, int when) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(rules); i++)
        if (rules[i].presets >> preset & 1 && rules[i].kind == kind && (rules[i].when & when) == rules[i].when) return rules[i].type;
    return presets[preset].base;
}

/* The type itself where its blocks divide the row, else its stand-in; ASH_TYPE_KEEP: there is none. */
static int fitted(ash_dtype t, uint64_t row) {
    if (row % ash_dtype_get((int)t)->block_elems == 0) return (int)t;
    if (row % 32) return ASH_F16;
    for (size_t i = 0; i < ASH_ARRAY_LEN(coarser); i++)
        if (coarser[i].from == t) return (int)coarser[i].to;
    return ASH_TYPE_KEEP;
}

ash_status ash_preset_recipe(ash_recipe **out, size_t preset, const ash_gguf *g, uint32_t widen, bool importance, ash_error *err) {
    ash_recipe *r = NULL;
    ash_widen *w = NULL;
    ash_str arch = {.p = "", .n = 0};
    ash_status st;
    *out = NULL;
    if (preset >= N_PRESETS) return ash_fail(err, ASH_E_USAGE, "there is no such preset");
    ash_gguf_get_str(g, "general.architecture", &arch);
    facts f = {.own_head = ash_gguf_find_tensor(g, "output.weight") != NULL, .imatrix = importance};
    f.llama = arch.n == 5 && memcmp(arch.p, "llama", 5) == 0;
    f.n_layer = number(g, arch, "block_count", 0);
    f.n_expert = number(g, arch, "expert_count", 0);
    int64_t heads = number(g, arch, "attention.head_count", 0), kv = number(g, arch, "attention.head_count_kv", heads);
    f.gqa = kv > 0 ? heads / kv : 0;
    ASH_TRY_GOTO(count_v(&f, g, err), done);
    ASH_TRY_GOTO(ash_recipe_new(&r, err), done);
    if (widen) ASH_TRY_GOTO(ash_widen_new(&w, g, widen, err), done);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        uint64_t ne[ASH_GGUF_MAX_DIMS];
        int64_t layer;
        bool skip = !ash_plan_is_matrix(t);
        for (size_t k = 0; k < ASH_ARRAY_LEN(untouched); k++) skip |= strstr(t->name, untouched[k]) != NULL;
        if (skip) continue;
        ash_widen_shape(w, g, i, ne);
        int kind = kind_of(t->name, f.own_head, &layer);
        bool v = kind == ATTN_V;
        int when = situation(&f, t, ne[0], v ? (int64_t)f.v_before[layer] : layer, v ? f.n_v : f.n_layer);
        ash_dtype want = type_for(preset, kind, when);
        int type = fitted(want, ne[0]);
        if (type == ASH_TYPE_KEEP) {
            st = ash_fail(err, ASH_E_USAGE, "preset %s: tensor %s has rows of %llu weights, which fit neither %s nor a type that stands in for it", presets[preset].name, t->name,
                          (unsigned long long)ne[0], ash_dtype_name(want));
            goto done;
        }
        char why[96] = "";
        if (type != (int)want) snprintf(why, sizeof why, "stands in for %s: rows of %llu", ash_dtype_name(want), (unsigned long long)ne[0]);
        ASH_TRY_GOTO(ash_recipe_add(r, t->name, type, why, err), done);
    }
    st = ASH_OK;
    if (!ash_recipe_n_rules(r)) st = ash_fail(err, ASH_E_FORMAT, "%s holds no matrix", *ash_gguf_path(g) ? ash_gguf_path(g) : "the file");
    ash_recipe_info info = ash_recipe_get_info(r);
    info.widen = widen;
    if (st == ASH_OK) st = ash_recipe_set_info(r, &info, err);
done:
    ash_free(f.v_before);
    ash_widen_free(w);
    if (st == ASH_OK) *out = r;
    else ash_recipe_free(r);
    return st;
}

