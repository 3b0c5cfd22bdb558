/* lab_quant.c - experiments on types: 1 to 7 of the papers. */
#include "lab/lab_list.h"

#include <stdio.h>

static const char *const k_not_real = "rows of this model do not fit super-blocks and its architecture cannot be widened: the preset would be made of other types";

/* One preset as a row, measured and probed. */
static ash_status preset_row(lab *l, const char *name, const ash_imatrix *im, ash_lab_row **out, bool *real, ash_error *err) {
    ash_lab_row *row = lab_row(l, "%s%s", name, im ? ", importance" : "");
    if (!row) return lab_oom(err);
    ASH_TRY(lab_preset(l, name, im, l->tmp[0], &row->bpw, real, err));
    ASH_TRY(lab_measure(l, l->tmp[0], row, err));
    lab_probe(l, l->tmp[0], row);
    if (!*real) snprintf(row->note, sizeof row->note, "not what its name says: stand-in types");
    remove(l->tmp[0]);
    *out = row;
    return ASH_OK;
}

static ash_status source_row(lab *l, ash_error *err) {
    ash_lab_row *row = lab_row(l, "source");
    if (!row) return lab_oom(err);
    ASH_TRY(lab_measure(l, l->paths[0], row, err));
    snprintf(row->note, sizeof row->note, "control: the same file must give 0");
    lab_probe(l, l->paths[0], row);
    return row->kld.v < 1e-5 ? ASH_OK : ash_fail(err, ASH_E_INTERNAL, "the model against itself gives a KL divergence of %g", row->kld.v);
}

ash_status lab_q2k(lab *l, ash_error *err) {
    ash_lab_row *row;
    bool real;
    ASH_TRY(source_row(l, err));
    ASH_TRY(preset_row(l, "Q3_K_S", NULL, &row, &real, err));
    ash_est q3 = row->kld;
    ASH_TRY(preset_row(l, "Q2_K", NULL, &row, &real, err));
    ash_est q2 = row->kld;
    if (!real) return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "%s.", k_not_real);
    if (q2.hi < LAB_BROKEN) return lab_verdict(l, ASH_LAB_REFUTED, "Q2_K is degraded (%.3f nats) but far from collapse, and it answers.", q2.v);
    if (q2.lo > LAB_BROKEN && q3.hi < LAB_BROKEN) return lab_verdict(l, ASH_LAB_REPRODUCED, "Q2_K is above %.1f nats (%.3f) and Q3_K_S below (%.3f).", LAB_BROKEN, q2.v, q3.v);
    if (q2.lo > LAB_BROKEN && q3.lo > LAB_BROKEN) return lab_verdict(l, ASH_LAB_REFUTED, "Both are above %.1f nats (Q2_K %.3f, Q3_K_S %.3f): no step between them.", LAB_BROKEN, q2.v, q3.v);
    return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "The intervals reach across %.1f nats: more chunks are needed.", LAB_BROKEN);
}

static ash_status collect(lab *l, uint32_t chunks, ash_imatrix **im, ash_error *err) {
    ash_eval_text t = {0};
    ash_eval_opts o = l->eo;
    o.n_chunks = chunks;
    ASH_TRY(ash_eval_text_load(&t, l->m, l->o->calib, err));
    ash_status st = ash_imatrix_collect(im, l->m, &t, "calibration", &o, err);
    ash_eval_text_free(&t);
    return st;
}

/* Whether a tensor of the file has data. */
static bool covered(const ash_imatrix *im, const char *name) {
    for (size_t i = 0; i < ash_imatrix_n(im); i++) {
        ash_imatrix_entry e = ash_imatrix_at(im, i);
        if (strcmp(e.name, name) != 0) continue;
        for (uint64_t k = 0; k < e.n_mat; k++)
            if (e.counts[k] > 0) return true;
    }
    return false;
}

typedef struct { size_t matrices, with_data, live, live_with_data, tensors; char first_missing[80]; } coverage;

