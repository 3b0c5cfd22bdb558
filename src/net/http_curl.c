/* http_curl.c - http.h on libcurl: one answer at a time, redirects within https, resuming by Range and If-Range, retries with
 * growing pauses for what may pass (broken connections, short bodies, busy servers), none for what will not. */
#include "net/http.h"

#include <curl/curl.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long ull;

enum { MAX_REDIRECTS = 10, CONNECT_SECONDS = 30, STALL_SECONDS = 30 };

typedef struct {
    const ash_http_req *q;
    ash_http_reply *r;
    ash_error *err;
    ash_status failed; /* set by a callback that ended the transfer */
    /* sink: memory or file */
    ash_buf *mem;
    uint64_t limit;
    int fd;
    uint64_t have;  /* bytes in the file */
    uint64_t asked; /* where this request asked to begin */
    /* the answer at hand; reset by each status line */
    long status;
    char etag[256], date[64];
    uint64_t range_from, range_total, length, linked_size;
    bool has_range, has_length, begun;
    const char *path;
} xfer;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void init(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

/* "name: value" of a header line; value is cut into buf. */
static bool header(const char *p, size_t n, const char *name, char *buf, size_t size) {
    size_t k = strlen(name);
    if (n <= k || strncasecmp(p, name, k) != 0 || p[k] != ':') return false;
    const char *v = p + k + 1, *end = p + n;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) end--;
    size_t m = ASH_MIN((size_t)(end - v), size - 1);
    memcpy(buf, v, m);
    buf[m] = 0;
    return true;
}

static bool number(const char *s, uint64_t *out) {
    char *end;
    errno = 0;
    if (*s < '0' || *s > '9') return false;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || v > INT64_MAX) return false;
    *out = v;
    return true;
}

static size_t on_header(char *p, size_t size, size_t nmemb, void *ctx) {
    xfer *x = ctx;
    size_t n = size * nmemb;
    char v[256];
    if (n > 5 && memcmp(p, "HTTP/", 5) == 0) {
        const char *sp = memchr(p, ' ', n);
        x->status = sp ? strtol(sp + 1, NULL, 10) : 0;
        x->has_range = x->has_length = false;
        x->etag[0] = x->date[0] = x->r->type[0] = 0;
        return n;
    }
    if (header(p, n, "ETag", v, sizeof v)) snprintf(x->etag, sizeof x->etag, "%s", v);
    if (header(p, n, "Last-Modified", v, sizeof v)) snprintf(x->date, sizeof x->date, "%.60s", v);
    if (header(p, n, "Content-Type", v, sizeof v)) snprintf(x->r->type, sizeof x->r->type, "%.100s", v);
    if (header(p, n, "Content-Length", v, sizeof v)) x->has_length = number(v, &x->length);
    if (header(p, n, "X-Linked-Size", v, sizeof v)) number(v, &x->linked_size);
    if (header(p, n, "X-Linked-ETag", v, sizeof v)) { /* a git hash for small files, SHA-256 for large ones */
        const char *h = *v == '"' ? v + 1 : v;
        if (strspn(h, "0123456789abcdef") == 64) snprintf(x->r->linked_sha256, sizeof x->r->linked_sha256, "%.64s", h);
    }
    if (header(p, n, "Content-Range", v, sizeof v) && strncmp(v, "bytes ", 6) == 0) { /* "bytes 5-9/10", or a star for the part */
        const char *slash = strchr(v, '/');
        x->range_total = UINT64_MAX;
        if (slash) number(slash + 1, &x->range_total);
        x->has_range = v[6] == '*' ? true : number(v + 6, &x->range_from);
        if (v[6] == '*') x->range_from = UINT64_MAX;
    }
    return n;
}

static bool stop(xfer *x, ash_status s) {
    x->failed = s;
    return false;
}

