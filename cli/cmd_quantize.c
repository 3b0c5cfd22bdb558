/* cmd_quantize.c - `ashlar quantize`: one type for every matrix, or a recipe. */
#include "cli.h"

#include "ashlar/bake.h"
#include "ashlar/eval.h"
#include "ashlar/quant.h"

#include <jansson.h>
#include <string.h>

static const char *type_name, *preset_name, *recipe_path, *imatrix_path, *calib_path, *only;
static int64_t widen, calib_chunks = 96, passes = 2;
static double damp = 0.1;
static bool strict, any_source, dry;

static const opt_def options[] = {
    {OPT_STR, 0, "type", "TYPE", "One type for every matrix, tables included, e.g. Q4_K or IQ4_NL. Norms and biases stay as they are.", &type_name},
    {OPT_STR, 0, "preset", "NAME", "The mix that llama-quantize makes under that name, e.g. Q4_K_M, Q2_K or IQ2_XXS: types by tensor and depth.", &preset_name},
    {OPT_STR, 0, "recipe", "FILE", "Types per tensor, from `ashlar plan` or written by hand (lines PATTERN = TYPE).", &recipe_path},
    {OPT_STR, 0, "imatrix", "FILE", "Importance matrix (`ashlar imatrix`): weights the encoders' error.", &imatrix_path},
    {OPT_STR, 0, "compensate", "TEXT", "Choose codes and scales with the second moments of the matrices' inputs on this text (error-compensated rounding).", &calib_path},
    {OPT_I64, 0, "chunks", "N", "With --compensate: 512-token windows of the text, 0: all of it. Default 96; few overfit.", &calib_chunks},
    {OPT_STR, 0, "only", "LIST", "With --compensate: only these steps, of feedback, conditioned, descent, refit, tied, prefix (for measuring what each brings).", &only},
    {OPT_I64, 0, "passes", "N", "With --compensate: rounds of descent and refit. Default 2.", &passes},
    {OPT_F64, 0, "damp", "X", "With --compensate: share by which moments between columns count less than measured. Default 0.1.", &damp},
    {OPT_I64, 0, "widen", "N", "With --type or --preset: add zero channels until rows are multiples of N (256 for k-quants).", &widen},
    {OPT_FLAG, 0, "strict", NULL, "With --type: fail where the type does not fit a row, instead of using the named fallback.", &strict},
    {OPT_FLAG, 0, "any-source", NULL, "With --recipe: do not insist on the model the recipe was made for.", &any_source},
    {OPT_FLAG, 0, "dry-run", NULL, "Say what would be written, and its exact size; write nothing.", &dry},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* `preset`: the recipe of a preset, whose reasons name the stand-ins; or NULL. */
static int print(const ash_bake_result *r, const ash_recipe *preset, const char *in, const char *out, uint64_t source_bytes) {
    char a[32], b[32];
    if (g_json) {
        json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:b}", "source", in, "file", dry ? "" : out, "source_bytes", (json_int_t)source_bytes, "bytes",
                              (json_int_t)r->file_bytes, "n_weights", (json_int_t)r->n_weights, "bpw", r->bpw, "bpw_blocks", r->bpw_blocks, "dry_run", (int)dry);
        json_t *t = json_array();
        for (size_t i = 0; i < r->n; i++) {
            const ash_bake_tensor *x = &r->t[i];
            if (!x->is_matrix) continue;
            json_array_append_new(t, json_pack("{s:s, s:s, s:s, s:I, s:b, s:b}", "tensor", x->name, "from", ash_dtype_name(x->from), "to", ash_dtype_name(x->to), "bytes",
                                               (json_int_t)x->bytes, "fallback", (int)x->fallback, "copied", (int)x->copied));
        }
        if (!o || !t || json_object_set_new(o, "tensors", t) != 0) return cli_fail(NULL, ASH_E_INTERNAL); /* a name that is no UTF-8 */
        return cli_print_json(o);
    }
    uint64_t bytes[ASH_DTYPE_MAX] = {0};
    size_t count[ASH_DTYPE_MAX] = {0}, copied = 0;
    for (size_t i = 0; i < r->n; i++) {
        const ash_bake_tensor *x = &r->t[i];
        if (!x->is_matrix) continue;
        bytes[x->to] += x->bytes;
        count[x->to]++;
        copied += x->copied;
        if (x->fallback) printf("fallback: %s: rows of %llu weights do not fit %s, written as %s\n", x->name, (unsigned long long)x->ne0, ash_dtype_name((ash_dtype)x->asked), ash_dtype_name(x->to));
    }
    for (size_t i = 0; preset && i < ash_recipe_n_rules(preset); i++) {
        ash_recipe_rule x = ash_recipe_rule_at(preset, i);
        if (*x.reason) printf("fallback: %s: %s %s\n", x.pattern, ash_dtype_name((ash_dtype)x.type), x.reason);
    }
    for (int t = 0; t < ASH_DTYPE_MAX; t++)
        if (count[t]) printf("%-8s %4zu matrices  %10s\n", ash_dtype_name((ash_dtype)t), count[t], cli_bytes(bytes[t], a));
    if (copied) printf("%zu matrices already had their type and were copied\n", copied);
    size_t n_comp = 0;
    for (size_t i = 0; i < r->n; i++) n_comp += r->t[i].compensated;
    if (n_comp) printf("%zu matrices compensated: expected squared error of their outputs %.3f of plain rounding's\n", n_comp, r->loss[0] > 0 ? r->loss[1] / r->loss[0] : 1.0);
    printf("%s%s: %s (%llu bytes), %.3f bits per weight, blocks %.3f; source %s\n", dry ? "would write " : "", out, cli_bytes(r->file_bytes, a), (unsigned long long)r->file_bytes,
           r->bpw, r->bpw_blocks, cli_bytes(source_bytes, b));
    return 0;
}

