/* cache.c - which folder holds pulled models: the one place that asks the environment for it. */
#include "cli.h"

#include "ashlar/cache.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *cli_cache_dir(void) {
    static char dir[PATH_MAX];
    const char *own = getenv("ASHLAR_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (own && *own)
        n = snprintf(dir, sizeof dir, "%s", own);
    else if (xdg && *xdg == '/')
        n = snprintf(dir, sizeof dir, "%s/ashlar", xdg); /* the XDG specification: relative paths are to be ignored */
    else if (home && *home)
        n = snprintf(dir, sizeof dir, "%s/.cache/ashlar", home);
#ifdef _WIN32
    else if ((home = getenv("LOCALAPPDATA")) && *home)
        n = snprintf(dir, sizeof dir, "%s/ashlar/cache", home);
#endif
    return n > 0 && n < (int)sizeof dir ? dir : NULL;
}

bool cli_cached_model(const char *name, char *path, size_t size) {
    const char *dir = cli_cache_dir();
    return dir && !strchr(name, '/') && access(name, F_OK) != 0 && ash_cache_find(dir, name, path, size);
}