static bool write_file(xfer *x, const char *p, size_t n) {
    while (n) {
        ssize_t k = pwrite(x->fd, p, n, (off_t)x->have);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            int e = k < 0 ? errno : ENOSPC;
            return stop(x, ash_fail(x->err, e == ENOSPC || e == EDQUOT || e == EFBIG ? ASH_E_LIMIT : ASH_E_IO, "cannot write %s: %s",
                                    x->path, strerror(e)));
        }
        p += k;
        n -= (size_t)k;
        x->have += (uint64_t)k;
    }
    return true;
}

/* What proves next time that the file is the same one. Weak tags do not. */
static void keep_meta(xfer *x) {
    char path[4200];
    const char *v = x->etag[0] == '"' ? x->etag : x->date;
    snprintf(path, sizeof path, "%s.meta", x->path);
    if (!*v || ash_file_write_atomic(path, v, strlen(v), NULL) != ASH_OK) unlink(path);
}

static size_t on_body(char *p, size_t size, size_t nmemb, void *ctx) {
    xfer *x = ctx;
    size_t n = size * nmemb;
    if (x->status >= 300 || x->status < 200) return n; /* an error page is not wanted */
    if (x->mem) {
        if (x->mem->n + n > x->limit)
            return stop(x, ash_fail(x->err, ASH_E_LIMIT, "%s: the answer is larger than %llu bytes", x->q->url, (ull)x->limit)), 0;
        ash_buf_add(x->mem, p, n);
        if (!ash_buf_ok(x->mem)) return stop(x, ash_fail(x->err, ASH_E_NOMEM, "out of memory reading %s", x->q->url)), 0;
        x->r->fetched += n;
        return n;
    }
    if (!x->begun) { /* 206 continues where we asked, 200 is the whole file */
        x->begun = true;
        if (x->status == 206 && !(x->has_range && x->range_from == x->asked)) return 0; /* the caller starts anew */
        if ((x->status != 206 || !x->asked) && x->have) {
            x->have = 0;
            if (ftruncate(x->fd, 0) != 0) return stop(x, ash_fail(x->err, ASH_E_IO, "cannot truncate %s: %s", x->path, strerror(errno))), 0;
        }
        if (x->status != 206 || !x->asked) keep_meta(x);
    }
    if (!write_file(x, p, n)) return 0;
    x->r->fetched += n;
    return n;
}

static int on_progress(void *ctx, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up) {
    xfer *x = ctx;
    (void)up_total;
    (void)up;
    (void)now;
    const ash_progress *pr = &x->q->progress;
    double whole = x->linked_size ? (double)x->linked_size : (double)total + (x->status == 206 ? (double)x->asked : 0);
    double done = x->mem ? (double)x->mem->n : (double)x->have;
    if (pr->fn && !pr->fn(pr->ctx, x->q->label, done, total > 0 ? whole : 0, NULL)) {
        x->failed = ash_fail(x->err, ASH_E_CANCELLED, "cancelled; what is fetched stays for the next time");
        return 1;
    }
    return 0;
}

/* Sleep in small steps, so that Ctrl-C ends it. */
static ash_status pause_for(xfer *x, double seconds) {
    for (double end = ash_now() + seconds; ash_now() < end;) {
        struct timespec t = {0, 50000000};
        if (on_progress(x, 0, 0, 0, 0)) return x->failed;
        nanosleep(&t, NULL);
    }
    return ASH_OK;
}

static ash_status set_up(CURL *c, xfer *x, struct curl_slist **headers, const char *validator) {
    const ash_http_req *q = x->q;
    char line[600];
    curl_easy_reset(c);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, q->allow_http ? "https,http" : "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, strncasecmp(q->url, "https:", 6) == 0 || !q->allow_http ? "https" : "https,http");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(q->allow_http ? CURLPROTO_HTTPS | CURLPROTO_HTTP : CURLPROTO_HTTPS));
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS,
                     (long)(strncasecmp(q->url, "https:", 6) == 0 || !q->allow_http ? CURLPROTO_HTTPS : CURLPROTO_HTTPS | CURLPROTO_HTTP));