/* Matrices of the blocks; a key or value matrix of a layer that reads another's never runs. */
static coverage count(const lab *l, const ash_imatrix *im) {
    const ash_gguf *g = ash_model_gguf(l->m);
    coverage c = {.tensors = ash_gguf_n_tensors(g)};
    for (size_t i = 0; i < c.tensors; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        int il, at = 0;
        if (t->n_dims < 2 || sscanf(t->name, "blk.%d.%n", &il, &at) != 1 || !at || il < 0 || il >= l->m->hp.n_layer) continue;
        const char *leaf = t->name + at;
        bool dead = l->m->layers[il].kv_layer != il && (strcmp(leaf, "attn_k.weight") == 0 || strcmp(leaf, "attn_v.weight") == 0), has = covered(im, t->name);
        c.matrices++;
        c.with_data += has;
        c.live += !dead;
        c.live_with_data += !dead && has;
        if (!dead && !has && !c.first_missing[0]) snprintf(c.first_missing, sizeof c.first_missing, "%s", t->name);
    }
    return c;
}

static ash_status coverage_row(lab *l, const char *label, uint32_t chunks, coverage *c, ash_imatrix **im, ash_error *err) {
    ash_lab_row *row = lab_row(l, "%s", label);
    if (!row) return lab_oom(err);
    ASH_TRY(collect(l, chunks, im, err));
    *c = count(l, *im);
    l->r->n_ctx = l->eo.n_ctx;
    l->r->n_chunks = chunks;
    snprintf(row->note, sizeof row->note, "data for %zu of %zu matrices, %zu of the %zu that run; %zu tensors in the file, %.0f %% of them", c->with_data, c->matrices, c->live_with_data, c->live,
             c->tensors, 100.0 * (double)c->with_data / (double)c->tensors);
    return ASH_OK;
}

ash_status lab_imatrix(lab *l, ash_error *err) {
    ash_imatrix *im = NULL;
    coverage c;
    ash_status st = coverage_row(l, "importance", l->eo.n_chunks, &c, &im, err);
    const char *dead[64];
    size_t n_dead = st == ASH_OK ? ash_imatrix_dead(im, l->m, dead, 64) : 0;
    if (n_dead) {
        ash_lab_row *row = lab_row(l, "never run");
        if (row) snprintf(row->note, sizeof row->note, "%zu: %s%s%s", n_dead, dead[0], n_dead > 1 ? " to " : "", n_dead > 1 ? dead[ASH_MIN(n_dead, (size_t)64) - 1] : "");
    }
    ash_imatrix_free(im);
    ASH_TRY(st);
    if (c.live_with_data == c.live)
        return lab_verdict(l, ASH_LAB_REFUTED, "All %zu matrices that run have data (%zu never run). Counted over all %zu tensors of the file it would be %.0f %%, which says nothing.", c.live,
                           c.matrices - c.live, c.tensors, 100.0 * (double)c.with_data / (double)c.tensors);
    return lab_verdict(l, ASH_LAB_REPRODUCED, "%zu of %zu matrices that run have no data, the first is %s (experts that no token chose count here).", c.live - c.live_with_data, c.live, c.first_missing);
}

ash_status lab_coverage(lab *l, ash_error *err) {
    ash_imatrix *a = NULL, *b = NULL;
    coverage ca, cb;
    ash_status st = coverage_row(l, "1 chunk", 1, &ca, &a, err);
    if (st == ASH_OK) st = coverage_row(l, "8 chunks", 8, &cb, &b, err);
    if (st == ASH_OK && cb.with_data == ca.with_data)
        st = lab_verdict(l, ASH_LAB_REFUTED, "Eight times the text gives data for the same %zu matrices. What more text improves is their accuracy.", ca.with_data);
    else if (st == ASH_OK)
        st = lab_verdict(l, cb.with_data > ca.with_data ? ASH_LAB_REPRODUCED : ASH_LAB_REFUTED, "%zu matrices with one chunk, %zu with eight (experts are met one by one).", ca.with_data, cb.with_data);
    ash_imatrix_free(a);
    ash_imatrix_free(b);
    return st;
}

