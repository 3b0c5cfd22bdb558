/* cmd_list.c - `ashlar list`: the models in the cache, or those that are known by name. */
#include "cli.h"

#include "ashlar/cache.h"

#include <jansson.h>
#include <string.h>

static bool known;

static const opt_def options[] = {{OPT_FLAG, 0, "known", NULL, "The catalogue: models that `ashlar pull NAME` can fetch.", &known},
                                  {OPT_END, 0, NULL, NULL, NULL, NULL}};

static int list_known(void) {
    ash_error err = {0};
    ash_catalogue *c;
    const char *path = cli_data_file("catalogue.json");
    char b[32];
    if (!path) {
        ash_fail(&err, ASH_E_IO, "the catalogue (catalogue.json) is not installed");
        return cli_fail(&err, ASH_E_IO);
    }
    ash_status st = ash_catalogue_load(&c, path, &err);
    if (st != ASH_OK) return cli_fail(&err, st);
    json_t *list = json_array();
    for (size_t i = 0; i < ash_catalogue_count(c); i++) {
        const ash_catalogue_model *m = ash_catalogue_at(c, i);
        if (g_json)
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:s}", "name", m->name, "about", m->about, "licence", m->licence,
                                                  "bytes", (json_int_t)m->bytes, "sha256", m->sha256));
        else
            printf("%-16s %10s  %s (%s)\n", m->name, cli_bytes(m->bytes, b), m->about, m->licence);
    }
    int rc = g_json ? cli_print_json(list) : (json_decref(list), 0);
    ash_catalogue_free(c);
    return rc;
}

static int run(int argc, char **argv) {
    (void)argc;
    (void)argv;
    ash_error err = {0};
    ash_cache_entry *e;
    size_t n;
    char b[32];
    if (known) return list_known();
    const char *dir = cli_cache_dir();
    if (!dir) {
        ash_fail(&err, ASH_E_IO, "no folder for models: neither ASHLAR_CACHE, XDG_CACHE_HOME nor HOME is set");
        return cli_fail(&err, ASH_E_IO);
    }
    ash_status st = ash_cache_list(dir, &e, &n, &err);
    if (st != ASH_OK) return cli_fail(&err, st);
    json_t *list = json_array();
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += e[i].bytes;
        if (g_json)
            json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:b, s:s, s:s, s:s}", "name", e[i].name, "file", e[i].file, "bytes",
                                                  (json_int_t)e[i].bytes, "folder", (int)e[i].folder, "source", e[i].source, "sha256",
                                                  e[i].sha256, "licence", e[i].licence));
        else
            printf("%-32s %10s  %s%s\n", e[i].name, cli_bytes(e[i].bytes, b), e[i].folder ? "folder, for convert; " : "",
                   *e[i].source ? e[i].source : "(not pulled)");
    }
    int rc = 0;
    if (g_json)
        rc = cli_print_json(json_pack("{s:s, s:I, s:o}", "cache", dir, "bytes", (json_int_t)sum, "models", list));
    else {
        if (n)
            printf("%zu in %s, %s\n", n, dir, cli_bytes(sum, b));
        else
            printf("no models in %s; `ashlar list --known` shows what can be fetched\n", dir);
        json_decref(list);
    }
    ash_cache_free(e);
    return rc;
}

const ash_cmd cmd_list = {.name = "list",
                          .usage = "[--known]",
                          .summary = "List the models that were pulled, or that can be.",
                          .details = "Pulled models lie in $ASHLAR_CACHE, else $XDG_CACHE_HOME/ashlar, else ~/.cache/ashlar; every command "
                                     "takes their names in place of a file.",
                          .opts = options,
                          .min_args = 0,
                          .max_args = 0,
                          .json = true,
                          .run = run};
