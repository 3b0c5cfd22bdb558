/* cmd_assess.c - `ashlar assess`: what a model is made of, how large every stock recipe is, what fits this machine, and what is likely to come of it. */
#include "model_args.h"

#include "ashlar/assess.h"
#include "ashlar/eval.h"

#include <jansson.h>
#include <string.h>

static int64_t ctx, ram;
static bool importance, predict, no_predict, exact, all_layers;
static const char *imatrix_path, *table_path;

static const opt_def options[] = {
    {OPT_I64, 'c', "ctx", "N", "Tokens of context for memory and advice (default: the model's, at most 4096).", &ctx},
    {OPT_BYTES, 0, "ram", "BYTES", "Memory of the machine (default: this one's).", &ram},
    {OPT_FLAG, 0, "exact", NULL, "Float32 activations and KV cache instead of the everyday path.", &exact},
    CLI_CACHE_OPTIONS,
    {OPT_FLAG, 0, "with-imatrix", NULL, "Recipes as they are with an importance matrix, which changes some types.", &importance},
    {OPT_STR, 0, "imatrix", "FILE", "An importance matrix for the prediction (implies --with-imatrix).", &imatrix_path},
    {OPT_FLAG, 0, "predict", NULL, "Predict from the weights, whatever it takes (default: where they are at most 2 GB).", &predict},
    {OPT_FLAG, 0, "quick", NULL, "Header only: no prediction from the weights.", &no_predict},
    {OPT_FLAG, 0, "layers", NULL, "A row for every layer instead of one for each run of equal ones.", &all_layers},
    {OPT_STR, 0, "models", "FILE", "Table of known outcomes that the rule is scored on (default: the one that ships).", &table_path},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

enum { LARGE = 2000000000 };
static const double k_limits[] = {1.5, 2.0};
static const char *const k_says[] = {"fails", "works", "undecided"};
static const char *const k_forms[] = {"1D: ratio", "2D: ratio, windows", "3D: ratio, windows, depth"};

static double mib(uint64_t n) { return (double)n / 1048576; }
static double share(uint64_t part, uint64_t whole) { return whole ? (double)part / (double)whole : 0; }
static double window_share(const ash_model_facts *f) { return f->n_layer ? (double)f->n_window / (double)f->n_layer : 0; }

/* ---- JSON ---- */
static json_t *layers_json(const ash_assess *a) {
    const ash_model_facts *f = ash_assess_facts(a);
    json_t *list = json_array();
    for (int64_t i = 0; i < f->n_layer; i++) {
        const ash_layer_facts *l = &ash_assess_layers(a)[i];
        json_array_append_new(list, json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I}", "layer", (json_int_t)i, "n_ff", (json_int_t)l->n_ff, "ffn_ratio", l->ffn_ratio,
                                              "n_head", (json_int_t)l->n_head, "n_head_kv", (json_int_t)l->n_head_kv, "head_dim", (json_int_t)l->head_dim, "window",
                                              (json_int_t)l->window, "kv_layer", (json_int_t)l->kv_layer, "experts", (int)l->experts, "n_weights", (json_int_t)l->n_weights,
                                              "dead_weights", (json_int_t)l->dead_weights));
    }
    return list;
}