ash_status lab_q2k_vs_q3k(lab *l, ash_error *err) {
    static const char *const names[] = {"Q4_K_M", "Q3_K_M", "Q3_K_S", "Q2_K"};
    ash_imatrix *im = NULL;
    ash_est e[4] = {{0}};
    bool real = true;
    ash_status st;
    ASH_TRY(source_row(l, err));
    ASH_TRY(collect(l, ASH_MAX(l->eo.n_chunks, 8u), &im, err));
    st = ASH_OK;
    for (size_t i = 0; st == ASH_OK && i < 4; i++) {
        ash_lab_row *row = NULL;
        st = preset_row(l, names[i], im, &row, &real, err);
        if (st == ASH_OK) e[i] = row->kld;
    }
    ash_imatrix_free(im);
    ASH_TRY(st);
    if (!real) return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "%s.", k_not_real);
    double step = e[3].v / e[2].v;
    if (e[2].hi < LAB_BROKEN && e[3].lo > LAB_BROKEN && step > 10)
        return lab_verdict(l, ASH_LAB_REPRODUCED, "Q3_K_S %.3f, Q2_K %.3f nats: a step of %.1f times across the band.", e[2].v, e[3].v, step);
    if (e[3].hi < LAB_BROKEN || step < 10)
        return lab_verdict(l, ASH_LAB_REFUTED, "Q4_K_M %.3f, Q3_K_M %.3f, Q3_K_S %.3f, Q2_K %.3f nats: the loss grows step by step (%.1f times from Q3_K_S to Q2_K), without a floor.", e[0].v, e[1].v,
                           e[2].v, e[3].v, step);
    return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "The intervals reach across %.1f nats: more chunks are needed.", LAB_BROKEN);
}

/* Q2_K of every model against a rule that predicts failure. */
static ash_status rule_over_models(lab *l, bool by_window, ash_error *err) {
    size_t right = 0, wrong = 0, open = 0, fails = 0;
    for (size_t i = 0; i < l->n_paths; i++) {
        if (i) ASH_TRY(lab_use(l, l->paths[i], err));
        const double ratio = lab_ffn_ratio(l->m);
        const bool window = lab_has_window(l->m), predicted = by_window ? window : ratio >= 3.0 && ratio <= 5.5;
        ash_lab_row *row = NULL;
        bool real;
        ASH_TRY(preset_row(l, "Q2_K", NULL, &row, &real, err));
        const char *base = strrchr(l->paths[i], '/');
        snprintf(row->label, sizeof row->label, "%s, Q2_K", base ? base + 1 : l->paths[i]);
        const char *said = predicted ? "fails" : "works", *is = !real ? "stand-in types, not counted" : row->kld.lo > LAB_BROKEN ? "fails" : row->kld.hi < LAB_BROKEN ? "works" : "open";
        snprintf(row->note, sizeof row->note, "ratio %.2f, %s; predicted: %s; measured: %s", ratio, window ? "windows" : "no windows", said, is);
        bool decided = real && (row->kld.lo > LAB_BROKEN || row->kld.hi < LAB_BROKEN), failed = row->kld.lo > LAB_BROKEN;
        right += decided && failed == predicted;
        wrong += decided && failed != predicted;
        fails += decided && failed;
        open += !decided;
    }
    if (wrong) return lab_verdict(l, ASH_LAB_REFUTED, "%zu of %zu predictions are wrong by the whole interval.", wrong, right + wrong);
    if (right >= 2 && fails && fails < right) return lab_verdict(l, ASH_LAB_REPRODUCED, "All %zu predictions are right, on both sides of the rule (%zu open).", right, open);
    return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "%zu models agree and %zu are open: models on both sides of the rule are needed, give several.", right, open);
}

ash_status lab_cross_arch(lab *l, ash_error *err) { return rule_over_models(l, false, err); }
ash_status lab_swa(lab *l, ash_error *err) { return rule_over_models(l, true, err); }
