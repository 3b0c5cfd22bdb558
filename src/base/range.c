/* range.c - what the kernel is told about parts of a mapping: read at random, read in now, keep, use large pages.
 * Windows: sys_win.c. */
#include "base/base.h"

#ifndef _WIN32

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Pages that lie wholly inside [p, p + n), or with `outside` those that touch it. */
static bool pages(const void *p, uint64_t n, bool outside, char **at, size_t *len) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), lo = (uintptr_t)p, hi = lo + n;
    const uintptr_t b = outside ? lo / page * page : (lo + page - 1) / page * page;
    const uintptr_t e = outside ? (hi + page - 1) / page * page : hi / page * page;
    if (e <= b) return false;
    *at = (char *)b;
    *len = e - b;
    return true;
}

static void touch(const char *p, size_t n) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < n; i += page) (void)*(const volatile char *)(p + i);
}

ash_status ash_range_use(const void *p, uint64_t n, ash_range_how how, ash_error *err) {
    char *at;
    size_t len;
    if (!pages(p, n, how == ASH_RANGE_LOCK || how == ASH_RANGE_POPULATE, &at, &len)) return ASH_OK;
    switch (how) {
    case ASH_RANGE_RANDOM: madvise(at, len, MADV_RANDOM); return ASH_OK; /* a hint: refusal changes nothing */
    case ASH_RANGE_FORGET: madvise(at, len, MADV_DONTNEED); return ASH_OK;
    case ASH_RANGE_POPULATE:
        if (madvise(at, len, MADV_POPULATE_READ) != 0) touch(at, len);
        return ASH_OK;
    case ASH_RANGE_LOCK:
        if (mlock(at, len) == 0) return ASH_OK;
        if (errno == ENOMEM || errno == EPERM || errno == EAGAIN)
            return ash_fail(err, ASH_E_LIMIT, "cannot lock %llu bytes in memory (see `ulimit -l`): %s", (unsigned long long)len, strerror(errno));
        return ash_fail(err, ASH_E_IO, "cannot lock %llu bytes in memory: %s", (unsigned long long)len, strerror(errno));
    case ASH_RANGE_HUGE:
        if (madvise(at, len, MADV_HUGEPAGE) == 0) return ASH_OK;
        return ash_fail(err, ASH_E_UNSUPPORTED, "this kernel has no huge pages for mapped files: %s", strerror(errno));
    }
    return ASH_OK;
}

#else
typedef int ash_range_unused; /* a translation unit is never empty */
#endif
