/* cmd_front.c - `ashlar front`: size against divergence over many sizes, beside the stock presets: CSV, picture, JSON. */
#include "cli.h"
#include "model_args.h"

#include "ashlar/fit.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIZES = 256, MAX_PRESETS = 64 };

static int64_t seed = 1;
static double kld;
static const char *sizes_arg, *presets_arg = "all", *out, *plot, *report, *workdir, *effort = "normal", *ref, *types, *sweep_types,
                              *baseline = "none";
static opt_list calib, test;
static bool keep, compensate = true, widen_ok = true, widen_always;
static ash_status written = ASH_OK;
static ash_error write_err;

static const opt_def options[] = {
    {OPT_STR, 0, "sizes", "N|LIST",
     "How many sizes, evenly spaced, or the sizes of the files: 80MB,90MB,100MB. Default 8, or none with --kld.", &sizes_arg},
    {OPT_STR, 0, "presets", "LIST",
     "Stock presets to measure beside them, made with our encoders and the same importance: all (default), none, or names such as "
     "Q2_K,Q4_K_M.",
     &presets_arg},
    {OPT_STR, 0, "baseline", "LIST", "Baselines at the same sizes: lagrange, lagrange-rel, or both (default none).", &baseline},
    {OPT_F64, 0, "kld", "NATS", "Look for the smallest file that measures at or below this divergence.", &kld},
    {OPT_STR, 'o', "output", "FILE", "The table (CSV); rewritten after every row.", &out},
    {OPT_STR, 0, "plot", "FILE", "The picture (SVG).", &plot},
    {OPT_STR, 0, "report", "FILE", "Also a self-contained HTML page: both charts and the table.", &report},
    {OPT_FLAG, 0, "keep", NULL, "Leave fits and baselines in the work directory (fit-BYTES.gguf by their budgets).", &keep},
    {OPT_STR, 0, "workdir", "DIR", "Where stages and measured rows are kept for a later run (default: OUTPUT.work).", &workdir},
    {OPT_LIST, 0, "calib", "FILE", "Calibration text; may be repeated. Default: a piece of WikiText-2.", &calib},
    {OPT_LIST, 0, "test", "FILE", "Held-out text that files are measured on; may be repeated. Default: another piece of WikiText-2.",
     &test},
    {OPT_STR, 0, "ref", "MODEL", "What counts as the original (default: the model as given).", &ref},
    {OPT_STR, 0, "effort", "LEVEL", "quick (no sweep), normal, or high.", &effort},
    {OPT_STR, 0, "allow-types", "LIST", "Types to choose from, separated by commas (default: the standard types).", &types},
    {OPT_STR, 0, "sweep-types", "LIST", "Types that the sweep measures each matrix in, at most 4 (default Q4_0,Q2_K).", &sweep_types},
    {OPT_FLAG, 0, "widen", NULL, "Weigh widening rows to multiples of 256 (default; --no-widen forbids it).", &widen_ok},
    {OPT_FLAG, 0, "always-widen", NULL, "Widen in any case.", &widen_always},
    {OPT_FLAG, 0, "compensate", NULL, "Round fits and baselines with second moments, as fit does (default).", &compensate},
    {OPT_I64, 0, "seed", "N", "Seed of intervals and sweep (default 1).", &seed},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static void say(void *ctx, const char *line) {
    (void)ctx;
    cli_progress_done();
    fprintf(g_json ? stderr : stdout, "%s\n", line);
    fflush(g_json ? stderr : stdout);
}

static const char *const kinds[ASH_RF_COUNT] = {"fit", "uniform", "random", "source", "preset", "baseline"};

static void num(FILE *f, double v, const char *fmt) {
    fputc(',', f);
    if (isfinite(v)) fprintf(f, fmt, v);
}

static ash_status write_csv(const ash_front_row *rows, size_t n, ash_error *err) {
    cli_out o;
    ASH_TRY(cli_out_open(&o, out, err));
    fputs("file,kind,bytes,bpw,bpw_blocks,kld,kld_lo,kld_hi,same_top1,ppl,predicted_kld,pareto\n", o.f);
    for (size_t i = 0; i < n; i++) {
        const ash_front_row *x = &rows[i];
        fprintf(o.f, "%s,%s,%llu,%.4f,%.4f", x->label, kinds[x->kind], (unsigned long long)x->bytes, x->bpw, x->bpw_blocks);
        num(o.f, x->kld.v, "%.6g"), num(o.f, x->kld.lo, "%.6g"), num(o.f, x->kld.hi, "%.6g"), num(o.f, x->top1.v, "%.5f"),
            num(o.f, x->ppl.v, "%.4f"), num(o.f, x->predicted_kld, "%.6g");
        fprintf(o.f, ",%d\n", x->pareto);
    }
    ash_status st = ferror(o.f) ? cli_out_failed(&o, err) : ASH_OK;
    return cli_out_close(&o, st, err);
}

static void on_rows(void *ctx, const ash_front_row *rows, size_t n) {
    char a[32];
    const ash_front_row *x = &rows[n - 1];
    (void)ctx;
    cli_progress_done();
    if (!g_json) {
        if (n == 1)
            printf("%-24s %10s %6s %6s  %-24s %7s %8s %9s\n", "file", "size", "bpw", "blocks", "KLD (95 %)", "top-1", "PPL", "predicted");
        printf("%-24s %10s %6.3f %6.3f  %.4f (%.4f-%.4f) %9.2f%% %8.3f ", x->label, cli_bytes(x->bytes, a), x->bpw, x->bpw_blocks, x->kld.v,
               x->kld.lo, x->kld.hi, 100 * x->top1.v, x->ppl.v);
        if (isfinite(x->predicted_kld))
            printf("%9.4f\n", x->predicted_kld);
        else
            printf("%9s\n", "-");
        fflush(stdout);
    }
    if (out && written == ASH_OK) written = write_csv(rows, n, &write_err);
}

static ash_status draw(const ash_front_result *r, ash_error *err) {
    ash_report_file *f = calloc(r->n + 1, sizeof *f);
    char *s = NULL;
    size_t n = 0;
    if (!f) return ash_fail(err, ASH_E_NOMEM, "out of memory for the picture");
    for (size_t i = 0; i < r->n; i++) {
        const ash_front_row *x = &r->rows[i];
        f[i] = (ash_report_file){x->kind, x->label, x->bytes, x->bpw, x->bpw_blocks, x->predicted_kld, x->kld, x->top1, x->ppl};
    }
    ash_report rep = {.model = r->model, .files = f, .n_files = r->n, .n_ctx = r->n ? r->rows[0].n_ctx : 0, .n_chunks = r->n ? r->rows[0].n_chunks : 0};
    ash_status st = ASH_OK;
    for (int page = 0; page < 2 && st == ASH_OK; page++) {
        const char *path = page ? report : plot;
        if (!path) continue;
        st = page ? ash_report_front_html(&rep, &s, &n, err) : ash_report_svg(&rep, &s, &n, err);
        if (st == ASH_OK) st = cli_out_write(path, s, n, err);
        ash_report_free(s);
        s = NULL;
    }
    free(f);
    return st;
}

static json_t *est(ash_report_est e) {
    return isfinite(e.v) && isfinite(e.lo) && isfinite(e.hi) ? json_pack("{s:f,s:f,s:f}", "value", e.v, "lo", e.lo, "hi", e.hi)
                                                             : json_null();
}

static int print_json(const ash_front_result *r, const char *model) {
    json_t *o = json_object(), *a = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const ash_front_row *x = &r->rows[i];
        json_t *j = json_object();
        json_object_set_new(j, "file", json_string(x->label));
        json_object_set_new(j, "kind", json_string(kinds[x->kind]));
        if (*x->path) json_object_set_new(j, "path", json_string(x->path));
        json_object_set_new(j, "bytes", json_integer((json_int_t)x->bytes));
        if (x->budget) json_object_set_new(j, "budget", json_integer((json_int_t)x->budget));
        json_object_set_new(j, "bpw", json_real(x->bpw));
        json_object_set_new(j, "bpw_blocks", json_real(x->bpw_blocks));
        json_object_set_new(j, "kld", est(x->kld));
        json_object_set_new(j, "same_top1", est(x->top1));
        json_object_set_new(j, "ppl", est(x->ppl));
        json_object_set_new(j, "predicted_kld", isfinite(x->predicted_kld) ? json_real(x->predicted_kld) : json_null());
        json_object_set_new(j, "reused", json_boolean(x->reused));
        json_object_set_new(j, "pareto", json_boolean(x->pareto));
        json_array_append_new(a, j);
    }
    json_object_set_new(o, "model", json_string(model));
    if (r->n) {
        json_object_set_new(o, "n_ctx", json_integer(r->rows[0].n_ctx));
        json_object_set_new(o, "n_chunks", json_integer(r->rows[0].n_chunks));
    }
    if (kld > 0) {
        json_object_set_new(o, "kld_wanted", json_real(kld));
        if (r->smallest != SIZE_MAX) json_object_set_new(o, "smallest", json_integer((json_int_t)r->smallest));
    }
    json_object_set_new(o, "rows", a);
    return cli_print_json(o);
}

