/* lab_shape.c - experiments on layers and windows: 8, 8b and 9 of the papers. */
#include "lab/lab_list.h"

#include <math.h>
#include <stdio.h>

ash_status lab_deswa(lab *l, ash_error *err) {
    const char *arch = ash_model_arch(l->m);
    char a[160], b[160];
    const char *set[2] = {a, b};
    ash_patch_info info = {0};
    if (!lab_has_window(l->m)) return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "The model has no windows to switch off.");
    snprintf(a, sizeof a, "%s.attention.sliding_window_pattern", arch);
    const ash_gguf_kv *kv = ash_gguf_find(ash_model_gguf(l->m), a);
    const bool listed = kv && kv->type == ASH_GV_ARRAY;
    snprintf(b, sizeof b, "%s.attention.shared_kv_layers", arch);
    const bool shares = ash_gguf_find(ash_model_gguf(l->m), b) != NULL;
    if (listed) snprintf(a, sizeof a, "%s.attention.sliding_window_pattern[*]=false", arch);
    else snprintf(a, sizeof a, "%s.attention.sliding_window=0", arch);
    snprintf(b, sizeof b, "%s.attention.shared_kv_layers=0", arch);
    ash_patch_opts o = {.out = l->tmp[0], .dry_run = true};
    ash_lab_row *row = lab_row(l, "patch, predicted");
    if (!row) return lab_oom(err);
    ASH_TRY(ash_patch(&info, l->paths[0], set, shares ? 2 : 1, &o, err));
    const size_t n = info.n_conflicts;
    const char *nl = n ? strchr(info.conflicts, '\n') : NULL;
    snprintf(row->note, sizeof row->note, "%zu conflicts%s%.*s", n, n ? ", the first: " : "", nl ? (int)(nl - info.conflicts) : 0, n ? info.conflicts : "");
    ash_patch_info_free(&info);
    if (n) {
        /* what the loader says of the file, as the papers had it */
        o.dry_run = false;
        o.force = true;
        ash_lab_row *forced = lab_row(l, "patch, forced");
        if (!forced) return lab_oom(err);
        ASH_TRY(ash_patch(&info, l->paths[0], set, shares ? 2 : 1, &o, err));
        ash_patch_info_free(&info);
        lab_probe(l, l->tmp[0], forced);
        snprintf(forced->note, sizeof forced->note, "written against the prediction");
        return lab_verdict(l, ASH_LAB_REPRODUCED, "%zu shapes conflict, which the metadata tells before anything is written; layers with windows have heads of their own size.", n);
    }
    o.dry_run = false;
    row = lab_row(l, "patch, measured");
    if (!row) return lab_oom(err);
    ASH_TRY(ash_patch(&info, l->paths[0], set, shares ? 2 : 1, &o, err));
    ash_patch_info_free(&info);
    ASH_TRY(lab_measure(l, l->tmp[0], row, err));
    lab_probe(l, l->tmp[0], row);
    snprintf(row->note, sizeof row->note, "no windows, and all rotations those of full layers");
    return lab_verdict(l, ASH_LAB_REFUTED, "The patched model loads: all its layers have one shape. It is another model, though: %.3f nats from the source.", row->kld.v);
}

/* n layers at random that no earlier draw gave (hashes in seen[0..k)), as far as a small model has others. */
static ash_status draw_new(const lab *l, uint32_t n, uint32_t k, uint64_t *seen, uint32_t *layers, ash_error *err) {
    for (uint64_t tries = 0; tries < 50; tries++) {
        ASH_TRY(ash_slice_random(l->m, n, l->o->seed + k + 1000 * tries, layers, err));
        seen[k] = ash_hash64(layers, n * sizeof *layers);
        uint32_t i = 0;
        while (i < k && seen[i] != seen[k]) i++;
        if (i == k) break;
    }
    return ASH_OK;
}

