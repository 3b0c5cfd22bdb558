/* couple.c - whether the matrices of a layer go together, told from what training leaves in trained models' weights and random ones lack:
 *
 * The energies (sums of squares) of what is multiplied with each other are correlated. Query, key and value read the same vector, so the
 * profiles of their columns are alike; so are those of gate and up. A hidden unit's row in up and its column in down balance each other,
 * and so do a value head's rows and the output's columns. Some of these marks are the layer's own (gate and up of two different layers have
 * nothing in common), and all have a sign and a size that is much the same from layer to layer. A matrix in the wrong place loses them, and
 * the layer that it was taken from, or its transpose, has them: that is looked for. Measured on SmolLM2 135M and Gemma 3 270M, which differ
 * in which of the marks they have; a mark is used only where this model has it, so that untrained models are left in peace.
 *
 * Correlations are of logarithms, so that no single large column decides. */
#include "doctor/doctor_int.h"

#include <math.h>
#include <stdlib.h>

enum { LAYERS_LEAST = 6 };
/* A mark counts where four layers of five have it SURE times as much as matrices of two layers have by chance; weights make marks alike.
 * The last one, the outputs, is much the same in all layers: it tells rows from columns (WITHIN a layer), not one layer from another. Gains
 * above the least are told; good files stay at two thirds of them (docs/doctor.md). */
static const double LEAST = 0.05, WITHIN = 0.6, SURE = 2.5, WEIGHT = 0.8, WEIGHT_MOST = 3, GAIN_LAYERS = 1, GAIN_WITHIN = 0.3, LOST = 0.3;

/* A matrix by its normalised profiles: mean 0, length 1, so that a dot product is a correlation. */
typedef struct {
    const float *col, *row, *heads; /* heads: `row` of values, repeated for every query head that reads them; or NULL */
    int64_t n_col, n_row, n_heads;
    const char *name; /* NULL: the layer has none */
} slot;

typedef enum { COL, ROW, HEADS } side;
static const struct {
    ash_role a, b;
    side sa, sb;
    const char *what;
} k_marks[] = {{ASH_W_Q, ASH_W_K, COL, COL, "inputs of attn_q and attn_k"},
               {ASH_W_Q, ASH_W_V, COL, COL, "inputs of attn_q and attn_v"},
               {ASH_W_K, ASH_W_V, COL, COL, "inputs of attn_k and attn_v"},
               {ASH_W_GATE, ASH_W_UP, COL, COL, "inputs of ffn_gate and ffn_up"},
               {ASH_W_UP, ASH_W_DOWN, ROW, COL, "hidden units of ffn_up and ffn_down"},
               {ASH_W_V, ASH_W_O, HEADS, COL, "heads of attn_v and attn_output"},
               {ASH_W_O, ASH_W_DOWN, ROW, ROW, "outputs of attn_output and ffn_down"}};
enum { MARKS = ASH_ARRAY_LEN(k_marks) };

typedef enum { LAYERS, ROLES, TRANSPOSE } change_kind;
typedef struct {
    change_kind kind;
    int l, l2, r, r2;
    double gain;
} change;

typedef struct {
    ash_doctor *d;
    int n_layer;
    slot *s;                      /* n_layer x ASH_W_COUNT */
    double *own;                  /* n_layer x MARKS; NAN: cannot be had */
    double weight[MARKS];         /* signed; 0: this model does not have the mark */
    double median[MARKS], within; /* within: weight of the last mark, for changes within a layer only */
    change *found;
    size_t n_found, cap;
    ash_arena mem;
} couples;

static const float *normalised(couples *c, const float *x, int64_t n, int64_t repeat, int64_t block) {
    float *y = ash_arena_alloc(&c->mem, (size_t)(n * repeat) * sizeof *y);
    double mean = 0, sum2 = 0;
    if (!y) return NULL;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) sum2 += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double f = sum2 > 0 ? 1 / sqrt(sum2 * (double)repeat) : 0;
    for (int64_t i = 0; i < n; i++) /* every block of `block` values `repeat` times */
        for (int64_t k = 0; k < repeat; k++) y[(i / block) * block * repeat + k * block + i % block] = (float)(((double)x[i] - mean) * f);
    return y;
}