/* "8" or "80MB,90MB": how many, -1 after a message; *list stays empty for a count. */
static int parse_sizes(const char *s, uint64_t list[MAX_SIZES], bool *listed) {
    char *end;
    errno = 0;
    long n = strtol(s, &end, 10);
    *listed = false;
    if (!*end && end != s && !errno && n >= 1 && n <= MAX_SIZES) return (int)n;
    *listed = true;
    int k = 0;
    char one[32];
    while (*s) {
        size_t len = strcspn(s, ",");
        int64_t v;
        if (len == 0 || len >= sizeof one || k == MAX_SIZES)
            return cli_usage("--sizes takes a number up to %d, or sizes such as 80MB,90MB", MAX_SIZES), -1;
        memcpy(one, s, len);
        one[len] = 0;
        if (!cli_parse_bytes(one, &v) || v <= 0) return cli_usage("--sizes: \"%.31s\" is no size", one), -1;
        list[k++] = (uint64_t)v;
        s += len + (s[len] == ',');
    }
    return k ? k : (cli_usage("--sizes takes a number, or sizes such as 80MB,90MB"), -1);
}

/* All general presets but the float ones, none, or those named. */
static int parse_presets(const char *s, size_t list[MAX_PRESETS]) {
    int n = 0;
    char one[32];
    if (strcmp(s, "none") == 0) return 0;
    if (strcmp(s, "all") == 0) {
        for (size_t i = 0; i < ash_preset_count() && n < MAX_PRESETS; i++) {
            const char *p = ash_preset_name(i);
            if (ash_preset_general(i) && strcmp(p, "F32") != 0 && strcmp(p, "F16") != 0 && strcmp(p, "BF16") != 0) list[n++] = i;
        }
        return n;
    }
    while (*s) {
        size_t len = strcspn(s, ",");
        if (len == 0 || len >= sizeof one || n == MAX_PRESETS)
            return cli_usage("--presets takes all, none, or names such as Q2_K,Q4_K_M"), -1;
        memcpy(one, s, len);
        one[len] = 0;
        if (!ash_preset_find(one, &list[n])) return cli_usage("unknown preset \"%.31s\"", one), -1;
        n++;
        s += len + (s[len] == ',');
    }
    return n;
}

