/* index.h - which file of a Python package index a requirement means (PEP 503 pages, PEP 691 JSON). */
#ifndef ASH_INDEX_H
#define ASH_INDEX_H

#include "net/http.h"

typedef struct {
    char url[2048], name[256], sha256[65]; /* sha256 "" when the index gives none */
    uint64_t bytes;                        /* 0: not said */
} ash_index_file;

/* `what`: NAME or NAME==VERSION. A wheel for any platform is preferred, then any wheel, then a source package; without a
 * version the newest release that is neither yanked nor a pre-release. q: retries, progress; its url is not used. */
ash_status ash_index_find(ash_index_file *f, const char *index, const char *what, const ash_http_req *q, ash_error *err);
/* The same over a page that is at hand. */
ash_status ash_index_parse(ash_index_file *f, const char *url, const char *page, size_t n, bool json, const char *what, ash_error *err);

#endif
