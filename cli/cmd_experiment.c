/* cmd_experiment.c - `ashlar experiment`: published claims about low-bit models, put to the test on a model. */
#include "cli.h"

#include "ashlar/lab.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifndef _WIN32
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

static const char *text_path, *calib_path, *report_path, *scratch = ".";
static int64_t n_ctx = 256, n_chunks = 4, n_random = 3, seed = 1;
static bool no_probe;

static const opt_def options[] = {{OPT_STR, 0, "text", "FILE", "Text to measure on (default: the wikitext-2 test text that ships with the program).", &text_path},
                                  {OPT_STR, 0, "calib", "FILE", "Text for importance (default: the wikitext-2 validation text).", &calib_path},
                                  {OPT_I64, 0, "ctx", "N", "Tokens per chunk (default 256).", &n_ctx},
                                  {OPT_I64, 0, "chunks", "N", "Chunks to measure (default 4; the more, the narrower the intervals).", &n_chunks},
                                  {OPT_I64, 0, "random", "N", "Random drops to compare a slice with (default 3).", &n_random},
                                  {OPT_I64, 0, "seed", "N", "Seed of draws and bootstraps.", &seed},
                                  {OPT_STR, 0, "report", "FILE.md", "Write a report, and its plot beside it as FILE.svg.", &report_path},
                                  {OPT_STR, 0, "scratch", "DIR", "Folder for variants of the model, which are removed again (default: here).", &scratch},
                                  {OPT_FLAG, 0, "no-probe", NULL, "Leave the one-prompt probe out.", &no_probe},
                                  {OPT_END, 0, NULL, NULL, NULL, NULL}};

#ifndef _WIN32
/* In a process of its own: whatever a damaged file does to it has a status. */
static ash_probe isolated(void *ctx, const char *path, double seconds, int n_threads) {
    (void)ctx;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return ash_lab_probe(path, seconds, n_threads);
    if (child == 0) _exit((int)ash_lab_probe(path, seconds, n_threads));
    const struct timespec nap = {0, 20000000};
    time_t end = time(NULL) + (time_t)seconds + 2; /* the child watches the clock between tokens; this is for what never returns */
    for (;;) {
        int s;
        pid_t got = waitpid(child, &s, WNOHANG);
        if (got == child) return WIFEXITED(s) ? (ash_probe)WEXITSTATUS(s) : ASH_PROBE_ABORT;
        if (time(NULL) > end) {
            kill(child, SIGKILL);
            waitpid(child, &s, 0);
            return ASH_PROBE_TIMEOUT;
        }
        nanosleep(&nap, NULL);
    }
}
#endif

static int list(void) {
    json_t *a = json_array();
    for (size_t i = 0; i < ash_lab_count(); i++) {
        const ash_lab_experiment *e = ash_lab_at(i);
        if (g_json) json_array_append_new(a, json_pack("{s:s, s:s, s:s, s:s}", "name", e->name, "paper", e->paper, "claim", e->claim, "method", e->method));
        else printf("%-12s %s\n             %s\n", e->name, e->paper, e->claim);
    }
    if (g_json) return cli_print_json(a);
    json_decref(a);
    return 0;
}

static ash_status write_report(const ash_lab_result *r, const char *model, ash_error *err) {
    const char *base = strrchr(model, '/'), *dot = strrchr(report_path, '.'), *slash = strrchr(report_path, '/');
    size_t stem = dot && (!slash || dot > slash) ? (size_t)(dot - report_path) : strlen(report_path), n;
    char *svg = malloc(stem + 5), *s = NULL;
    bool plot = false;
    if (!svg) return ash_fail(err, ASH_E_NOMEM, "out of memory for a report");
    memcpy(svg, report_path, stem);
    memcpy(svg + stem, ".svg", 5);
    for (size_t i = 0; i < r->n_rows; i++) plot |= r->rows[i].has_kld;
    const char *leaf = strrchr(svg, '/');
    ash_status st = ash_lab_markdown(r, base ? base + 1 : model, plot ? leaf ? leaf + 1 : svg : NULL, &s, &n, err);
    if (st == ASH_OK) st = cli_out_write(report_path, s, n, err);
    ash_text_free(s);
    s = NULL;
    if (st == ASH_OK && plot) {
        st = ash_lab_svg(r, &s, &n, err);
        if (st == ASH_OK) st = cli_out_write(svg, s, n, err);
        ash_text_free(s);
    }
    free(svg);
    return st;
}