static bool parse_baseline(const char *s, bool *abs_, bool *rel) {
    while (*s) {
        size_t len = strcspn(s, ",");
        if (len == 8 && strncmp(s, "lagrange", 8) == 0)
            *abs_ = true;
        else if (len == 12 && strncmp(s, "lagrange-rel", 12) == 0)
            *rel = true;
        else if (!(len == 4 && strncmp(s, "none", 4) == 0))
            return false;
        s += len + (s[len] == ',');
    }
    return true;
}

static int run(int argc, char **argv) {
    static ash_dtype list[ASH_DTYPE_MAX], swept[4];
    static uint64_t sizes[MAX_SIZES];
    static size_t presets[MAX_PRESETS];
    static char dir[4096];
    ash_error err = {0};
    ash_front_result r = {0};
    ash_front_opts o = {.fit = ash_fit_defaults(), .keep = keep, .kld = kld};
    const char *def_calib = NULL, *def_test = NULL;
    bool listed = false;
    int n;
    (void)argc;
    if (!out) return cli_usage("-o names the table to write");
    if (kld < 0) return cli_usage("--kld takes a positive divergence");
    if (strcmp(effort, "quick") == 0)
        o.fit.effort = ASH_EFFORT_QUICK;
    else if (strcmp(effort, "high") == 0)
        o.fit.effort = ASH_EFFORT_HIGH;
    else if (strcmp(effort, "normal") != 0)
        return cli_usage("--effort is quick, normal or high, not \"%.40s\"", effort);
    if (widen_always && !widen_ok) return cli_usage("--always-widen and --no-widen contradict each other");
    if (!parse_baseline(baseline, &o.lagrange, &o.lagrange_rel))
        return cli_usage("--baseline is lagrange, lagrange-rel, or both with a comma");
    if (sizes_arg || !(kld > 0)) {
        if ((n = parse_sizes(sizes_arg ? sizes_arg : "8", sizes, &listed)) < 0) return 2;
        o.n_sizes = (size_t)n;
        o.sizes = listed ? sizes : NULL;
    }
    if ((n = parse_presets(presets_arg, presets)) < 0) return 2;
    o.presets = presets, o.n_presets = (size_t)n;
    if (types) {
        if ((n = cli_parse_types("--allow-types", types, list, ASH_DTYPE_MAX)) < 0) return 2;
        o.fit.types = list, o.fit.n_types = (size_t)n;
    }
    if (sweep_types) {
        if ((n = cli_parse_types("--sweep-types", sweep_types, swept, 4)) < 0) return 2;
        o.fit.sweep_types = swept, o.fit.n_sweep_types = (size_t)n;
    }
    if (calib.n == 0) {
        if (!(def_calib = cli_data_file("wikitext2-valid.txt")))
            return cli_usage("the default calibration text is not installed; give --calib");
        calib.v[calib.n++] = def_calib = strdup(def_calib);
    }
    if (test.n == 0) {
        if (!(def_test = cli_data_file("wikitext2-test.txt"))) return cli_usage("the default test text is not installed; give --test");
        test.v[test.n++] = def_test = strdup(def_test);
    }
    if (snprintf(dir, sizeof dir, "%s%s", workdir ? workdir : out, workdir ? "" : ".work") >= (int)sizeof dir)
        return cli_usage("the name of the work directory is too long");
    o.fit.model = argv[0], o.fit.ref = ref, o.fit.workdir = dir;
    o.fit.calib = calib.v, o.fit.n_calib = (size_t)calib.n;
    o.fit.test = test.v, o.fit.n_test = (size_t)test.n;
    o.fit.widen = widen_always ? 1 : widen_ok ? -1 : 0;
    o.fit.plain = !compensate;
    o.fit.seed = (uint64_t)seed;
    o.fit.n_threads = g_threads;
    o.fit.progress = cli_progress();
    o.fit.say = say;
    o.rows = on_rows;
    cli_catch_sigint();
    ash_status st = cli_out_check(out, &err); /* before an hour of work */
    if (st == ASH_OK && plot) st = cli_out_check(plot, &err);
    if (st == ASH_OK && report) st = cli_out_check(report, &err);
    if (st == ASH_OK) st = ash_front(&r, &o, &err);
    cli_progress_done();
    if (st == ASH_OK && written != ASH_OK) st = written, err = write_err;
    if (st == ASH_OK) st = draw(&r, &err);
    int rc = st == ASH_OK ? 0 : cli_fail(&err, st);
    if (st == ASH_E_CANCELLED) fprintf(stderr, "what was measured is kept in %s; the same command continues there\n", dir);
    if (st == ASH_OK && g_json)
        rc = print_json(&r, argv[0]);
    else if (st == ASH_OK) {
        char a[32];
        if (r.smallest != SIZE_MAX)
            printf("smallest with KLD <= %g: %s (%llu bytes), KLD %.4f; `ashlar fit --size %llu` makes it\n", kld,
                   cli_bytes(r.rows[r.smallest].bytes, a), (unsigned long long)r.rows[r.smallest].bytes, r.rows[r.smallest].kld.v,
                   (unsigned long long)r.rows[r.smallest].budget);
        printf("table: %s%s%s\n", out, plot ? ", picture: " : "", plot ? plot : "");
    }
    ash_front_result_free(&r);
    free((char *)def_calib);
    free((char *)def_test);
    return rc;
}

const ash_cmd cmd_front = {
    .name = "front",
    .usage = "MODEL [--sizes 8] [--presets all] -o FRONT.csv [--plot FRONT.svg]",
    .summary = "Size against damage: fits at many sizes beside the stock presets, measured alike.",
    .details = "One importance matrix, one sweep and one reference serve all sizes. Every size is planned, refined, rounded and measured "
               "as `ashlar fit` does it; presets are made with the same "
               "encoders and importance, plainly rounded. KLD is KL(original || file) in nats per token on the held-out text, with a 95 % "
               "interval over its chunks.\n\n"
               "The table has one row per file: kind (fit, baseline, preset), bytes, bits per weight of the whole file and of the blocks, "
               "KLD, share of equal top tokens, perplexity, predicted KLD, "
               "and whether no other row is as small and better. An estimate comes first. Rows that were measured are kept in the work "
               "directory: the same command continues, and another list of "
               "sizes uses what is there.\n\n"
               "--kld X looks for the smallest file at or below X nats (three to six files are made); `ashlar fit --kld X` writes it.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
