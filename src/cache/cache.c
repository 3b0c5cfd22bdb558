/* cache.c - the model folder: names, listing, records (FILE.json beside FILE), removal. Nothing outside the folder is
 * touched: names are checked before they become paths. */
#include "ashlar/cache.h"
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_RECORD = 1 << 16, MAX_ENTRIES = 1 << 16, MAX_PATH = 4096 };

bool ash_cache_name_ok(const char *name) {
    static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(name);
    return n >= 1 && n <= 120 && name[0] != '.' && strspn(name, ok) == n;
}

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcmp(s + n - k, with) == 0;
}

static bool path_of(char *out, size_t size, const char *dir, const char *name, const char *tail) {
    int n = snprintf(out, size, "%s/%s%s", dir, name, tail);
    return n > 0 && (size_t)n < size;
}

bool ash_cache_find(const char *dir, const char *name, char *path, size_t size) {
    static const char *const tails[] = {".gguf", ""};
    struct stat sb;
    for (size_t i = 0; ash_cache_name_ok(name) && i < ASH_ARRAY_LEN(tails); i++)
        if (path_of(path, size, dir, name, tails[i]) && stat(path, &sb) == 0 && S_ISREG(sb.st_mode)) return true;
    return false;
}

static void read_record(const char *dir, ash_cache_entry *e) {
    char p[MAX_PATH];
    ash_buf b = {0};
    if (!path_of(p, sizeof p, dir, e->file, ".json") || access(p, R_OK) != 0 || ash_file_read(p, MAX_RECORD, &b, NULL) != ASH_OK) {
        ash_buf_free(&b);
        return;
    }
    json_t *o = json_loadb(b.p, b.n, 0, NULL);
    const char *s;
    if ((s = json_string_value(json_object_get(o, "source")))) snprintf(e->source, sizeof e->source, "%s", s);
    if ((s = json_string_value(json_object_get(o, "sha256")))) snprintf(e->sha256, sizeof e->sha256, "%s", s);
    if ((s = json_string_value(json_object_get(o, "licence")))) snprintf(e->licence, sizeof e->licence, "%s", s);
    json_decref(o);
    ash_buf_free(&b);
}

/* Sum of the regular files of a folder, one level. */
static uint64_t folder_bytes(const char *path) {
    uint64_t sum = 0;
    DIR *d = opendir(path);
    struct stat sb;
    char p[MAX_PATH];
    for (struct dirent *e; d && (e = readdir(d));)
        if (path_of(p, sizeof p, path, e->d_name, "") && lstat(p, &sb) == 0 && S_ISREG(sb.st_mode)) sum += (uint64_t)sb.st_size;
    if (d) closedir(d);
    return sum;
}

static int by_name(const void *a, const void *b) { return strcmp(((const ash_cache_entry *)a)->name, ((const ash_cache_entry *)b)->name); }

ash_status ash_cache_list(const char *dir, ash_cache_entry **out, size_t *n, ash_error *err) {
    *out = NULL;
    *n = 0;
    size_t cap = 0;
    ash_status st = ASH_OK;
    DIR *d = opendir(dir);
    if (!d) return errno == ENOENT ? ASH_OK : ash_fail(err, ASH_E_IO, "cannot open %s: %s", dir, strerror(errno));
    for (struct dirent *de; st == ASH_OK && *n < MAX_ENTRIES && (de = readdir(d));) {
        struct stat sb;
        char p[MAX_PATH];
        if (!ash_cache_name_ok(de->d_name) || ends(de->d_name, ".json") || strcmp(de->d_name, "partial") == 0 ||
            strstr(de->d_name, ".tmp-"))
            continue;
        if (!path_of(p, sizeof p, dir, de->d_name, "") || stat(p, &sb) != 0 || !(S_ISREG(sb.st_mode) || S_ISDIR(sb.st_mode))) continue;
        bool folder = S_ISDIR(sb.st_mode);
        char conf[MAX_PATH];
        if (folder && (!path_of(conf, sizeof conf, p, "config.json", "") || access(conf, F_OK) != 0))
            continue; /* work folders of other commands */
        if (!folder && !ends(de->d_name, ".gguf")) continue;
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            ash_cache_entry *q = ash_realloc(*out, cap * sizeof *q);
            if (!q) {
                st = ash_fail(err, ASH_E_NOMEM, "out of memory listing %s", dir);
                break;
            }
            *out = q;
        }
        ash_cache_entry *e = &(*out)[(*n)++];
        *e = (ash_cache_entry){.folder = folder, .bytes = folder ? folder_bytes(p) : (uint64_t)sb.st_size};
        snprintf(e->file, sizeof e->file, "%.150s", de->d_name);
        snprintf(e->name, sizeof e->name, "%.*s", (int)(strlen(de->d_name) - (ends(de->d_name, ".gguf") ? 5 : 0)), de->d_name);
        read_record(dir, e);
    }
    closedir(d);
    if (st != ASH_OK) {
        ash_free(*out);
        *out = NULL;
        *n = 0;
    } else if (*n)
        qsort(*out, *n, sizeof **out, by_name);
    return st;
}

void ash_cache_free(ash_cache_entry *e) { ash_free(e); }

/* A pulled model folder holds plain files and one level of folders (1_Pooling); links are removed, not followed. */
static bool remove_tree(const char *path, int depth) {
    DIR *d = opendir(path);
    bool ok = d != NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat sb;
        char p[MAX_PATH];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (!path_of(p, sizeof p, path, e->d_name, "") || lstat(p, &sb) != 0)
            ok = false;
        else if (S_ISDIR(sb.st_mode))
            ok = depth > 0 && remove_tree(p, depth - 1) && ok;
        else
            ok = unlink(p) == 0 && ok;
    }
    if (d) closedir(d);
    return ok && rmdir(path) == 0;
}

ash_status ash_cache_remove(const char *dir, const char *name, uint64_t *bytes, ash_error *err) {
    ash_cache_entry *e;
    size_t n, i = 0;
    char p[MAX_PATH];
    *bytes = 0;
    if (!ash_cache_name_ok(name)) return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no name of a model", name);
    ASH_TRY(ash_cache_list(dir, &e, &n, err));
    while (i < n && strcmp(e[i].name, name) != 0 && strcmp(e[i].file, name) != 0) i++;
    ash_status st = ASH_OK;
    if (i == n)
        st = ash_fail(err, ASH_E_IO, "there is no model %s in %s", name, dir);
    else if (!path_of(p, sizeof p, dir, e[i].file, "") || (e[i].folder ? !remove_tree(p, 3) : unlink(p) != 0))
        st = ash_fail(err, ASH_E_IO, "cannot remove %s/%s: %s", dir, e[i].file, strerror(errno));
    else {
        *bytes = e[i].bytes;
        if (path_of(p, sizeof p, dir, e[i].file, ".json")) unlink(p);
    }
    ash_cache_free(e);
    return st;
}

ash_status ash_cache_record(const char *dir, const char *file, const char *source, const char *sha256, const char *licence,
                            ash_error *err) {
    char p[MAX_PATH];
    json_t *o = json_pack("{s:s, s:s, s:s}", "source", source, "sha256", sha256 ? sha256 : "", "licence", licence ? licence : "");
    char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    ash_status st = s && path_of(p, sizeof p, dir, file, ".json")
                        ? ash_file_write_atomic(p, s, strlen(s), err)
                        : ash_fail(err, ASH_E_NOMEM, "out of memory noting where %s is from", file);
    free(s);
    json_decref(o);
    return st;
}