static bool parse_steps(const char *list, ash_bake_comp *c) {
    static const struct { const char *name; unsigned bit; } steps[] = {{"feedback", ASH_COMPENSATE_FEEDBACK}, {"conditioned", ASH_COMPENSATE_CONDITIONED},
                                                                       {"descent", ASH_COMPENSATE_DESCENT}, {"refit", ASH_COMPENSATE_REFIT}, {"tied", ASH_COMPENSATE_TIED}, {"prefix", 1u << 31}};
    c->what = 0;
    while (*list) {
        size_t n = strcspn(list, ","), i = 0;
        while (i < sizeof steps / sizeof *steps && (strlen(steps[i].name) != n || strncmp(list, steps[i].name, n) != 0)) i++;
        if (i == sizeof steps / sizeof *steps) return false;
        c->what |= steps[i].bit;
        list += n + (list[n] == ',');
    }
    c->prefix = c->what >> 31;
    c->what &= ASH_COMPENSATE_ALL | ASH_COMPENSATE_TIED;
    return true;
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_gguf *g = NULL;
    ash_recipe *recipe = NULL;
    ash_imatrix *im = NULL;
    ash_model *m = NULL;
    ash_eval_text text = {0};
    ash_bake_comp comp = ash_bake_comp_defaults();
    ash_bake_result r = {0};
    ash_bake_opts o = ash_bake_defaults();
    int rc = 0;
    ash_status st;
    (void)argc;
    ash_dtype t;
    size_t preset = 0;
    if (type_name && !preset_name && !ash_dtype_parse(type_name, &t) && ash_preset_find(type_name, &preset)) preset_name = type_name, type_name = NULL;
    if (!!type_name + !!preset_name + !!recipe_path != 1) return cli_usage("give one of --type, --preset and --recipe");
    if (preset_name && !ash_preset_find(preset_name, &preset)) return cli_usage("unknown preset \"%.40s\"", preset_name);
    if (!type_name && strict) return cli_usage("--strict belongs to --type");
    if (recipe_path && widen) return cli_usage("a recipe says itself whether to widen");
    if (!recipe_path && any_source) return cli_usage("--any-source belongs to --recipe");
    if (widen < 0 || widen == 1 || widen > 65536) return cli_usage("--widen takes a block size such as 256");
    if (strcmp(argv[0], argv[1]) == 0) return cli_usage("the output would replace its own source");
    if (type_name) {
        if (!ash_dtype_parse(type_name, &t)) return cli_usage("unknown type \"%.40s\"", type_name);
        if (!ash_quant_can(t)) return cli_usage("there is no encoder for %s", ash_dtype_name(t));
        o.type = (int)t;
    }
    if (!calib_path && only) return cli_usage("--only belongs to --compensate");
    if (calib_chunks < 0 || calib_chunks > 65536 || passes < 0 || passes > 100 || !(damp >= 0 && damp < 1)) return cli_usage("--chunks, --passes or --damp is out of range");
    comp.n_chunks = (uint32_t)calib_chunks, comp.passes = (int)passes, comp.damp = damp;
    if (only && !parse_steps(only, &comp)) return cli_usage("unknown step in \"%.60s\"", only);
    cli_catch_sigint();
    st = ash_gguf_open(&g, argv[0], &err);
    if (st == ASH_OK && recipe_path) st = ash_recipe_load(&recipe, recipe_path, &err);
    if (st == ASH_OK && imatrix_path) st = ash_imatrix_load(&im, imatrix_path, &err);
    if (st == ASH_OK && preset_name) {
        st = ash_preset_recipe(&recipe, preset, g, (uint32_t)widen, im != NULL, &err);
        o.file_type = ash_preset_file_type(preset);
    }
    if (st == ASH_OK && calib_path && !dry) {
        st = ash_model_load(&m, argv[0], &err);
        if (st == ASH_OK) st = ash_eval_text_load(&text, m, calib_path, &err);
        comp.model = m, comp.text = &text;
        o.compensate = comp;
    }
    if (st == ASH_OK) {
        o.recipe = recipe;
        o.widen = (uint32_t)widen;
        o.strict = strict;
        o.any_source = any_source;
        o.n_threads = g_threads;
        if (im) o.importance = ash_plan_importance(im);
        o.progress = cli_progress();
        st = dry ? ash_bake_dry(&r, g, &o, &err) : ash_bake(&r, g, argv[1], &o, &err);
        cli_progress_done();
    }
    rc = st == ASH_OK ? print(&r, recipe && preset_name ? recipe : NULL, argv[0], argv[1], ash_gguf_file_bytes(g)) : cli_fail(&err, st);
    ash_bake_result_free(&r);
    ash_eval_text_free(&text);
    ash_model_free(m);
    ash_imatrix_free(im);
    ash_recipe_free(recipe);
    ash_gguf_close(g);
    return rc;
}

