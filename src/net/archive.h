/* archive.h - members of a zip (a wheel) or a gzipped tar (a source package): list, and stream one. Nothing in an archive is
 * trusted: offsets, sizes, checksums and names are checked, and a member yields exactly the bytes it announces. */
#ifndef ASH_ARCHIVE_H
#define ASH_ARCHIVE_H

#include "base/base.h"

typedef struct {
    const char *name; /* NUL-terminated */
    uint64_t bytes;   /* unpacked */
    uint64_t at;      /* zip: local header; tar: offset of the data in the unpacked stream */
    uint64_t packed;
    uint32_t crc;
    int method; /* zip: 0 stored, 8 deflate */
} ash_member;

typedef struct ash_archive ash_archive;
ash_status ash_archive_open(ash_archive **a, const char *path, ash_error *err);
ash_status ash_archive_open_mem(ash_archive **a, const void *p, size_t n, ash_error *err);
void ash_archive_close(ash_archive *a);
size_t ash_archive_count(const ash_archive *a); /* files only */
const ash_member *ash_archive_at(const ash_archive *a, size_t i);
typedef ash_status (*ash_archive_sink)(void *ctx, const void *p, size_t n, ash_error *err);
ash_status ash_archive_read(const ash_archive *a, size_t i, ash_archive_sink sink, void *ctx, ash_error *err);

#endif