static ash_status fill(couples *c, int il, ash_role r, ash_error *err) {
    const ash_model *m = c->d->model;
    const ash_layer *l = &m->layers[il];
    const ash_mat *w = &l->w[r];
    slot *s = &c->s[il * ASH_W_COUNT + (int)r];
    if (!w->data || !l->name[r] || (l->kv_layer != il && (r == ASH_W_K || r == ASH_W_V))) return ASH_OK;
    const ash_gguf_tensor *t = ash_gguf_find_tensor(m->gguf, l->name[r]);
    if (!t) return ASH_OK;
    const doc_stats *q = &c->d->stats[t - ash_gguf_tensor_at(m->gguf, 0)];
    const uint64_t row0 = (uint64_t)(w->data - t->data) / w->row_bytes;
    if (!q->col || q->bad || row0 + (uint64_t)w->n_rows > t->ne[1]) return ASH_OK;
    *s = (slot){.n_col = (int64_t)t->ne[0], .n_row = w->n_rows, .name = t->name};
    s->col = normalised(c, q->col, s->n_col, 1, 1);
    s->row = normalised(c, q->row + row0, s->n_row, 1, 1);
    if (r == ASH_W_V && l->n_head_kv > 0 && s->n_row == (int64_t)l->n_head_kv * l->head_dim) {
        const int64_t repeat = l->n_head / l->n_head_kv;
        s->heads = normalised(c, q->row + row0, s->n_row, repeat, l->head_dim);
        s->n_heads = s->n_row * repeat;
        if (!s->heads) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing the matrices of layers");
    }
    return s->col && s->row ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory comparing the matrices of layers");
}

static const float *side_of(const slot *s, side k, int64_t *n) {
    *n = k == COL ? s->n_col : k == ROW ? s->n_row : s->n_heads;
    return k == COL ? s->col : k == ROW ? s->row : s->heads;
}

static double correlation(const slot *a, side ka, const slot *b, side kb) {
    int64_t n, m;
    const float *x = side_of(a, ka, &n), *y = side_of(b, kb, &m);
    float sum[8] = {0};
    if (!a->name || !b->name || !x || !y || n != m) return NAN;
    if (a->name == b->name && ka == COL && kb == COL) return NAN; /* one fused tensor: the same columns */
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += x[i + k] * y[i + k];
    for (; i < n; i++) sum[0] += x[i] * y[i];
    for (int k = 1; k < 8; k++) sum[0] += sum[k];
    return (double)sum[0];
}

static double mark_of(const slot *layer, int k) {
    return correlation(&layer[k_marks[k].a], k_marks[k].sa, &layer[k_marks[k].b], k_marks[k].sb);
}