const ash_cmd cmd_quantize = {
    .name = "quantize",
    .usage = "IN.gguf OUT.gguf --type TYPE | --preset NAME | --recipe FILE",
    .summary = "Write a GGUF with other types: one for all matrices, a stock preset, or a recipe.",
    .details = "Streams tensor by tensor into a file beside OUT, which is renamed at the end; the exact size is known before. Tensors that already "
               "have the wanted type are copied byte for byte.\n\n"
               "Types: F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K IQ3_S IQ3_XXS Q2_K IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S MXFP4 NVFP4 TQ2_0 TQ1_0 Q2_0 Q1_0. Types with blocks of 256 need rows that "
               "are multiples of 256; elsewhere --type uses the nearest type of at least the same bits with blocks of 32 (IQ4_NL, Q5_0, Q8_0) and says so, "
               "unless --strict, or --widen 256 makes the rows fit.\n\n"
               "--preset NAME chooses each tensor's type as llama-quantize does for that name (so --preset Q2_K is a mix, --type Q2_K is not); a name "
               "that is no type, such as Q4_K_M, may be given to --type as well. Names: Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K Q8_0 "
               "Q4_0 Q4_1 Q5_0 Q5_1 IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_XS IQ4_NL TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0 F16 BF16 F32.\n\n"
               "A recipe is JSON or lines `PATTERN = TYPE`; the first rule that matches a tensor decides. A rule that decides nothing, and a type that "
               "does not fit, are errors.",
    .opts = options,
    .min_args = 2,
    .max_args = 2,
    .json = true,
    .threads = true,
    .run = run};
