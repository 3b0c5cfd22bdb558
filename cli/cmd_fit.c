/* cmd_fit.c - `ashlar fit`: the main job. Options, default texts, the table at the end, the report. */
#include "cli.h"
#include "model_args.h"

#include "ashlar/fit.h"

#include <stdlib.h>
#include <string.h>

static int64_t size, ram, ctx = 2048, controls = 3, seed = 1;
static double bpw, kld;
static const char *out, *report, *workdir, *effort = "normal", *ref, *types, *method, *sweep_types;
static opt_list calib, test;
static bool widen_always, widen_ok = true, compensate = true;

static const opt_def options[] = {
    {OPT_BYTES, 0, "size", "BYTES", "Budget: size of the whole file, e.g. 85MB (decimal) or 80MiB.", &size},
    {OPT_F64, 0, "bpw", "BITS", "Budget: bits per weight of the whole file.", &bpw},
    {OPT_BYTES, 0, "ram", "BYTES", "Budget: memory of a running model, weights plus context (--ctx) plus scratch.", &ram},
    {OPT_F64, 0, "kld", "NATS", "Budget: the smallest file that measures at or below this divergence on the test text.", &kld},
    {OPT_I64, 0, "ctx", "N", "With --ram: tokens of context to make room for (default 2048).", &ctx},
    {OPT_STR, 'o', "output", "FILE", "The file to write.", &out},
    {OPT_STR, 0, "report", "FILE", "Also write a self-contained HTML report.", &report},
    {OPT_LIST, 0, "calib", "FILE", "Calibration text (importance, sweep, refinement); may be repeated. Default: a piece of WikiText-2.", &calib},
    {OPT_LIST, 0, "test", "FILE", "Held-out text for the proof; may be repeated. Default: another piece of WikiText-2.", &test},
    {OPT_STR, 0, "ref", "MODEL", "What counts as the original (default: the model as given).", &ref},
    {OPT_I64, 0, "controls", "N", "Random mixes of the same size to beat (default 3); -1: no control file of any kind.", &controls},
    {OPT_STR, 0, "effort", "LEVEL", "quick (no sweep), normal, or high.", &effort},
    {OPT_STR, 0, "allow-types", "LIST", "Types to choose from, separated by commas (default: the standard types).", &types},
    {OPT_STR, 0, "sweep-types", "LIST", "Types that the sweep measures each matrix in, at most 4 (default: two around the budget's mean bits). Fits to several sizes with the same list and one --workdir share the sweep.", &sweep_types},
    {OPT_STR, 0, "method", "NAME", "What the plan minimises: damage (default), or the baselines lagrange and lagrange-rel (docs/plan.md), which take neither sweep nor refinement.", &method},
    {OPT_FLAG, 0, "widen", NULL, "Weigh widening rows to multiples of 256 (default; --no-widen forbids it).", &widen_ok},
    {OPT_FLAG, 0, "always-widen", NULL, "Widen in any case.", &widen_always},
    {OPT_FLAG, 0, "compensate", NULL, "Round the finished file with the second moments of its matrices' inputs (default, but with --effort quick and short calibration texts; --no-compensate forbids it).", &compensate},
    {OPT_I64, 0, "seed", "N", "Seed of intervals, sweep and controls (default 1).", &seed},
    {OPT_STR, 0, "workdir", "DIR", "Where results of the stages are kept for a later run (default: OUTPUT.fit).", &workdir},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static void say(void *ctx_, const char *line) {
    (void)ctx_;
    cli_progress_done();
    fprintf(g_json ? stderr : stdout, "%s\n", line);
    fflush(g_json ? stderr : stdout);
}

static ash_status publish(const ash_fit_result *r, ash_error *err) {
    char *s = NULL;
    size_t n;
    ash_status st = ASH_OK;
    if (report) {
        st = ash_report_html(ash_fit_report(r), &s, &n, err);
        if (st == ASH_OK) st = cli_out_write(report, s, n, err);
        ash_report_free(s);
        s = NULL;
        if (st != ASH_OK) return st;
    }
    st = g_json ? ash_report_json(ash_fit_report(r), &s, &n, err) : ash_report_table(ash_fit_report(r), &s, &n, err);
    if (st == ASH_OK) {
        if (!g_json) putchar('\n');
        fputs(s, stdout);
        if (!g_json && report) printf("report: %s\n", report);
    }
    ash_report_free(s);
    return st;
}

static int run(int argc, char **argv) {
    static ash_dtype list[ASH_DTYPE_MAX], swept[4];
    static char command[2048];
    ash_error err = {0};
    ash_fit_result *r = NULL;
    ash_fit_opts o = ash_fit_defaults();
    const char *def_calib = NULL, *def_test = NULL;
    (void)argc;
    if (!out) return cli_usage("-o names the file to write");
    if ((size > 0) + (bpw > 0) + (ram > 0) + (kld > 0) != 1) return cli_usage("give one budget: --size, --bpw, --ram or --kld");
    if (controls < -1 || controls > 100) return cli_usage("--controls takes -1 to 100");
    if (ctx < 1 || ctx > 1 << 20) return cli_usage("--ctx takes 1 to 1048576");
    if (strcmp(effort, "quick") == 0) o.effort = ASH_EFFORT_QUICK;
    else if (strcmp(effort, "high") == 0) o.effort = ASH_EFFORT_HIGH;
    else if (strcmp(effort, "normal") != 0) return cli_usage("--effort is quick, normal or high, not \"%.40s\"", effort);
    if (widen_always && !widen_ok) return cli_usage("--always-widen and --no-widen contradict each other");
    if (types) {
        int n = cli_parse_types("--allow-types", types, list, ASH_DTYPE_MAX);
        if (n < 0) return 2;
        o.types = list;
        o.n_types = (size_t)n;
    }
    if (sweep_types) {
        int n = cli_parse_types("--sweep-types", sweep_types, swept, 4);
        if (n < 0) return 2;
        o.sweep_types = swept;
        o.n_sweep_types = (size_t)n;
    }
    if (method && !ash_plan_method_parse(method, &o.method)) return cli_usage("--method is damage, lagrange or lagrange-rel, not \"%.40s\"", method);
    if (calib.n == 0) {
        if (!(def_calib = cli_data_file("wikitext2-valid.txt"))) return cli_usage("the default calibration text is not installed; give --calib");
        calib.v[calib.n++] = def_calib = strdup(def_calib);
    }
    if (test.n == 0) {
        if (!(def_test = cli_data_file("wikitext2-test.txt"))) return cli_usage("the default test text is not installed; give --test");
        test.v[test.n++] = def_test = strdup(def_test);
    }
    o.model = argv[0];
    o.out = out;
    o.ref = ref;
    o.budget = size > 0 ? ASH_BUDGET_SIZE : bpw > 0 ? ASH_BUDGET_BPW : kld > 0 ? ASH_BUDGET_KLD : ASH_BUDGET_RAM;
    o.amount = size > 0 ? (double)size : bpw > 0 ? bpw : kld > 0 ? kld : (double)ram;
    o.n_ctx = (uint32_t)ctx;
    o.calib = calib.v, o.n_calib = (size_t)calib.n;
    o.test = test.v, o.n_test = (size_t)test.n;
    o.widen = widen_always ? 1 : widen_ok ? -1 : 0;
    o.controls = (int)controls;
    o.plain = !compensate;
    o.seed = (uint64_t)seed;
    o.n_threads = g_threads;
    o.workdir = workdir;
    if (bpw > 0 || kld > 0) snprintf(command, sizeof command, "ashlar fit %s --%s %g -o %s --effort %s --controls %d --seed %lld", argv[0], bpw > 0 ? "bpw" : "kld", o.amount, out, effort, (int)controls, (long long)seed);
    else snprintf(command, sizeof command, "ashlar fit %s --%s %lld -o %s --effort %s --controls %d --seed %lld", argv[0], size > 0 ? "size" : "ram", (long long)(size > 0 ? size : ram), out, effort,
                  (int)controls, (long long)seed);
    o.command = command;
    o.progress = cli_progress();
    o.say = say;
    cli_catch_sigint();
    ash_status st = cli_out_check(out, &err); /* before minutes of work */
    if (st == ASH_OK && report) st = cli_out_check(report, &err);
    if (st == ASH_OK) st = ash_fit(&r, &o, &err);
    cli_progress_done();
    if (st == ASH_OK) st = publish(r, &err);
    int rc = st == ASH_OK ? 0 : cli_fail(&err, st);
    if (st == ASH_E_CANCELLED) fprintf(stderr, "what was measured is kept in %s%s; the same command continues there\n", workdir ? workdir : out, workdir ? "" : ".fit");
    ash_fit_result_free(r);
    free((char *)def_calib);
    free((char *)def_test);
    return rc;
}

const ash_cmd cmd_fit = {
    .name = "fit",
    .usage = "MODEL --size BYTES -o OUT.gguf [--report OUT.html]",
    .summary = "Measure a model, make the best GGUF for a budget, and prove it on held-out text.",
    .details = "Stages: importance matrix, knockout sweep (what each matrix can lose), plan (a type per matrix, least predicted damage within the budget), "
               "refinement by measured divergence, quantization, proof on the test text, controls (the best single type that fits, random mixes of the same "
               "size). An estimate of time, memory and disk comes first.\n\n"
               "Ctrl-C ends it at the next checkpoint and leaves an existing output as it was; the same command continues. Calibration and test text may share "
               "at most 0.1 % of their 16-word windows.\n\n"
               "KLD is KL(original || file) in nats per token, with a 95 % interval over the test text's chunks.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
