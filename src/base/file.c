/* file.c - whole-file reads, files written beside and renamed. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

ash_status ash_io_fail(ash_error *err, const char *what, const char *path) {
    int e = errno;
    ash_status code = e == ENOSPC || e == EDQUOT || e == EFBIG ? ASH_E_LIMIT : e == ENOMEM ? ASH_E_NOMEM : ASH_E_IO;
    return ash_fail(err, code, "cannot %s %s: %s", what, path, strerror(e));
}

ash_status ash_file_read(const char *path, uint64_t limit, ash_buf *out, ash_error *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ash_io_fail(err, "open", path);
    ash_status s = ASH_OK;
    ash_buf_reset(out);
    char tmp[1 << 16];
    for (;;) {
        ssize_t n = read(fd, tmp, sizeof tmp);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            s = ash_io_fail(err, "read", path);
            break;
        }
        if (n == 0) break;
        if (out->n + (uint64_t)n > limit) {
            s = ash_fail(err, ASH_E_LIMIT, "%s is larger than %llu bytes", path, (unsigned long long)limit);
            break;
        }
        ash_buf_add(out, tmp, (size_t)n);
        if (out->oom) {
            s = ash_fail(err, ASH_E_NOMEM, "out of memory reading %s", path);
            break;
        }
    }
    if (!is_stdin) close(fd);
    if (s == ASH_OK && !out->p) {
        ash_buf_add(out, "", 0);
        if (out->oom) s = ash_fail(err, ASH_E_NOMEM, "out of memory reading %s", path);
    }
    return s;
}

/* ---- written beside and renamed ---- */
struct ash_outfile {
    int fd;
    uint64_t pos;
    char *path, *tmp;
    size_t n_buf;
    uint8_t buf[1 << 16];
};

ash_status ash_outfile_open(ash_outfile **out, const char *path, ash_error *err) {
    *out = NULL;
    ash_outfile *f = ash_calloc(1, sizeof *f);
    if (!f) return ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    f->fd = -1;
    size_t n = strlen(path);
    f->path = ash_strdup(path);
    f->tmp = ash_alloc(n + 16);
    ash_status s = ASH_OK;
    struct stat st;
    if (!f->path || !f->tmp) s = ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    else if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        s = ash_fail(err, ASH_E_IO, "cannot write %s: not a regular file", path);
    else {
        snprintf(f->tmp, n + 16, "%s.tmp-XXXXXX", path);
        f->fd = mkostemp(f->tmp, O_CLOEXEC);
        if (f->fd < 0) s = ash_io_fail(err, "create a file beside", path);
        else {
            mode_t m = umask(0);
            umask(m);
            fchmod(f->fd, 0666 & ~m);
        }
    }
    if (s != ASH_OK) {
        if (f->fd < 0 && f->tmp) f->tmp[0] = 0;
        ash_outfile_abort(f);
        return s;
    }
    *out = f;
    return ASH_OK;
}

static ash_status flush(ash_outfile *f, ash_error *err) {
    for (size_t i = 0; i < f->n_buf;) {
        ssize_t k = write(f->fd, f->buf + i, f->n_buf - i);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return ash_io_fail(err, "write", f->path);
        i += (size_t)k;
    }
    f->n_buf = 0;
    return ASH_OK;
}

ash_status ash_outfile_write(ash_outfile *f, const void *p, size_t n, ash_error *err) {
    const uint8_t *q = p;
    f->pos += n;
    while (n) {
        size_t k = ASH_MIN(n, sizeof f->buf - f->n_buf);
        memcpy(f->buf + f->n_buf, q, k);
        f->n_buf += k;
        q += k;
        n -= k;
        if (f->n_buf == sizeof f->buf) ASH_TRY(flush(f, err));
    }
    return ASH_OK;
}

ash_status ash_outfile_seek(ash_outfile *f, uint64_t pos, ash_error *err) {
    ASH_TRY(flush(f, err));
    if (lseek(f->fd, (off_t)pos, SEEK_SET) < 0) return ash_io_fail(err, "seek in", f->path);
    f->pos = pos;
    return ASH_OK;
}

uint64_t ash_outfile_pos(const ash_outfile *f) { return f->pos; }

ash_status ash_outfile_commit(ash_outfile **pf, ash_error *err) {
    ash_outfile *f = *pf;
    *pf = NULL;
    ash_status s = flush(f, err);
    if (s == ASH_OK && fsync(f->fd) != 0 && errno != EINVAL && errno != EROFS) s = ash_io_fail(err, "sync", f->path);
    if (close(f->fd) != 0 && s == ASH_OK) s = ash_io_fail(err, "close", f->path); /* before the rename: Windows moves no open file */
    f->fd = -1;
    if (s == ASH_OK && rename(f->tmp, f->path) != 0) s = ash_io_fail(err, "rename into place", f->path);
    if (s == ASH_OK) f->tmp[0] = 0;
    ash_outfile_abort(f);
    return s;
}

void ash_outfile_abort(ash_outfile *f) {
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    if (f->tmp && f->tmp[0]) unlink(f->tmp);
    ash_free(f->path);
    ash_free(f->tmp);
    ash_free(f);
}

ash_status ash_file_write_atomic(const char *path, const void *p, size_t n, ash_error *err) {
    ash_outfile *f;
    ASH_TRY(ash_outfile_open(&f, path, err));
    ash_status s = ash_outfile_write(f, p, n, err);
    if (s != ASH_OK) {
        ash_outfile_abort(f);
        return s;
    }
    return ash_outfile_commit(&f, err);
}
