/* archive.c - zip (APPNOTE.TXT 4.3: end record, central directory, local headers; no zip64, no encryption) and tar.gz (ustar,
 * with pax and GNU long names skipped over), unpacked by zlib. */
#include "net/archive.h"

#include <stdio.h>
#define ZLIB_CONST
#include <zlib.h>

typedef unsigned long long ull;

enum { EOCD = 22, CENTRAL = 46, LOCAL = 30, MAX_MEMBERS = 1 << 16, PIECE = 1 << 16, TAR_BLOCK = 512 };

struct ash_archive {
    ash_map map;
    const uint8_t *p;
    uint64_t n;
    bool tar;
    ash_member *m;
    size_t count, cap;
    ash_arena arena;
};

static ash_status oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory reading an archive"); }
static ash_status broken(ash_error *err, const char *what) { return ash_fail(err, ASH_E_FORMAT, "the archive is broken: %s", what); }

static uint32_t le(const uint8_t *p, int n) {
    uint32_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint32_t)p[i] << (8 * i);
    return v;
}

static ash_status add(ash_archive *a, const char *name, size_t n_name, ash_member m, ash_error *err) {
    if (a->count == MAX_MEMBERS) return ash_fail(err, ASH_E_LIMIT, "the archive has more than %d members", MAX_MEMBERS);
    if (a->count == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        ash_member *q = ash_realloc(a->m, cap * sizeof *q);
        if (!q) return oom(err);
        a->m = q;
        a->cap = cap;
    }
    if (memchr(name, 0, n_name)) return broken(err, "a name holds a zero byte");
    m.name = ash_arena_strndup(&a->arena, name, n_name);
    if (!m.name) return oom(err);
    a->m[a->count++] = m;
    return ASH_OK;
}

/* ---- zip ---- */
static ash_status zip_open(ash_archive *a, ash_error *err) {
    uint64_t lowest = a->n > EOCD + 65535 ? a->n - EOCD - 65535 : 0, at = a->n - EOCD;
    while (!(le(a->p + at, 4) == 0x06054b50 && at + EOCD + le(a->p + at + 20, 2) == a->n)) {
        if (at == lowest) return broken(err, "no end record");
        at--;
    }
    uint32_t count = le(a->p + at + 10, 2), size = le(a->p + at + 12, 4), start = le(a->p + at + 16, 4);
    if (count == 0xffff || size == 0xffffffff || start == 0xffffffff)
        return ash_fail(err, ASH_E_UNSUPPORTED, "zip64 archives are not read");
    if ((uint64_t)start + size > at) return broken(err, "the directory lies outside");
    ash_rd r = ash_rd_init(a->p + start, size);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *h = ash_rd_bytes(&r, CENTRAL);
        if (!h || le(h, 4) != 0x02014b50) return broken(err, "the directory ends early");
        size_t n_name = le(h + 28, 2);
        const char *name = ash_rd_bytes(&r, n_name);
        if (!ash_rd_bytes(&r, (uint64_t)le(h + 30, 2) + le(h + 32, 2)) || !name) return broken(err, "the directory ends early");
        if (n_name && name[n_name - 1] == '/') continue;
        ash_member m = {
            .at = le(h + 42, 4), .packed = le(h + 20, 4), .bytes = le(h + 24, 4), .crc = le(h + 16, 4), .method = (int)le(h + 10, 2)};
        if (le(h + 8, 2) & 1) m.method = -1; /* encrypted */
        ASH_TRY(add(a, name, n_name, m, err));
    }
    return ASH_OK;
}

