/* cmd_rm.c - `ashlar rm`: remove models from the cache. */
#include "cli.h"

#include "ashlar/cache.h"

static int run(int argc, char **argv) {
    ash_error err = {0};
    const char *dir = cli_cache_dir();
    char b[32];
    if (!dir) {
        ash_fail(&err, ASH_E_IO, "no folder for models: neither ASHLAR_CACHE, XDG_CACHE_HOME nor HOME is set");
        return cli_fail(&err, ASH_E_IO);
    }
    for (int i = 0; i < argc; i++) {
        uint64_t bytes;
        ash_status st = ash_cache_remove(dir, argv[i], &bytes, &err);
        if (st != ASH_OK) return cli_fail(&err, st);
        printf("removed %s, %s\n", argv[i], cli_bytes(bytes, b));
    }
    return 0;
}

const ash_cmd cmd_rm = {.name = "rm",
                        .usage = "NAME...",
                        .summary = "Remove pulled models.",
                        .details = "NAME is a model that `ashlar list` shows. Only the folder of pulled models is touched.",
                        .min_args = 1,
                        .max_args = -1,
                        .run = run};