static json_t *facts_json(const ash_assess *a) {
    const ash_model_facts *f = ash_assess_facts(a);
    json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I}", "name", f->name, "arch", f->arch, "runs", (int)f->runs, "from_config",
                          (int)f->from_config, "has_weights", (int)f->has_weights, "file_bytes", (json_int_t)f->file_bytes, "lost_bytes", (json_int_t)f->lost_bytes, "n_layer",
                          (json_int_t)f->n_layer, "n_embd", (json_int_t)f->n_embd, "n_vocab", (json_int_t)f->n_vocab, "n_ctx_train", (json_int_t)f->n_ctx_train, "n_expert",
                          (json_int_t)f->n_expert, "n_expert_used", (json_int_t)f->n_expert_used, "tied", (int)f->tied, "n_tensors", (json_int_t)f->n_tensors, "n_weights",
                          (json_int_t)f->n_weights);
    json_t *more = json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:s}", "tensor_bytes", (json_int_t)f->tensor_bytes, "embedding_weights",
                             (json_int_t)f->embd_weights, "embedding_share", share(f->embd_weights, f->n_weights), "lookup_weights", (json_int_t)f->lookup_weights, "n_dead",
                             (json_int_t)f->n_dead, "dead_weights", (json_int_t)f->dead_weights, "ffn_ratio", f->ffn_ratio, "ffn_ratio_min", f->ffn_ratio_min, "ffn_ratio_max",
                             f->ffn_ratio_max, "ffn_ratio_mean", f->ffn_ratio_mean, "n_window", (json_int_t)f->n_window, "n_full", (json_int_t)f->n_full, "why_not", f->why_not);
    json_t *dead = json_array();
    for (size_t i = 0; ash_assess_dead(a, i); i++) json_array_append_new(dead, json_string(ash_assess_dead(a, i)));
    if (o && more) json_object_update(o, more);
    json_decref(more);
    if (o) json_object_set_new(o, "dead", dead), json_object_set_new(o, "layers", layers_json(a));
    else json_decref(dead);
    return o;
}

static json_t *recipes_json(const ash_assess *a) {
    json_t *list = json_array();
    for (size_t i = 0; i < ash_assess_n_recipes(a); i++) {
        const ash_assess_recipe *r = ash_assess_recipe_at(a, i);
        json_t *o = json_pack("{s:s, s:b, s:b}", "name", r->name, "possible", (int)r->possible, "general", (int)r->general);
        if (r->possible) {
            json_object_set_new(o, "tensor_bytes", json_integer((json_int_t)r->tensor_bytes));
            json_object_set_new(o, "file_bytes", json_integer((json_int_t)r->file_bytes));
            json_object_set_new(o, "stand_ins", json_integer((json_int_t)r->n_stand_in));
            json_object_set_new(o, "bpw", json_real(r->bpw));
            json_object_set_new(o, "bpw_blocks", json_real(r->bpw_blocks));
            json_object_set_new(o, "bpw_live", json_real(r->bpw_live));
            if (r->resident) json_object_set_new(o, "resident_bytes", json_integer((json_int_t)r->resident)), json_object_set_new(o, "fits", json_boolean(r->fits));
            if (r->predicted) json_object_set_new(o, "predicted_kld", json_pack("{s:f, s:f, s:f}", "value", r->kld, "lo80", r->kld_lo, "hi80", r->kld_hi));
        }
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *rule_json(const ash_assess *a, const ash_known_models *k) {
    const ash_model_facts *f = ash_assess_facts(a);
    json_t *list = json_array();
    for (int form = 0; form < ASH_RULE_FORMS; form++) {
        const ash_rule v = ash_ffn_rule(form, f->ffn_ratio, window_share(f));
        json_t *scores = json_array();
        for (size_t i = 0; k && i < 2; i++) {
            const ash_rule_score s = ash_ffn_rule_score(form, k, k_limits[i]);
            json_array_append_new(scores, json_pack("{s:f, s:i, s:i, s:i, s:f, s:f, s:i}", "ppl_ratio_limit", k_limits[i], "models", s.n, "right", s.right, "undecided", s.undecided, "lo95", s.lo,
                                                    "hi95", s.hi, "right_by_always_works", s.works));
        }
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:s, s:s, s:s, s:s, s:o}", "form", k_forms[form], "q2_k", k_says[v.q2k], "published_confidence", v.confidence, "primary", v.primary,
                                              "fallback", v.fallback, "risk", v.risk, "reason", v.reason, "scores", scores));
    }
    return json_pack("{s:s, s:f, s:o}", "status", "hypothesis", "ratio", f->ffn_ratio, "forms", list);
}

static json_t *advice_json(const ash_assess *a) {
    const ash_assess_advice v = ash_assess_advise(a);
    json_t *fit = json_array(), *ladder = json_array();
    for (int i = 0; i < v.n_fit; i++) json_array_append_new(fit, json_string(ash_assess_recipe_at(a, v.fit[i])->name));
    for (int i = 0; i < v.n_ladder; i++) json_array_append_new(ladder, json_string(ash_assess_recipe_at(a, v.ladder[i])->name));
    return json_pack("{s:b, s:I, s:I, s:i, s:o, s:o}", "known", (int)v.known, "ram_bytes", (json_int_t)v.ram, "budget_bytes", (json_int_t)v.budget, "n_ctx", (int)v.n_ctx, "fit", fit, "ladder",
                     ladder);
}

