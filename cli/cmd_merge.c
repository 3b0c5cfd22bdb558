/* cmd_merge.c - `ashlar merge`: layers of one file in another, byte for byte. */
#include "cli.h"

#include "ashlar/slice.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *anchor, *donor, *layers, *out_path;

static const opt_def options[] = {{OPT_STR, 0, "anchor", "A", "The file that gives everything else: metadata, tokenizer, tables, all other layers.", &anchor},
                                  {OPT_STR, 0, "donor", "B", "The file that gives the layers.", &donor},
                                  {OPT_STR, 0, "layers", "RULE", "Layers to take from the donor: 30-40, or any rule of `ashlar slice`.", &layers},
                                  {OPT_STR, 'o', "output", "FILE", "The result.", &out_path},
                                  {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* Layers of a file by its header alone; 0 when it does not say. */
static ash_status layer_count(const char *path, uint32_t *n, ash_error *err) {
    ash_gguf *g = NULL;
    ash_str a;
    uint64_t v = 0;
    char key[96];
    ASH_TRY(ash_gguf_open(&g, path, err));
    if (ash_gguf_get_str(g, "general.architecture", &a) && a.n < 64) {
        snprintf(key, sizeof key, "%.*s.block_count", (int)a.n, a.p);
        ash_gguf_get_u64(g, key, &v);
    }
    ash_gguf_close(g);
    if (v == 0 || v > 65535) return ash_fail(err, ASH_E_FORMAT, "%s does not say how many layers it has", path);
    *n = (uint32_t)v;
    return ASH_OK;
}

static int run(int argc, char **argv) {
    (void)argc, (void)argv;
    ash_error err = {0}, none = {0};
    ash_status st;
    ash_model *m = NULL;
    uint32_t *l = NULL, n = 0, n_layer = 0;
    ash_merge_info i = {0};
    char b[32], d[32];
    int rc = 0;
    if (!anchor || !donor || !layers || !out_path) return cli_usage("--anchor, --donor, --layers and -o are needed");
    if (strcmp(anchor, out_path) == 0 || strcmp(donor, out_path) == 0) return cli_usage("the output would replace its own source");
    cli_catch_sigint();
    ash_progress p = cli_progress();
    ASH_TRY_GOTO(layer_count(anchor, &n_layer, &err), done);
    if (ash_model_load(&m, anchor, &none) != ASH_OK) m = NULL; /* numbers need no model */
    ASH_TRY_GOTO(ash_layers_parse(&l, &n, m, n_layer, layers, 1, &err), done);
    ASH_TRY_GOTO(ash_merge(&i, anchor, donor, l, n, out_path, &p, &err), done);
    cli_progress_done();
    if (g_json) {
        rc = cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:i, s:b, s:s, s:s, s:s}", "file", out_path, "bytes", (json_int_t)i.file_bytes, "tensors",
                                      (json_int_t)i.n_tensors, "from_donor", (json_int_t)i.n_donor, "donor_bytes", (json_int_t)i.donor_bytes, "layers", (int)n, "identity",
                                      (int)i.identity, "anchor_sha256", i.sha_anchor, "donor_sha256", i.sha_donor, "differing_keys", i.note));
    } else {
        printf("%s: %zu of %zu tensors (%s) of %u layers from the donor, %s; every tensor compared after writing\n", out_path, i.n_donor, i.n_tensors,
               cli_bytes(i.donor_bytes, b), n, cli_bytes(i.file_bytes, d));
        printf("  anchor %s\n  donor  %s\n", i.sha_anchor, i.sha_donor);
        if (i.identity) printf("  both are the same file, and so is the result\n");
        if (i.note[0]) printf("  note: these keys differ, the anchor's are kept: %s\n", i.note);
    }
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_layers_free(l);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_merge = {
    .name = "merge",
    .usage = "--anchor A --donor B --layers 30-40 -o OUT",
    .summary = "Layers of one file in another, byte for byte",
    .details = "All tensors of the layers come from the donor, everything else from the anchor, without any change of a byte, which is compared after writing. Both must "
               "have the same architecture, layers, shapes and vocabulary; their types may differ, which is what merging is for. The SHA-256 of both files and the layers "
               "are noted in the metadata. The same file as anchor and donor gives that file back, byte for byte.",
    .opts = options,
    .min_args = 0,
    .max_args = 0,
    .json = true,
    .run = run};