#endif
    curl_easy_setopt(c, CURLOPT_URL, q->url);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "ashlar");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
    if (q->token) { /* libcurl keeps it from other hosts that a redirect names */
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, q->token);
    }
    struct curl_slist *l = *headers = NULL, *next;
    if (q->accept) {
        snprintf(line, sizeof line, "Accept: %s", q->accept);
        if (!(l = curl_slist_append(l, line))) return ash_fail(x->err, ASH_E_NOMEM, "out of memory");
    }
    if (x->asked) {
        snprintf(line, sizeof line, "Range: bytes=%llu-", (ull)x->asked);
        next = curl_slist_append(l, line);
        if (next && *validator) {
            snprintf(line, sizeof line, "If-Range: %s", validator);
            next = curl_slist_append(next, line);
        }
        if (!next) {
            curl_slist_free_all(l);
            return ash_fail(x->err, ASH_E_NOMEM, "out of memory");
        }
        l = next;
    }
    *headers = l;
    if (l) curl_easy_setopt(c, CURLOPT_HTTPHEADER, l);
    return ASH_OK;
}

/* What a finished attempt means. */
typedef enum { DONE, AGAIN, ANEW, FATAL } verdict;

static verdict judge(xfer *x, CURLcode rc, ash_status *st) {
    const char *url = x->q->url;
    if (x->failed != ASH_OK) return *st = x->failed, FATAL;
    if (rc == CURLE_OK && x->status == 416) /* we may have had all of it */
        return x->has_range && x->range_total == x->have && x->have ? DONE : ANEW;
    if (rc == CURLE_OK && (x->status == 429 || x->status == 408 || x->status >= 500)) {
        *st = ash_fail(x->err, ASH_E_IO, "%s: the server answers %ld", url, x->status);
        return AGAIN;
    }
    if (rc == CURLE_OK && (x->status < 200 || x->status >= 300)) {
        const char *why = x->status == 404                       ? "there is no such file"
                          : x->status == 401 || x->status == 403 ? "access is refused (a token may be needed)"
                                                                 : "the server refuses";
        *st = ash_fail(x->err, ASH_E_IO, "%s: %s (%ld)", url, why, x->status);
        return FATAL;
    }
    if (rc == CURLE_OK) {
        uint64_t whole = x->status == 206 && x->has_range && x->range_total != UINT64_MAX ? x->range_total : x->linked_size;
        if (!x->mem && whole && whole != x->have) {
            *st = ash_fail(x->err, ASH_E_IO, "%s: %llu bytes came of %llu", url, (ull)x->have, (ull)whole);
            return x->have < whole ? AGAIN : ANEW;
        }
        return DONE;
    }
    if (rc == CURLE_WRITE_ERROR) { /* our own callback: a range we did not ask for */
        *st = ash_fail(x->err, ASH_E_IO, "%s: the server sent another part than asked for", url);
        return ANEW;
    }
    *st = ash_fail(x->err, ASH_E_IO, "%s: %s", url, curl_easy_strerror(rc));
    switch (rc) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE: return FATAL;
    default: return AGAIN; /* connection refused, reset, cut short, timed out, name not resolved */
    }
}

static void read_meta(const char *path, char *out, size_t size) {
    char p[4200];
    ash_buf b = {0};
    *out = 0;
    snprintf(p, sizeof p, "%s.meta", path);
    if (access(p, R_OK) == 0 && ash_file_read(p, 512, &b, NULL) == ASH_OK && b.n < size && !memchr(b.p, '\n', b.n) &&
        !memchr(b.p, '\r', b.n))
        snprintf(out, size, "%s", b.p);
    ash_buf_free(&b);
}

