/* index.c - Python package indexes: the page of a project as JSON (PEP 691) or HTML (PEP 503), the best file on it. */
#include "net/index.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <strings.h>
#include <stdlib.h>

enum { MAX_PAGE = 64 << 20 };

/* PEP 503: lower case, runs of - _ . are one -. */
static bool normal(const char *s, size_t n, char *out, size_t size) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool sep = c == '-' || c == '_' || c == '.';
        if (!sep && !isalnum((unsigned char)c)) return false;
        if (sep && k && out[k - 1] == '-') continue;
        if (k + 1 >= size) return false;
        out[k++] = sep ? '-' : (char)tolower((unsigned char)c);
    }
    out[k] = 0;
    return k > 0;
}

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcmp(s + n - k, with) == 0;
}

/* "name-1.2.3-py3-none-any.whl", "name-1.2.3.tar.gz": the version, and how well the file suits (0: not at all). */
static int rate(const char *file, const char *name, char *version, size_t size) {
    size_t n = strlen(file), cut = 0;
    char left[200];
    bool wheel = ends(file, ".whl"), sdist = ends(file, ".tar.gz");
    if (!wheel && !sdist) return 0;
    if (sdist) n -= 7;
    for (size_t i = 0; i < n && !cut; i++) /* the name ends at a '-' that a digit follows */
        if (file[i] == '-' && isdigit((unsigned char)file[i + 1]) && normal(file, i, left, sizeof left) && strcmp(left, name) == 0)
            cut = i + 1;
    if (!cut) return 0;
    size_t k = wheel ? strcspn(file + cut, "-") : n - cut;
    if (k == 0 || k >= size) return 0;
    memcpy(version, file + cut, k);
    version[k] = 0;
    return sdist ? 1 : ends(file, "-none-any.whl") ? 3 : 2;
}

/* Releases by their numbers; what is no plain 1.2.3 comes before all that are. */
static int cmp_version(const char *a, const char *b) {
    bool pa = strspn(a, "0123456789.") == strlen(a), pb = strspn(b, "0123456789.") == strlen(b);
    if (pa != pb) return pa ? 1 : -1;
    while (*a || *b) {
        unsigned long long x = strtoull(a, NULL, 10), y = strtoull(b, NULL, 10);
        if (x != y) return x < y ? -1 : 1;
        a += strcspn(a, "."), b += strcspn(b, ".");
        a += *a == '.', b += *b == '.';
    }
    return 0;
}

typedef struct {
    ash_index_file *f;
    const char *page, *name, *want;
    char best[100];
    int rate;
    ash_error *err;
} search;

static ash_status offer(search *s, const char *file, const char *url, const char *sha, uint64_t bytes) {
    char version[100];
    int r = rate(file, s->name, version, sizeof version);
    if (!r || (*s->want && strcmp(version, s->want) != 0)) return ASH_OK;
    int c = s->rate ? cmp_version(version, s->best) : 1;
    if (c < 0 || (c == 0 && r <= s->rate)) return ASH_OK;
    char full[2048];
    ASH_TRY(ash_http_join(s->page, url, full, sizeof full, s->err));
    *s->f = (ash_index_file){.bytes = bytes};
    snprintf(s->f->url, sizeof s->f->url, "%s", full);
    snprintf(s->f->name, sizeof s->f->name, "%.200s", file);
    if (strlen(sha) == 64 && strspn(sha, "0123456789abcdefABCDEF") == 64) snprintf(s->f->sha256, sizeof s->f->sha256, "%s", sha);
    snprintf(s->best, sizeof s->best, "%s", version);
    s->rate = r;
    return ASH_OK;
}