ash_status lab_swa_slice(lab *l, ash_error *err) {
    enum { MAX_RANDOM = 64 };
    uint64_t seen[MAX_RANDOM];
    uint32_t *layers = NULL, n = 0, worse = 0, better = 0;
    const uint32_t n_layer = (uint32_t)ash_model_n_layer(l->m), n_random = l->o->n_random ? ASH_MIN(l->o->n_random, (uint32_t)MAX_RANDOM) : 3;
    ash_slice_info info;
    ash_error none = {0};
    ash_status st;
    if (ash_layers_parse(&layers, &n, l->m, n_layer, "swa", 1, &none) != ASH_OK || n == n_layer) {
        ash_layers_free(layers);
        return lab_verdict(l, ASH_LAB_NOT_TESTABLE, n == n_layer && n ? "All layers have windows." : "The model has no windows.");
    }
    ash_lab_row *row = lab_row(l, "windowed layers only");
    st = row ? ASH_OK : lab_oom(err);
    ash_est kld = {0};
    if (st == ASH_OK) st = ash_slice_write(&info, l->m, layers, n, l->tmp[0], false, &l->o->progress, err);
    if (st == ASH_OK) st = lab_measure(l, l->tmp[0], row, err);
    if (st == ASH_OK) {
        kld = row->kld;
        lab_probe(l, l->tmp[0], row);
        snprintf(row->note, sizeof row->note, "%u of %u layers; %u read another's keys, %u of them a stand-in's", n, n_layer, info.n_shared, info.n_retargeted);
    }
    for (uint32_t k = 0; st == ASH_OK && k < n_random; k++) {
        row = lab_row(l, "random drop %u", k + 1);
        st = row ? draw_new(l, n, k, seen, layers, err) : lab_oom(err);
        if (st == ASH_OK) st = ash_slice_write(&info, l->m, layers, n, l->tmp[0], false, &l->o->progress, err);
        if (st == ASH_OK) st = lab_measure(l, l->tmp[0], row, err);
        if (st != ASH_OK) break;
        lab_probe(l, l->tmp[0], row);
        worse += kld.v > row->kld.v;
        better += kld.v < row->kld.v;
        size_t at = (size_t)snprintf(row->note, sizeof row->note, "without");
        for (uint32_t i = 0, j = 0; i < n_layer && at < sizeof row->note; i++) {
            if (j < n && layers[j] == i) j++;
            else at += (size_t)snprintf(row->note + at, sizeof row->note - at, " %u", i);
        }
    }
    ash_layers_free(layers);
    ASH_TRY(st);
    if (worse == n_random && n_random >= 3) return lab_verdict(l, ASH_LAB_REPRODUCED, "The slice (%.3f nats) is worse than all %u random drops of %u layers, without any quantization.", kld.v, n_random, n_layer - n);
    if (2 * better >= n_random)
        return lab_verdict(l, ASH_LAB_REFUTED, "The slice (%.3f nats) is better than %u of %u random drops of %u layers: dropping layers does the harm, not which kind they are.", kld.v, better, n_random,
                           n_layer - n);
    return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "The slice is worse than %u of %u random drops: more drops are needed.", worse, n_random);
}

ash_status lab_cliff(lab *l, ash_error *err) {
    double bpw, worst = -INFINITY, least = INFINITY, sum = 0;
    bool real;
    uint32_t at_worst = 0;
    ash_lab_row *row = lab_row(l, "Q3_K_S, the anchor");
    if (!row) return lab_oom(err);
    ASH_TRY(lab_preset(l, "Q3_K_S", NULL, l->tmp[0], &row->bpw, &real, err));
    if (!real) return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "Rows of this model do not fit super-blocks and its architecture cannot be widened: the presets would be made of other types.");
    ASH_TRY(lab_measure(l, l->tmp[0], row, err));
    lab_probe(l, l->tmp[0], row);
    const double base = row->kld.v;
    ASH_TRY(lab_preset(l, "Q2_K", NULL, l->tmp[1], &bpw, &real, err));
    ash_buf name = {0};
    ash_buf_addf(&name, "%s.merged", l->tmp[0]);
    if (!ash_buf_ok(&name)) return lab_oom(err);
    ash_status st = ASH_OK;
    for (uint32_t il = 0; st == ASH_OK && il < (uint32_t)ash_model_n_layer(l->m); il++) {
        row = lab_row(l, "layer %u at Q2_K", il);
        st = row ? ash_merge(NULL, l->tmp[0], l->tmp[1], &il, 1, name.p, &l->o->progress, err) : lab_oom(err);
        if (st == ASH_OK) st = lab_measure(l, name.p, row, err);
        if (st != ASH_OK) break;
        if (il == 0 || il + 1 == (uint32_t)ash_model_n_layer(l->m)) lab_probe(l, name.p, row);
        const double add = row->kld.v - base;
        snprintf(row->note, sizeof row->note, "%+.4f nats against the anchor", add);
        if (add > worst) worst = add, at_worst = il;
        least = fmin(least, add);
        sum += add;
    }
    remove(name.p);
    ash_buf_free(&name);
    ASH_TRY(st);
    row = lab_row(l, "all layers at Q2_K");
    if (!row) return lab_oom(err);
    row->bpw = bpw;
    ASH_TRY(lab_measure(l, l->tmp[1], row, err));
    lab_probe(l, l->tmp[1], row);
    snprintf(row->note, sizeof row->note, "%+.4f nats; the layers one by one add up to %+.4f", row->kld.v - base, sum);
    if (worst > LAB_BROKEN && least < LAB_FAINT) return lab_verdict(l, ASH_LAB_REPRODUCED, "Layer %u alone adds %.3f nats, others less than %.2f.", at_worst, worst, LAB_FAINT);
    if (worst < LAB_BROKEN)
        return lab_verdict(l, ASH_LAB_REFUTED, "No layer alone breaks the model: the worst, %u, adds %.3f nats, the least %.3f. Sensitivity is graded.", at_worst, worst, least);
    return lab_verdict(l, ASH_LAB_NOT_TESTABLE, "Every layer alone does much harm (%.3f to %.3f nats).", least, worst);
}
