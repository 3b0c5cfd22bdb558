/* cmd_doctor.c - `ashlar doctor`: is this file broken, and where, without the model it was made from. */
#include "cli.h"

#include "ashlar/doctor.h"

#include <jansson.h>

static bool no_run, list, all;
static const char *imatrix;

static const opt_def options[] = {
    {OPT_FLAG, 0, "quick", NULL, "Read the file only; no forward pass.", &no_run},
    {OPT_STR, 0, "imatrix", "FILE", "Hold this importance matrix against the model: missing, of another shape, empty.", &imatrix},
    {OPT_FLAG, 0, "all", NULL, "Every finding, not the first eight of a kind.", &all},
    {OPT_FLAG, 0, "list", NULL, "List the checks and what they mean; no file is needed.", &list},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static const char *const k_severity[] = {"info", "warning", "error"};
static const char *const k_verdict[] = {"healthy", "healthy, with warnings", "ill"};
enum { SHOWN = 8, ILL = 1 };

static int print_list(void) {
    json_t *a = g_json ? json_array() : NULL;
    for (int i = 0; i < ASH_DOC_COUNT; i++) {
        const ash_doc_info c = ash_doctor_check(i);
        if (a)
            json_array_append_new(a, json_pack("{s:s, s:s, s:b, s:s, s:s}", "id", c.id, "severity", k_severity[c.severity], "needs_run",
                                               (int)c.needs_run, "text", c.text, "advice", c.advice));
        else
            printf("%-16s %-8s %-4s %s; %s\n", c.id, k_severity[c.severity], c.needs_run ? "run" : "", c.text, c.advice);
    }
    return a ? cli_print_json(a) : 0;
}

/* Bytes of a broken file may stand in a sentence: what is not UTF-8 becomes '?'. */
static json_t *text_of(const char *s) {
    char buf[sizeof((ash_doc_finding *)0)->what];
    json_t *j = json_string(s);
    if (j) return j;
    snprintf(buf, sizeof buf, "%s", s);
    for (char *p = buf; *p; p++)
        if (*p & 0x80) *p = '?';
    return json_string(buf);
}

static int print_json(const char *path, const ash_doctor *d) {
    json_t *f = json_array();
    for (size_t i = 0; i < ash_doctor_n(d); i++) {
        const ash_doc_finding *x = ash_doctor_at(d, i);
        const ash_doc_info c = ash_doctor_check((int)x->check);
        json_array_append_new(f, json_pack("{s:s, s:s, s:o, s:o, s:s, s:s}", "check", c.id, "severity", k_severity[c.severity], "where",
                                           text_of(x->where), "what", text_of(x->what), "text", c.text, "advice", c.advice));
    }
    return cli_print_json(json_pack("{s:o, s:s, s:b, s:b, s:f, s:o}", "file", text_of(path), "verdict", k_verdict[ash_doctor_verdict(d)],
                                    "ill", (int)(ash_doctor_verdict(d) == ASH_DOC_ERROR), "ran", (int)ash_doctor_ran(d), "nats_per_token",
                                    ash_doctor_nll(d), "findings", f));
}

static void print_text(const char *path, const ash_doctor *d) {
    size_t seen[ASH_DOC_COUNT] = {0};
    for (int sev = ASH_DOC_ERROR; sev >= ASH_DOC_INFO; sev--)
        for (size_t i = 0; i < ash_doctor_n(d); i++) {
            const ash_doc_finding *x = ash_doctor_at(d, i);
            const ash_doc_info c = ash_doctor_check((int)x->check);
            if ((int)c.severity != sev || (seen[x->check]++ >= SHOWN && !all)) continue;
            printf("%-8s %-16s %s%s%s\n", k_severity[c.severity], c.id, x->where, *x->where ? ": " : "", x->what);
            if (seen[x->check] == 1 && sev > ASH_DOC_INFO) printf("%25s %s: %s\n", "", c.text, c.advice);
        }
    for (int k = 0; k < ASH_DOC_COUNT; k++)
        if (seen[k] > SHOWN && !all) printf("         %-16s %zu more (--all)\n", ash_doctor_check(k).id, seen[k] - SHOWN);
    if (ash_doctor_ran(d)) printf("plain English: %.2f nats per token\n", ash_doctor_nll(d));
    printf("%s: %s\n", path, k_verdict[ash_doctor_verdict(d)]);
}

static int run(int argc, char **argv) {
    if (list) return print_list();
    if (argc != 1) return cli_usage("a file is needed");
    ash_error err = {0};
    ash_doctor *d;
    ash_doctor_opts o = ash_doctor_defaults();
    o.no_run = no_run;
    o.imatrix = imatrix;
    o.n_threads = g_threads;
    o.progress = cli_progress();
    cli_catch_sigint();
    ash_status st = ash_doctor_new(&d, argv[0], &o, &err);
    cli_progress_done();
    if (st != ASH_OK) return cli_fail(&err, st);
    int rc = 0;
    if (g_json)
        rc = print_json(argv[0], d);
    else
        print_text(argv[0], d);
    if (rc == 0 && ash_doctor_verdict(d) == ASH_DOC_ERROR) rc = ILL;
    ash_doctor_free(d);
    return rc;
}

const ash_cmd cmd_doctor = {.name = "doctor",
                            .usage = "MODEL",
                            .summary = "Say whether a file is broken, and where, without the model it was made from.",
                            .details = "Reads every weight once: values that are not finite, zeros and holes, repeated rows, pieces and "
                                       "tensors, scales unlike the other rows' and layers'; whether the matrices "
                                       "of a layer go together, which swapped and transposed ones do not; shapes, hyperparameters, "
                                       "vocabulary, stop tokens and chat template; the other parts of a split model; "
                                       "then, for models of 4,096 words or more, one forward pass over plain English.\n\n"
                                       "Exit code 0: healthy, perhaps with warnings. 1: ill. Others: the file could not be opened. What a "
                                       "file alone cannot show (weights a little off, another model's weights "
                                       "of the same shape; docs/doctor.md has the list) needs its source: `ashlar eval --ref`.",
                            .opts = options,
                            .min_args = 0,
                            .max_args = 1,
                            .json = true,
                            .threads = true,
                            .run = run};