static ash_status zip_read(const ash_archive *a, const ash_member *m, ash_archive_sink sink, void *ctx, ash_error *err) {
    ash_rd r = ash_rd_init(a->p, a->n);
    if (m->at > a->n) return broken(err, "a member lies outside");
    r.pos = m->at;
    const uint8_t *h = ash_rd_bytes(&r, LOCAL);
    if (!h || le(h, 4) != 0x04034b50 || !ash_rd_bytes(&r, (uint64_t)le(h + 26, 2) + le(h + 28, 2)))
        return broken(err, "a member has no header");
    const uint8_t *p = ash_rd_bytes(&r, m->packed);
    if (!p) return broken(err, "a member lies outside");
    uLong crc = crc32(0, NULL, 0);
    if (m->method == 0) {
        if (m->packed != m->bytes) return broken(err, "a stored member has two sizes");
        for (uint64_t i = 0; i < m->bytes;) {
            size_t k = (size_t)ASH_MIN(m->bytes - i, (uint64_t)PIECE);
            crc = crc32(crc, p + i, (uInt)k);
            ASH_TRY(sink(ctx, p + i, k, err));
            i += k;
        }
        return crc == m->crc ? ASH_OK : broken(err, "a member has a wrong checksum");
    }
    if (m->method != 8)
        return ash_fail(err, ASH_E_UNSUPPORTED, "member %.100s is packed in a way that is not read (method %d)", m->name, m->method);
    z_stream z = {.next_in = p};
    uint8_t *out = ash_alloc(PIECE);
    uint64_t left = m->packed, done = 0;
    ash_status st = ASH_OK;
    if (!out || inflateInit2(&z, -MAX_WBITS) != Z_OK) {
        ash_free(out);
        return oom(err);
    }
    for (int rc = Z_OK; st == ASH_OK && rc != Z_STREAM_END;) {
        uInt feed = (uInt)ASH_MIN(left, (uint64_t)1 << 30);
        z.avail_in = feed;
        z.next_out = out;
        z.avail_out = PIECE;
        rc = inflate(&z, Z_NO_FLUSH);
        left -= feed - z.avail_in;
        size_t k = PIECE - z.avail_out;
        if ((rc != Z_OK && rc != Z_STREAM_END) || (k == 0 && rc == Z_OK && feed == z.avail_in) || k > m->bytes - done)
            st = broken(err, "a member does not unpack");
        else {
            crc = crc32(crc, out, (uInt)k);
            done += k;
            if (k) st = sink(ctx, out, k, err);
        }
    }
    inflateEnd(&z);
    ash_free(out);
    if (st == ASH_OK && (done != m->bytes || crc != m->crc)) st = broken(err, "a member has a wrong size or checksum");
    return st;
}

/* ---- tar.gz: the unpacked stream, from its start, up to what is wanted ---- */
typedef struct {
    z_stream z;
    uint64_t left, pos;
    bool end;
} gz;

static ash_status gz_open(gz *g, const ash_archive *a, ash_error *err) {
    *g = (gz){.left = a->n};
    g->z.next_in = a->p;
    return inflateInit2(&g->z, 16 + MAX_WBITS) == Z_OK ? ASH_OK : oom(err);
}

/* Exactly n bytes; fewer only at the end of the stream. */
static ash_status gz_read(gz *g, uint8_t *p, size_t n, size_t *got, ash_error *err) {
    *got = 0;
    while (*got < n && !g->end) {
        uInt feed = (uInt)ASH_MIN(g->left, (uint64_t)1 << 30), room = (uInt)ASH_MIN(n - *got, (size_t)1 << 30);
        g->z.avail_in = feed;
        g->z.next_out = p + *got;
        g->z.avail_out = room;
        int rc = inflate(&g->z, Z_NO_FLUSH);
        g->left -= feed - g->z.avail_in;
        *got += room - g->z.avail_out;
        g->pos += room - g->z.avail_out;
        if (rc == Z_STREAM_END)
            g->end = true;
        else if (rc != Z_OK || (room == g->z.avail_out && feed == g->z.avail_in))
            return broken(err, "it does not unpack");
    }
    return ASH_OK;
}

static ash_status gz_skip(gz *g, uint64_t n, uint8_t *scratch, ash_error *err) {
    while (n) {
        size_t got, k = (size_t)ASH_MIN(n, (uint64_t)PIECE);
        ASH_TRY(gz_read(g, scratch, k, &got, err));
        if (got < k) return broken(err, "it ends inside a member");
        n -= k;
    }
    return ASH_OK;
}

static bool octal(const uint8_t *p, int n, uint64_t *out) {
    uint64_t v = 0;
    int i = 0, digits = 0;
    if (p[0] & 0x80) { /* base 256: for members beyond 8 GiB */
        for (v = p[0] & 0x7f, i = 1; i < n; i++) {
            if (v >> 55) return false;
            v = v << 8 | p[i];
        }
        return *out = v, true;
    }
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++, digits++) v = v << 3 | (uint64_t)(p[i] - '0');
    *out = v;
    return digits > 0;
}

