/* pull.c - cache.h, net.h: the catalogue, the folder of pulled models, and fetching one of them.
 * usage: pull CATALOGUE.json CACHE [NAME] */
#include "example.h"

#include "ashlar/cache.h"
#include "ashlar/net.h"

int main(int argc, char **argv) {
    ARGS(2, "CATALOGUE.json CACHE [NAME]");
    ash_catalogue *c;
    ash_cache_entry *have;
    size_t n;
    OK(ash_catalogue_load(&c, argv[1], &err));
    for (size_t i = 0; i < ash_catalogue_count(c); i++)
        printf("%-20s %12llu bytes, %s\n", ash_catalogue_at(c, i)->name, (unsigned long long)ash_catalogue_at(c, i)->bytes, ash_catalogue_at(c, i)->licence);
    OK(ash_cache_list(argv[2], &have, &n, &err));
    printf("%zu here\n", n);
    ash_cache_free(have);
    if (argc > 3) {
        ash_pull_opts o = ash_pull_defaults();
        ash_pull_result r;
        o.cache = argv[2];
        o.catalogue = c;
        OK(ash_pull(&r, argv[3], &o, &err)); /* resumed where an earlier try ended; nothing appears before it has its checksum */
        printf("%s, %llu bytes, %s\n", r.path, (unsigned long long)r.bytes, r.sha256);
    }
    ash_catalogue_free(c);
}
