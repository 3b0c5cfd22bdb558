/* map.c - read-only mappings of files, and spill memory backed by one. Windows: sys_win.c. */
#include "base/base.h"

#ifndef _WIN32

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

ash_status ash_map_open(ash_map *m, const char *path, ash_error *err) {
    *m = (ash_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ash_io_fail(err, "open", path);
    struct stat st;
    ash_status s = ASH_OK;
    if (fstat(fd, &st) != 0) s = ash_io_fail(err, "stat", path);
    else if (!S_ISREG(st.st_mode)) s = ash_fail(err, ASH_E_IO, "cannot open %s: not a regular file", path);
    else if (!(m->path = ash_strdup(path))) s = ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) s = ash_io_fail(err, "map", path);
        else {
            m->p = p;
            m->n = (uint64_t)st.st_size;
        }
    }
    close(fd);
    if (s != ASH_OK) ash_map_close(m);
    return s;
}

void ash_map_close(ash_map *m) {
    if (m->p) munmap((void *)(uintptr_t)m->p, m->n);
    ash_free(m->path);
    *m = (ash_map){0};
}

ash_status ash_spill_map(const char *dir, uint64_t n, void **p, ash_error *err) {
    *p = NULL;
    ash_buf path = {0};
    ash_buf_addf(&path, "%s/.ashlar-spill-XXXXXX", dir && *dir ? dir : ".");
    if (!ash_buf_ok(&path)) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    int fd = mkostemp(path.p, O_CLOEXEC);
    ash_status s = ASH_OK;
    if (fd < 0) s = ash_io_fail(err, "create", path.p);
    else {
        unlink(path.p);
        int e = posix_fallocate(fd, 0, (off_t)(n ? n : 1)); /* a full disk is found here, not by SIGBUS */
        if (e) {
            errno = e;
            s = ash_io_fail(err, "reserve spill space in", path.p);
        } else {
            void *m = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (m == MAP_FAILED) s = ash_io_fail(err, "map", path.p);
            else *p = m;
        }
        close(fd);
    }
    ash_buf_free(&path);
    return s;
}

void ash_spill_unmap(void *p, uint64_t n) {
    if (p) munmap(p, n ? n : 1);
}

ash_status ash_zero_map(uint64_t n, void **p, ash_error *err) {
    *p = NULL;
    void *m = n > (uint64_t)SIZE_MAX ? MAP_FAILED : mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) return ash_fail(err, ASH_E_LIMIT, "%llu bytes of address space cannot be had", (unsigned long long)n);
    *p = m;
    return ASH_OK;
}

void ash_zero_unmap(void *p, uint64_t n) {
    if (p) munmap(p, n ? n : 1);
}

#endif