static int print_json(const char *path, const ash_assess *a, const ash_known_models *k) {
    json_t *o = json_pack("{s:s, s:o, s:o, s:o, s:o}", "model", path, "facts", facts_json(a), "recipes", recipes_json(a), "ffn_ratio_rule", rule_json(a, k), "advice", advice_json(a));
    ash_mem m;
    if (o && ash_assess_mem(a, &m))
        json_object_set_new(o, "memory", json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "n_ctx", (int)m.n_ctx, "live_bytes", (json_int_t)m.live, "lookup_bytes", (json_int_t)m.lookup, "kv_bytes",
                                                   (json_int_t)m.kv, "scratch_bytes", (json_int_t)m.scratch, "resident_bytes", (json_int_t)m.resident));
    return cli_print_json(o);
}

/* ---- text ---- */
static void print_layers(const ash_assess *a) {
    const ash_model_facts *f = ash_assess_facts(a);
    const ash_layer_facts *l = ash_assess_layers(a);
    printf("\n%-9s %-12s %7s %9s %12s %9s %14s %12s\n", "layers", "attention", "heads", "head size", "feed-forward", "FFN ratio", "keys, values", "weights");
    for (int64_t i = 0, j; i < f->n_layer; i = j) {
        char range[48], att[32] = "unknown", kv[32] = "own", heads[48];
        for (j = i + 1; !all_layers && j < f->n_layer && l[j].n_ff == l[i].n_ff && l[j].window == l[i].window && l[j].n_head == l[i].n_head && l[j].n_head_kv == l[i].n_head_kv &&
                        l[j].head_dim == l[i].head_dim && (l[j].kv_layer == j ? l[i].kv_layer == i : l[j].kv_layer == l[i].kv_layer) && l[j].n_weights == l[i].n_weights;)
            j++;
        if (j - i > 1) snprintf(range, sizeof range, "%lld-%lld", (long long)i, (long long)j - 1);
        else snprintf(range, sizeof range, "%lld", (long long)i);
        if (l[i].window == 0) snprintf(att, sizeof att, "full");
        else if (l[i].window > 0) snprintf(att, sizeof att, "window %lld", (long long)l[i].window);
        if (l[i].kv_layer >= 0 && l[i].kv_layer != i) snprintf(kv, sizeof kv, "of layer %lld", (long long)l[i].kv_layer);
        if (l[i].kv_layer < 0) snprintf(kv, sizeof kv, "unknown");
        snprintf(heads, sizeof heads, "%lld/%lld", (long long)l[i].n_head, (long long)l[i].n_head_kv);
        printf("%-9s %-12s %7s %9lld %12lld %9.2f %14s %11.2fM%s\n", range, att, heads, (long long)l[i].head_dim, (long long)l[i].n_ff, l[i].ffn_ratio, kv, (double)l[i].n_weights / 1e6,
               l[i].experts ? "  experts" : "");
    }
}

static void print_facts(const char *path, const ash_assess *a) {
    const ash_model_facts *f = ash_assess_facts(a);
    char b[32], c[32];
    printf("%s: %s%s%s, %.2fB weights in %llu tensors, %lld layers, width %lld, %lld words%s\n", path, f->arch, *f->name ? ", " : "", f->name, (double)f->n_weights / 1e9,
           (unsigned long long)f->n_tensors, (long long)f->n_layer, (long long)f->n_embd, (long long)f->n_vocab, f->from_config ? " (from config.json: no weights, no vocabulary)" : "");
    if (f->lost_bytes)
        printf("the file ends %s too early (it has %s): header only\n", cli_bytes(f->lost_bytes, b), cli_bytes(f->file_bytes, c));
    if (!f->runs) printf("ashlar does not run this: %s\n", f->why_not);
    printf("head: %s; tables by token: %.1f %% of the weights%s", f->tied ? "tied to the embedding" : "its own", 100 * share(f->embd_weights, f->n_weights), f->lookup_weights ? "" : ", all read for every token");
    if (f->lookup_weights) printf(", %.1f %% only looked up in", 100 * share(f->lookup_weights, f->n_weights));
    if (f->n_window) printf("; attention: %lld layers windowed, %lld full", (long long)f->n_window, (long long)f->n_full);
    if (f->n_expert) printf("; %lld experts, %lld used", (long long)f->n_expert, (long long)f->n_expert_used);
    putchar('\n');
    if (f->n_dead)
        printf("dead: %zu tensors (%.2fM weights) that no run reads, %s to %s; they need no importance\n", f->n_dead, (double)f->dead_weights / 1e6, ash_assess_dead(a, 0),
               ash_assess_dead(a, f->n_dead - 1));
    print_layers(a);
}

