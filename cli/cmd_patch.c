/* cmd_patch.c - `ashlar patch`: change metadata, say before what breaks, and be able to take it back. */
#include "cli.h"

#include "ashlar/slice.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *out_path, *log_path;
static bool dry_run, force, undo;

static const opt_def options[] = {{OPT_STR, 'o', "output", "FILE", "Write the patched model here and leave MODEL as it is.", &out_path},
                                  {OPT_FLAG, 'n', "dry-run", NULL, "Only say what would happen.", &dry_run},
                                  {OPT_FLAG, 0, "force", NULL, "Write in spite of conflicts.", &force},
                                  {OPT_FLAG, 0, "undo", NULL, "Take back the last patch of MODEL.", &undo},
                                  {OPT_STR, 0, "log", "FILE", "Undo log (default: MODEL.undo.jsonl).", &log_path},
                                  {OPT_END, 0, NULL, NULL, NULL, NULL}};

static json_t *lines_of(const char *s) {
    json_t *a = json_array();
    while (s && *s) {
        const char *nl = strchr(s, '\n');
        size_t n = nl ? (size_t)(nl - s) : strlen(s);
        json_array_append_new(a, json_stringn(s, n));
        s += n + (nl != NULL);
    }
    return a;
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_status st;
    ash_patch_info i = {0};
    char *own_log = NULL;
    int rc = 0;
    if (undo && (argc > 1 || out_path || dry_run || force)) return cli_usage("--undo goes alone: it takes back the last patch of the log");
    if (!undo && argc < 2) return cli_usage("KEY=VALUE says what to change");
    if (out_path && strcmp(out_path, argv[0]) == 0) return cli_usage("without -o the model itself is changed");
    if (!log_path) {
        size_t cap = strlen(argv[0]) + 16;
        own_log = malloc(cap);
        if (!own_log) return cli_fail(NULL, ASH_E_NOMEM);
        snprintf(own_log, cap, "%s.undo.jsonl", argv[0]);
    }
    const char *log = log_path ? log_path : own_log;
    if (undo) {
        st = ash_patch_undo(argv[0], log, &err);
        if (st == ASH_OK && cli_is_tty(stdout)) printf("%s: as before the last patch\n", argv[0]);
        goto done;
    }
    const ash_patch_opts o = {.out = out_path, .log = log, .dry_run = dry_run, .force = force};
    st = ash_patch(&i, argv[0], (const char *const *)(argv + 1), (size_t)(argc - 1), &o, &err);
    if (st != ASH_OK && !i.conflicts) goto done;
    if (g_json) {
        rc = cli_print_json(json_pack("{s:s, s:I, s:o, s:b, s:b}", "file", out_path ? out_path : argv[0], "n_conflicts", (json_int_t)i.n_conflicts, "conflicts",
                                      lines_of(i.conflicts), "checked", (int)i.checked, "written", (int)i.written));
    } else if (st == ASH_OK) {
        if (!i.checked) printf("the architecture is not known: shapes were not compared\n");
        fputs(i.conflicts, stdout);
        if (i.n_conflicts) printf("%zu %s\n", i.n_conflicts, i.n_conflicts == 1 ? "conflict" : "conflicts");
        else if (dry_run) printf("no conflicts\n");
        if (i.written && cli_is_tty(stdout)) printf("%s: %d %s set\n", out_path ? out_path : argv[0], argc - 1, argc == 2 ? "value" : "values");
    }
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_patch_info_free(&i);
    free(own_log);
    return rc;
}

const ash_cmd cmd_patch = {
    .name = "patch",
    .usage = "MODEL KEY=VALUE... [-o OUT]",
    .summary = "Change metadata with its consequences told before, and an undo log",
    .details = "As `ashlar edit`, and more: KEY[3]=VALUE and KEY[*]=VALUE set elements of an array, KEY=[V,V,...] all of it. Before anything is written, the "
               "hyperparameters of the new metadata are read and the shapes they ask for are compared with the tensors; conflicts are listed by --dry-run, and without "
               "--force nothing is written (exit 3).\n\n"
               "What was there before goes to an undo log beside the model; --undo takes the last patch back, byte for byte.",
    .opts = options,
    .min_args = 1,
    .max_args = -1,
    .json = true,
    .run = run};