static int cmp_double(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Which marks this model has. */
static ash_status weigh(couples *c, ash_error *err) {
    const int L = c->n_layer;
    double *v = ash_alloc((size_t)L * sizeof *v);
    if (!v) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing the matrices of layers");
    for (int k = 0; k < MARKS; k++) {
        int n = 0, n_chance = 0;
        double chance = 0;
        for (int l = 0; l < L; l++) {
            c->own[l * MARKS + k] = mark_of(&c->s[l * ASH_W_COUNT], k);
            if (!isnan(c->own[l * MARKS + k])) v[n++] = c->own[l * MARKS + k];
            const double x = correlation(&c->s[l * ASH_W_COUNT + (int)k_marks[k].a], k_marks[k].sa,
                                         &c->s[(l + L / 2) % L * ASH_W_COUNT + (int)k_marks[k].b], k_marks[k].sb);
            if (!isnan(x)) chance += x * x, n_chance++;
        }
        if (n < LAYERS_LEAST) continue;
        qsort(v, (size_t)n, sizeof *v, cmp_double);
        const double m = v[n / 2], by_chance = n_chance ? sqrt(chance / n_chance) : 1;
        c->median[k] = m;
        if (k == MARKS - 1) { /* much the same in all layers, so that it says nothing of which one */
            c->within = fabs(m) >= WITHIN ? (m > 0 ? 1 : -1) * WEIGHT / fabs(m) : 0;
            continue;
        }
        const double sure = m > 0 ? v[n / 5] : -v[n - 1 - n / 5];
        if (sure >= LEAST && sure >= SURE * by_chance) c->weight[k] = (m > 0 ? 1 : -1) * fmin(WEIGHT_MOST, WEIGHT / fabs(m));
    }
    ash_free(v);
    return ASH_OK;
}

/* How well a layer goes together, over the marks of roles r and r2. */
static double score(const couples *c, const slot *layer, int r, int r2) {
    double sum = 0;
    for (int k = 0; k < MARKS; k++) {
        const int a = (int)k_marks[k].a, b = (int)k_marks[k].b;
        if (c->weight[k] == 0 || (a != r && b != r && a != r2 && b != r2)) continue;
        const double x = mark_of(layer, k);
        if (!isnan(x)) sum += c->weight[k] * x;
    }
    return sum;
}

static void found(couples *c, change x) {
    if (c->n_found < c->cap) c->found[c->n_found++] = x;
}

static bool alike(const slot *a, const slot *b) {
    return a->name && b->name && a->n_col == b->n_col && a->n_row == b->n_row && a->n_heads == b->n_heads;
}

static void try_layers(couples *c, int l, int l2) {
    const slot *a = &c->s[l * ASH_W_COUNT], *b = &c->s[l2 * ASH_W_COUNT];
    slot x[ASH_W_COUNT], y[ASH_W_COUNT];
    for (int r = 0; r < ASH_W_COUNT; r++) {
        if (!alike(&a[r], &b[r])) continue;
        memcpy(x, a, sizeof x);
        memcpy(y, b, sizeof y);
        x[r] = b[r], y[r] = a[r];
        const double gain = score(c, x, r, r) + score(c, y, r, r) - score(c, a, r, r) - score(c, b, r, r);
        if (gain > GAIN_LAYERS) found(c, (change){LAYERS, l, l2, r, r, gain / GAIN_LAYERS});
    }
}

/* The value's heads when matrix `other` of the layer stands in its place: as many repeats as before. */
static bool value_heads(couples *c, int l, const slot *other, const slot *value, slot *out) {
    const int64_t n = other->n_row, hd = c->d->model->layers[l].head_dim, repeat = value->n_heads / n;
    float *h = ash_arena_alloc(&c->mem, (size_t)value->n_heads * sizeof *h + 1);
    if (!h || !repeat) return false;
    const float f = 1 / sqrtf((float)repeat);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < repeat; k++) h[(i / hd) * hd * repeat + k * hd + i % hd] = other->row[i] * f;
    out->heads = h;
    out->n_heads = n * repeat;
    return true;
}

/* What a layer gains when r and r2 change places (r == r2: when r is transposed); NAN where they cannot. */
static double gain_within(couples *c, int l, int r, int r2) {
    const slot *a = &c->s[l * ASH_W_COUNT];
    slot x[ASH_W_COUNT];
    if (!a[r].name || !a[r2].name) return NAN;
    memcpy(x, a, sizeof x);
    if (r == r2) {
        if (a[r].n_col != a[r].n_row || r == ASH_W_V) return NAN;
        x[r].col = a[r].row, x[r].row = a[r].col;
    } else {
        if (a[r].name == a[r2].name || a[r].n_col != a[r2].n_col || a[r].n_row != a[r2].n_row) return NAN;
        x[r] = a[r2], x[r2] = a[r];
        if ((r == ASH_W_V || r2 == ASH_W_V) && !value_heads(c, l, &a[r == ASH_W_V ? r2 : r], &a[ASH_W_V], &x[ASH_W_V])) return NAN;
    }
    double gain = score(c, x, r, r2) - score(c, a, r, r2);
    if (c->within != 0 && (r == ASH_W_O || r2 == ASH_W_O)) gain += c->within * (mark_of(x, MARKS - 1) - mark_of(a, MARKS - 1));
    return gain;
}

/* One such change in every layer. Where the layers as they are do not clearly lose by it, the marks do not tell these matrices apart. */
static void try_within(couples *c, int r, int r2, double *gain, double *sorted) {
    int n = 0;
    for (int l = 0; l < c->n_layer; l++) {
        gain[l] = gain_within(c, l, r, r2);
        if (!isnan(gain[l])) sorted[n++] = gain[l];
    }
    if (n < LAYERS_LEAST) return;
    qsort(sorted, (size_t)n, sizeof *sorted, cmp_double);
    if (sorted[n - 1 - n / 5] > -GAIN_WITHIN) return;
    for (int l = 0; l < c->n_layer; l++)
        if (gain[l] > GAIN_WITHIN) found(c, (change){r == r2 ? TRANSPOSE : ROLES, l, l, r, r2, gain[l] / GAIN_WITHIN});
}