static ash_status from_json(search *s, const char *page, size_t n) {
    json_t *o = json_loadb(page, n, JSON_DECODE_INT_AS_REAL, NULL), *e;
    const json_t *files = json_object_get(o, "files");
    ash_status st = json_is_array(files) ? ASH_OK : ash_fail(s->err, ASH_E_FORMAT, "%s is no package index page", s->page);
    size_t i;
    json_array_foreach(files, i, e) {
        const char *file = json_string_value(json_object_get(e, "filename")), *url = json_string_value(json_object_get(e, "url"));
        const char *sha = json_string_value(json_object_get(json_object_get(e, "hashes"), "sha256"));
        const json_t *y = json_object_get(e, "yanked");
        double size = json_number_value(json_object_get(e, "size"));
        bool yanked = json_is_true(y) || (json_is_string(y) && json_string_length(y));
        if (st == ASH_OK && file && url && (!yanked || *s->want))
            st = offer(s, file, url, sha ? sha : "", size > 0 && size < 1e15 ? (uint64_t)size : 0);
    }
    json_decref(o);
    return st;
}

/* <a href="URL#sha256=HEX" data-yanked="">FILE</a> */
static ash_status from_html(search *s, const char *page, size_t n) {
    const char *end = page + n;
    for (const char *p = page; p < end && (p = memmem(p, (size_t)(end - p), "<a", 2));) {
        const char *close = memchr(p, '>', (size_t)(end - p));
        if (!close) break;
        const char *href = memmem(p, (size_t)(close - p), "href=\"", 6),
                   *q = href ? memchr(href + 6, '"', (size_t)(close - href) - 6) : NULL;
        bool yanked = memmem(p, (size_t)(close - p), "data-yanked", 11) != NULL;
        p = close;
        if (!q || (yanked && !*s->want) || (size_t)(q - href) >= 2000) continue;
        char url[2048], sha[65] = "";
        size_t k = 0;
        for (const char *c = href + 6; c < q; c++) {
            url[k++] = *c;
            if (q - c >= 5 && memcmp(c, "&amp;", 5) == 0) c += 4;
        }
        url[k] = 0;
        char *hash = strchr(url, '#');
        if (hash && strncmp(hash, "#sha256=", 8) == 0) snprintf(sha, sizeof sha, "%.64s", hash + 8);
        if (hash) *hash = 0;
        const char *leaf = strrchr(url, '/');
        ASH_TRY(offer(s, leaf ? leaf + 1 : url, url, sha, 0));
    }
    return ASH_OK;
}

static ash_status split(const char *what, char *name, size_t size, const char **version, ash_error *err) {
    size_t n = strcspn(what, "=");
    *version = what[n] ? what + n + 2 : "";
    if (!normal(what, n, name, size) || (what[n] && (what[n + 1] != '=' || !what[n + 2] || strlen(what + n + 2) > 60)))
        return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no package (NAME or NAME==VERSION)", what);
    return ASH_OK;
}

ash_status ash_index_parse(ash_index_file *f, const char *url, const char *page, size_t n, bool json, const char *what, ash_error *err) {
    char name[128];
    search s = {.f = f, .page = url, .name = name, .err = err};
    *f = (ash_index_file){.bytes = 0};
    ASH_TRY(split(what, name, sizeof name, &s.want, err));
    ASH_TRY(json ? from_json(&s, page, n) : from_html(&s, page, n));
    return s.rate ? ASH_OK : ash_fail(err, ASH_E_IO, "the index has no file of %.80s", what);
}

ash_status ash_index_find(ash_index_file *f, const char *index, const char *what, const ash_http_req *q0, ash_error *err) {
    char name[128], url[1024];
    const char *version;
    ash_http_req q = *q0;
    ash_http_reply r;
    ash_buf page = {0};
    ASH_TRY(split(what, name, sizeof name, &version, err));
    snprintf(url, sizeof url, "%.800s/%s/", index, name);
    q.url = url;
    q.accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";
    q.label = "index";
    ash_status st = ash_http_get(&q, MAX_PAGE, &page, &r, err);
    if (st == ASH_OK)
        st = ash_index_parse(f, r.url, page.p, page.n, strncasecmp(r.type, "application/vnd.pypi.simple", 27) == 0, what, err);
    ash_buf_free(&page);
    return st;
}