static ash_status perform(xfer *x, bool checked) {
    pthread_once(&once, init);
    CURL *c = curl_easy_init();
    struct curl_slist *headers = NULL;
    char validator[512] = "";
    ash_status st = ASH_OK;
    int tries = 0;
    double wait = x->q->wait > 0 ? x->q->wait : 0;
    if (!c) return ash_fail(x->err, ASH_E_NOMEM, "out of memory for a connection");
    for (;;) {
        uint64_t before = x->mem ? x->mem->n : x->have;
        if (x->mem)
            ash_buf_reset(x->mem);
        else
            read_meta(x->path, validator, sizeof validator);
        x->asked = !x->mem && (*validator || checked) ? x->have : 0;
        x->begun = false;
        x->status = 0;
        ASH_TRY_GOTO(set_up(c, x, &headers, validator), done);
        CURLcode rc = curl_easy_perform(c);
        char *url = NULL;
        if (curl_easy_getinfo(c, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK && url) snprintf(x->r->url, sizeof x->r->url, "%s", url);
        curl_slist_free_all(headers);
        headers = NULL;
        verdict v = judge(x, rc, &st);
        if (v == DONE) {
            st = ASH_OK;
            if (x->err) *x->err = (ash_error){0};
            break;
        }
        if (v == FATAL) break;
        if (v == ANEW && !x->mem) {
            x->have = 0;
            if (ftruncate(x->fd, 0) != 0) {
                st = ash_fail(x->err, ASH_E_IO, "cannot truncate %s: %s", x->path, strerror(errno));
                break;
            }
        }
        if (v == AGAIN && !x->mem && x->have > before) tries = 0, wait = x->q->wait; /* it moves */
        if (tries++ >= x->q->retries) {
            if (v == ANEW && st == ASH_OK) st = ash_fail(x->err, ASH_E_IO, "%s: the server refuses every part of the file", x->q->url);
            break;
        }
        ash_status p = pause_for(x, wait);
        if (p != ASH_OK) {
            st = p;
            break;
        }
        wait = ASH_MIN(wait * 2, 60.0);
    }
done:
    curl_slist_free_all(headers);
    curl_easy_cleanup(c);
    return st;
}

ash_status ash_http_get(const ash_http_req *q, uint64_t limit, ash_buf *out, ash_http_reply *r, ash_error *err) {
    ash_error local = {0};
    *r = (ash_http_reply){0};
    xfer x = {.q = q, .r = r, .err = err ? err : &local, .mem = out, .limit = limit, .fd = -1};
    ash_status st = perform(&x, false);
    r->bytes = out->n;
    if (st == ASH_OK && !out->p) ash_buf_add(out, "", 0);
    return st;
}

ash_status ash_http_file(const ash_http_req *q, const char *path, bool checked, ash_http_reply *r, ash_error *err) {
    ash_error local = {0};
    struct stat sb;
    *r = (ash_http_reply){0};
    xfer x = {.q = q, .r = r, .err = err ? err : &local, .path = path};
    x.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (x.fd < 0 || fstat(x.fd, &sb) != 0) {
        ash_status st = ash_fail(x.err, ASH_E_IO, "cannot write %s: %s", path, strerror(errno));
        if (x.fd >= 0) close(x.fd);
        return st;
    }
    if (flock(x.fd, LOCK_EX | LOCK_NB) != 0) {
        close(x.fd);
        return ash_fail(x.err, ASH_E_STATE, "another pull is fetching %s", q->url);
    }
    x.have = (uint64_t)sb.st_size;
    ash_status st = perform(&x, checked);
    if (st == ASH_OK && fsync(x.fd) != 0 && errno != EINVAL && errno != EROFS)
        st = ash_fail(x.err, ASH_E_IO, "cannot write %s: %s", path, strerror(errno));
    r->bytes = x.have;
    close(x.fd);
    return st;
}

ash_status ash_http_join(const char *base, const char *rel, char *out, size_t size, ash_error *err) {
    CURLU *u = curl_url();
    char *s = NULL;
    ash_status st = ASH_OK;
    if (!u || curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK || curl_url_set(u, CURLUPART_URL, rel, 0) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) != CURLUE_OK || curl_url_get(u, CURLUPART_URL, &s, 0) != CURLUE_OK ||
        strlen(s) >= size)
        st = ash_fail(err, ASH_E_FORMAT, "\"%.100s\" is no address", rel);
    else
        snprintf(out, size, "%s", s);
    curl_free(s);
    curl_url_cleanup(u);
    return st;
}