static void print_recipes(const ash_assess *a) {
    const ash_model_facts *f = ash_assess_facts(a);
    bool predicted = false, special = false;
    ash_mem m;
    for (size_t i = 0; i < ash_assess_n_recipes(a); i++) predicted |= ash_assess_recipe_at(a, i)->predicted;
    printf("\n%-10s %12s %16s %6s %6s %6s", "recipe", "tensors MiB", f->from_config ? "no vocabulary" : "file bytes", "bpw", "blocks", "live");
    if (ash_assess_mem(a, &m)) printf(" %12s", "resident");
    if (predicted) printf("   predicted KLD (80 %%)");
    putchar('\n');
    for (size_t i = 0; i < ash_assess_n_recipes(a); i++) {
        const ash_assess_recipe *r = ash_assess_recipe_at(a, i);
        char b[32];
        if (!r->possible) {
            printf("%-10s does not fit the rows\n", r->name);
            continue;
        }
        special |= !r->general;
        printf("%-10s %12.2f %16llu %6.2f %6.2f %6.2f", r->name, mib(r->tensor_bytes), (unsigned long long)r->file_bytes, r->bpw, r->bpw_blocks, r->bpw_live);
        if (r->resident) printf(" %12s", cli_bytes(r->resident, b));
        if (r->predicted) printf("   %.3g (%.2g to %.2g)", r->kld, r->kld_lo, r->kld_hi);
        printf("%s", r->general ? "" : "  *");
        if (r->n_stand_in) printf("  %zu matrices in stand-in types", r->n_stand_in);
        putchar('\n');
    }
    if (special) printf("* for models trained for it, or of one bit\n");
    if (ash_assess_mem(a, &m)) printf("resident: a run with %u tokens of context, all in use\n", m.n_ctx);
}

static void print_rule(const ash_assess *a, const ash_known_models *k) {
    const ash_model_facts *f = ash_assess_facts(a);
    printf("\nFFN-ratio rule (hypothesis, as published; ratio %.2f", f->ffn_ratio);
    if (f->ffn_ratio_max > f->ffn_ratio_min) printf(", by layer %.2f to %.2f", f->ffn_ratio_min, f->ffn_ratio_max);
    printf(")\n");
    for (int form = 0; form < ASH_RULE_FORMS; form++) {
        const ash_rule v = ash_ffn_rule(form, f->ffn_ratio, window_share(f));
        printf("  %-26s Q2_K %s", k_forms[form], k_says[v.q2k]);
        if (v.confidence > 0) printf(", claimed confidence %.2f", v.confidence);
        printf(" (%s)\n", v.reason);
        for (size_t i = 0; k && i < 2; i++) {
            const ash_rule_score s = ash_ffn_rule_score(form, k, k_limits[i]);
            if (s.n)
                printf("  %26s score: right on %d of %d measured models (95 %%: %.0f to %.0f %%) if \"works\" is a perplexity below %.1f x; always saying \"works\": %d%s\n", "", s.right, s.n, 100 * s.lo,
                       100 * s.hi, k_limits[i], s.works, s.undecided ? "; undecided on the others" : "");
        }
    }
}