static int print_json(const ash_lab_result *r, const char *model) {
    json_t *rows = json_array();
    for (size_t i = 0; i < r->n_rows; i++) {
        const ash_lab_row *w = &r->rows[i];
        json_t *o = json_pack("{s:s, s:s, s:s}", "label", w->label, "probe", ash_probe_name(w->probe), "note", w->note);
        if (w->has_kld) json_object_set_new(o, "kld", json_pack("{s:f, s:f, s:f}", "value", w->kld.v, "lo", w->kld.lo, "hi", w->kld.hi));
        if (w->bpw > 0) json_object_set_new(o, "bpw_blocks", json_real(w->bpw));
        json_array_append_new(rows, o);
    }
    return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:i, s:i, s:s, s:s, s:b, s:f}", "experiment", r->what->name, "model", model, "claim", r->what->claim, "method", r->what->method,
                                    "verdict", ash_lab_verdict_name(r->verdict), "reason", r->reason, "rows", rows, "n_chunks", (int)r->n_chunks, "n_ctx", (int)r->n_ctx, "model_sha256",
                                    r->model_sha256, "text_sha256", r->text_sha256, "widened", (int)r->widened, "seconds", r->seconds));
}

static void print_text(const ash_lab_result *r) {
    printf("%s (%s)\nclaim:   %s\nmethod:  %s\n\n", r->what->name, r->what->paper, r->what->claim, r->what->method);
    for (size_t i = 0; i < r->n_rows; i++) {
        const ash_lab_row *w = &r->rows[i];
        char kld[64] = "", bpw[32] = "", probe[32] = "";
        if (w->has_kld) snprintf(kld, sizeof kld, "%.4f [%.4f, %.4f]", w->kld.v, w->kld.lo, w->kld.hi);
        if (w->bpw > 0) snprintf(bpw, sizeof bpw, "%.3f bpw", w->bpw);
        if (w->probe != ASH_PROBE_NONE) snprintf(probe, sizeof probe, "probe: %s", ash_probe_name(w->probe));
        printf("  %-24s %-26s %-10s %-16s %s\n", w->label, kld, bpw, probe, w->note);
    }
    if (r->widened) printf("\n%s\n", ASH_LAB_WIDENED);
    printf("\nverdict: %s. %s\n%u chunks of %u tokens, %.0f s; the probe is a demonstration and plays no part in the verdict\n", ash_lab_verdict_name(r->verdict), r->reason, r->n_chunks, r->n_ctx,
           r->seconds);
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_status st;
    ash_lab_result r = {0};
    ash_lab_opts o = ash_lab_defaults();
    int rc = 0;
    if (strcmp(argv[0], "list") == 0) return argc == 1 ? list() : cli_usage("list takes no model");
    const ash_lab_experiment *e = ash_lab_find(argv[0]);
    if (!e) return cli_usage("there is no experiment \"%.40s\"; `ashlar experiment list` shows them", argv[0]);
    if (argc < 2) return cli_usage("%s needs a model", e->name);
    if (argc > 2 && !e->many) return cli_usage("%s takes one model", e->name);
    if (n_ctx < 8 || n_ctx > 1 << 20) return cli_usage("--ctx must be 8 to 1048576");
    if (n_chunks < 1 || n_chunks > 1 << 20) return cli_usage("--chunks must be 1 to 1048576");
    if (n_random < 1 || n_random > 64) return cli_usage("--random must be 1 to 64");
    char *own_text = NULL;
    if (!text_path) {
        const char *p = cli_data_file("wikitext2-test.txt");
        text_path = own_text = p ? strdup(p) : NULL;
    }
    if (!calib_path) calib_path = cli_data_file("wikitext2-valid.txt");
    if (!text_path || !calib_path) {
        free(own_text);
        return cli_usage("the default texts are not installed; give --text and --calib");
    }
    cli_catch_sigint();
    o.n_ctx = (uint32_t)n_ctx;
    o.n_chunks = (uint32_t)n_chunks;
    o.n_random = (uint32_t)n_random;
    o.n_threads = g_threads;
    o.seed = (uint64_t)seed;
    o.text = text_path;
    o.calib = calib_path;
    o.scratch = scratch;
    if (no_probe) o.probe_seconds = -1;
#ifndef _WIN32
    o.probe = isolated;
#endif
    o.progress = cli_progress();
    ASH_TRY_GOTO(ash_lab_run(&r, e, (const char *const *)(argv + 1), (size_t)(argc - 1), &o, &err), done);
    cli_progress_done();
    if (report_path) ASH_TRY_GOTO(write_report(&r, argv[1], &err), done);
    if (g_json) rc = print_json(&r, argv[1]);
    else print_text(&r);
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_lab_result_free(&r);
    free(own_text);
    return rc;
}

const ash_cmd cmd_experiment = {
    .name = "experiment",
    .usage = "list | NAME MODEL... [--chunks N] [--report FILE.md]",
    .summary = "Published claims about low-bit models, tested on a model",
    .details = "`ashlar experiment list` names them: experiments 1 to 9 of the Grey Liquid Labs papers and the stability cliff. Each prints the claim, the method, figures with 95 % "
               "intervals, and a verdict: reproduced, refuted, or not testable here. Verdicts come from KL divergences. The papers' own test, one prompt and one answer, is shown "
               "beside them as a demonstration; it runs in a process of its own, and LOAD_FAIL, ABORT, NAN, TIMEOUT, LOOP, WRONG and OK are kept apart.",
    .opts = options,
    .min_args = 1,
    .max_args = -1,
    .json = true,
    .threads = true,
    .run = run};
