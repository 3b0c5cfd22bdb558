/* ram.c - how much memory this machine has for a program: physical, and what a control group leaves of it. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef _WIN32

static bool number_in(const char *path, uint64_t *out) {
    unsigned long long v;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fscanf(f, "%llu", &v) == 1;
    fclose(f);
    if (ok) *out = v;
    return ok;
}

/* "MemAvailable:  123 kB" */
static uint64_t meminfo(const char *key) {
    char line[160];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu", &kb) == 1) break;
    fclose(f);
    return kb * 1024;
}

ash_ram ash_ram_read(void) {
    ash_ram r = {0};
    uint64_t max, now;
    r.total = meminfo("MemTotal");
    if (!r.total) r.total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    r.available = meminfo("MemAvailable");
    if (!r.available) r.available = r.total;
    if (number_in("/sys/fs/cgroup/memory.max", &max) && max < r.total) { /* version 2; "max" is no number */
        r.total = max;
        if (number_in("/sys/fs/cgroup/memory.current", &now)) r.available = ASH_MIN(r.available, max > now ? max - now : 0);
        r.available = ASH_MIN(r.available, r.total);
    }
    return r;
}

#else

ash_ram ash_ram_read(void) {
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return (ash_ram){total, total};
}

#endif