static int cmp_change(const void *a, const void *b) {
    const change *x = a, *y = b;
    return (x->gain < y->gain) - (x->gain > y->gain);
}

/* The likeliest change of every layer. */
static void tell(couples *c, bool *told) {
    if (c->n_found) qsort(c->found, c->n_found, sizeof *c->found, cmp_change);
    for (size_t i = 0; i < c->n_found; i++) {
        const change *x = &c->found[i];
        if (told[x->l] || told[x->l2]) continue;
        told[x->l] = told[x->l2] = true;
        const char *a = c->s[x->l * ASH_W_COUNT + x->r].name, *b = c->s[x->l2 * ASH_W_COUNT + x->r2].name;
        if (x->kind == TRANSPOSE)
            ash_doc_say(c->d, ASH_DOC_TRANSPOSED, a, "its rows go with the layer as columns should");
        else
            ash_doc_say(c->d, ASH_DOC_SWAPPED, a, "goes better where %s is, and that one here", b);
    }
}

/* Layers whose FFN lost a mark which every other layer has. (Attention has layers of their own kind in good models.) */
static void misfits(couples *c, bool *told) {
    for (int k = 0; k < MARKS; k++) {
        if (c->weight[k] == 0 || k_marks[k].a < ASH_W_GATE) continue;
        const double sign = c->median[k] > 0 ? 1 : -1;
        for (int l = 0; l < c->n_layer; l++) {
            const double x = sign * c->own[l * MARKS + k];
            double least = 1;
            if (isnan(x) || told[l]) continue;
            for (int o = 0; o < c->n_layer; o++)
                if (o != l && !told[o] && !isnan(c->own[o * MARKS + k])) least = fmin(least, sign * c->own[o * MARKS + k]);
            if (least < LOST * fabs(c->median[k]) || x >= LOST * least) continue;
            told[l] = true;
            ash_doc_say(c->d, ASH_DOC_MISFIT, c->s[l * ASH_W_COUNT + (int)k_marks[k].b].name,
                        "%s: correlation %.2f; the other layers have %.2f or more", k_marks[k].what, x, least);
        }
    }
}

ash_status ash_doc_couple(ash_doctor *d, ash_error *err) {
    const int L = d->model->hp.n_layer;
    couples c = {.d = d, .n_layer = L, .cap = 4096};
    ash_status st = ASH_OK;
    bool *told = NULL;
    double *gains = NULL;
    if (L < LAYERS_LEAST) return ASH_OK;
    c.s = ash_calloc((size_t)L * ASH_W_COUNT, sizeof *c.s);
    c.own = ash_calloc((size_t)L * MARKS, sizeof *c.own);
    c.found = ash_calloc(c.cap, sizeof *c.found);
    told = ash_calloc((size_t)L, sizeof *told);
    gains = ash_calloc((size_t)L * 2, sizeof *gains);
    if (!c.s || !c.own || !c.found || !told || !gains) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory comparing the matrices of layers");
        goto done;
    }
    for (int l = 0; l < L; l++)
        for (int r = 0; r < ASH_W_COUNT; r++) ASH_TRY_GOTO(fill(&c, l, (ash_role)r, err), done);
    ASH_TRY_GOTO(weigh(&c, err), done);
    for (int l = 0; l < L; l++) {
        for (int l2 = l + 1; l2 < L; l2++) try_layers(&c, l, l2);
        if (d->o.progress.fn && !d->o.progress.fn(d->o.progress.ctx, "layers", l, L, NULL)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled while comparing layers");
            goto done;
        }
    }
    for (int r = 0; r < ASH_W_COUNT; r++)
        for (int r2 = r; r2 < ASH_W_COUNT; r2++) try_within(&c, r, r2, gains, gains + L);
    tell(&c, told);
    misfits(&c, told);
done:
    ash_free(c.s);
    ash_free(c.own);
    ash_free(c.found);
    ash_free(told);
    ash_free(gains);
    ash_arena_free(&c.mem);
    return st;
}