static ash_status tar_open(ash_archive *a, ash_error *err) {
    gz g;
    uint8_t *scratch = ash_alloc(PIECE), h[TAR_BLOCK];
    if (!scratch) return oom(err);
    ash_status st = gz_open(&g, a, err);
    if (st != ASH_OK) {
        ash_free(scratch);
        return st;
    }
    for (;;) {
        size_t got;
        uint64_t size, padded, sum, have = 0;
        ASH_TRY_GOTO(gz_read(&g, h, sizeof h, &got, err), done);
        if (got == 0) break;
        if (got < sizeof h) {
            st = broken(err, "it ends inside a header");
            break;
        }
        for (int i = 0; i < TAR_BLOCK; i++) have += i >= 148 && i < 156 ? ' ' : h[i];
        if (have == 8 * ' ') break; /* a block of zeros is the end */
        if (!octal(h + 124, 12, &size) || !octal(h + 148, 8, &sum) || sum != have) {
            st = broken(err, "a header has a wrong checksum");
            break;
        }
        if (size > (uint64_t)1 << 50) {
            st = broken(err, "a member is larger than any");
            break;
        }
        padded = (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        if (h[156] == '0' || h[156] == 0) {
            char name[260];
            size_t k = strnlen((char *)h + 345, 155), m = strnlen((char *)h, 100);
            bool ustar = memcmp(h + 257, "ustar", 5) == 0 && k;
            int n = snprintf(name, sizeof name, "%.*s%s%.*s", ustar ? (int)k : 0, (char *)h + 345, ustar ? "/" : "", (int)m, (char *)h);
            ASH_TRY_GOTO(add(a, name, (size_t)n, (ash_member){.at = g.pos, .bytes = size}, err), done);
        }
        ASH_TRY_GOTO(gz_skip(&g, padded, scratch, err), done);
    }
done:
    inflateEnd(&g.z);
    ash_free(scratch);
    return st;
}

static ash_status tar_read(const ash_archive *a, const ash_member *m, ash_archive_sink sink, void *ctx, ash_error *err) {
    gz g;
    uint8_t *scratch = ash_alloc(PIECE);
    if (!scratch) return oom(err);
    ash_status st = gz_open(&g, a, err);
    if (st != ASH_OK) {
        ash_free(scratch);
        return st;
    }
    st = gz_skip(&g, m->at, scratch, err);
    for (uint64_t i = 0; st == ASH_OK && i < m->bytes;) {
        size_t got, k = (size_t)ASH_MIN(m->bytes - i, (uint64_t)PIECE);
        st = gz_read(&g, scratch, k, &got, err);
        if (st == ASH_OK && got < k) st = broken(err, "it ends inside a member");
        if (st == ASH_OK) st = sink(ctx, scratch, k, err);
        i += k;
    }
    inflateEnd(&g.z);
    ash_free(scratch);
    return st;
}

/* ---- both ---- */
static ash_status parse(ash_archive *a, const void *p, uint64_t n, ash_error *err) {
    a->p = p;
    a->n = n;
    if (n >= 2 && a->p[0] == 0x1f && a->p[1] == 0x8b) {
        a->tar = true;
        return tar_open(a, err);
    }
    if (n < EOCD || le(a->p, 2) != 0x4b50) return ash_fail(err, ASH_E_FORMAT, "the file is neither zip nor gzip");
    return zip_open(a, err);
}

ash_status ash_archive_open_mem(ash_archive **out, const void *p, size_t n, ash_error *err) {
    ash_archive *a = ash_calloc(1, sizeof *a);
    *out = NULL;
    if (!a) return oom(err);
    ash_status st = parse(a, p, n, err);
    if (st == ASH_OK)
        *out = a;
    else
        ash_archive_close(a);
    return st;
}

ash_status ash_archive_open(ash_archive **out, const char *path, ash_error *err) {
    ash_archive *a = ash_calloc(1, sizeof *a);
    *out = NULL;
    if (!a) return oom(err);
    ash_status st = ash_map_open(&a->map, path, err);
    if (st == ASH_OK) st = parse(a, a->map.p, a->map.n, err);
    if (st == ASH_OK)
        *out = a;
    else
        ash_archive_close(a);
    return st;
}

void ash_archive_close(ash_archive *a) {
    if (!a) return;
    ash_free(a->m);
    ash_arena_free(&a->arena);
    ash_map_close(&a->map);
    ash_free(a);
}

size_t ash_archive_count(const ash_archive *a) { return a->count; }
const ash_member *ash_archive_at(const ash_archive *a, size_t i) { return i < a->count ? &a->m[i] : NULL; }

ash_status ash_archive_read(const ash_archive *a, size_t i, ash_archive_sink sink, void *ctx, ash_error *err) {
    const ash_member *m = &a->m[i];
    return a->tar ? tar_read(a, m, sink, ctx, err) : zip_read(a, m, sink, ctx, err);
}