static void print_advice(const ash_assess *a) {
    const ash_assess_advice v = ash_assess_advise(a);
    char b[32], c[32], d[32];
    if (!v.known) {
        printf("\nmemory: unknown for this model\n");
        return;
    }
    printf("\nmachine: %s of memory, %s of it for a run; %u tokens of context\n", cli_bytes(v.ram, b), cli_bytes(v.budget, c), v.n_ctx);
    if (!v.n_fit) printf("no stock recipe fits; a shorter --ctx, or a smaller model\n");
    for (int i = 0; i < v.n_fit; i++) {
        const ash_assess_recipe *r = ash_assess_recipe_at(a, v.fit[i]);
        printf("  %s %-8s %10s file, %10s resident\n", i ? "    " : "fits", r->name, cli_bytes(r->file_bytes, b), cli_bytes(r->resident, d));
    }
    if (v.n_fit)
        printf("  a file made for it is better at the same size: ashlar fit MODEL --size %llu -o OUT.gguf\n", (unsigned long long)ash_assess_recipe_at(a, v.fit[0])->file_bytes);
    if (v.n_ladder) {
        printf("ladder, when the first does not load or is too slow:");
        for (int i = 0; i < v.n_ladder; i++) printf("%s %s", i ? "," : "", ash_assess_recipe_at(a, v.ladder[i])->name);
        printf("; when it talks nonsense: the same steps upwards, after `ashlar doctor`\n");
    }
}

/* ---- running ---- */
static int run(int argc, char **argv) {
    (void)argc;
    if (ctx < 0 || ctx > 1 << 28) return cli_usage("--ctx must be 1 to 268435456");
    if (predict && no_predict) return cli_usage("--predict and --quick exclude each other");
    ash_error err = {0};
    ash_assess *a = NULL;
    ash_imatrix *im = NULL;
    ash_known_models k = {0};
    int rc = 0;
    ash_status st;
    ash_assess_opts o = ash_assess_defaults();
    ASH_TRY_GOTO(cli_cache_types(&o.session.cache_k, &o.session.cache_v, &err), done);
    o.session.n_ctx = (uint32_t)ctx;
    o.session.n_threads = o.n_threads = g_threads;
    o.session.precision = exact ? ASH_PREC_EXACT : ASH_PREC_FAST;
    o.importance = importance || imatrix_path;
    o.ram = (uint64_t)ram;
    o.progress = cli_progress();
    if (imatrix_path) {
        ASH_TRY_GOTO(ash_imatrix_load(&im, imatrix_path, &err), done);
        o.weights = ash_plan_importance(im);
    }
    FILE *f = no_predict || predict ? NULL : fopen(argv[0], "rbe");
    o.predict = predict;
    if (f) {
        o.predict = fseeko(f, 0, SEEK_END) == 0 && ftello(f) <= LARGE;
        fclose(f);
    }
    const char *table = table_path ? table_path : cli_data_file("models.csv");
    if (table) ASH_TRY_GOTO(ash_known_models_load(&k, table, &err), done);
    cli_catch_sigint();
    ASH_TRY_GOTO(ash_assess_new(&a, argv[0], &o, &err), done);
    cli_progress_done();
    if (g_json) rc = print_json(argv[0], a, k.n ? &k : NULL);
    else {
        print_facts(argv[0], a);
        print_recipes(a);
        print_rule(a, k.n ? &k : NULL);
        print_advice(a);
    }
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_known_models_free(&k);
    ash_imatrix_free(im);
    ash_assess_free(a);
    return rc;
}

const ash_cmd cmd_assess = {
    .name = "assess",
    .usage = "MODEL|config.json",
    .summary = "Say in a second what a model is made of, how large every stock recipe is, and what fits this machine.",
    .details = "MODEL is a GGUF, the first megabytes of one (all of its header), a config.json, or the folder it is in. Sizes are exact: `tensors` is what llama-quantize prints, `file` is "
               "what `ashlar quantize --preset` writes; from a config.json the vocabulary is missing.\n\n"
               "bpw is of the whole file, of the blocks' matrices, and of what every token reads (tables that are only looked up in and dead tensors left out).\n\n"
               "The prediction encodes samples of the weights and knows typical sensitivities; its interval is what it missed by on models that were measured. `ashlar sweep` and "
               "`ashlar fit` measure instead.\n\n"
               "The FFN-ratio rule is a published rule of thumb, shown as it was published, with its score on a table of measured models (models.csv). The advice does not use it.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
