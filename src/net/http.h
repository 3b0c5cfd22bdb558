/* http.h - fetching over HTTP: a small body into memory, a large one into a file that can be resumed. http_curl.c is the only
 * file that sees libcurl. */
#ifndef ASH_HTTP_H
#define ASH_HTTP_H

#include "base/base.h"

typedef struct {
    const char *url;
    const char *accept; /* NULL: anything */
    const char *token;  /* bearer token, sent to the first host only; NULL: none */
    bool allow_http;
    int retries;
    double wait;
    ash_progress progress;
    const char *label; /* of the progress line */
} ash_http_req;

typedef struct {
    char linked_sha256[65]; /* X-Linked-ETag of a Hugging Face answer, when it is a SHA-256; "" if not */
    char type[128];         /* Content-Type */
    char url[2048];         /* where redirects ended */
    uint64_t bytes;         /* of the whole file */
    uint64_t fetched;       /* over the net, this time */
} ash_http_reply;

/* At most `limit` bytes. */
ash_status ash_http_get(const ash_http_req *q, uint64_t limit, ash_buf *out, ash_http_reply *r, ash_error *err);
/* Into `path`, continuing what an earlier call left there. `path`.meta keeps what proves that the server's file is still the
 * same (ETag or date); without it, and without a checksum that the caller will verify (`checked`), it starts anew. The partial
 * file stays after a failure that another try could mend. */
ash_status ash_http_file(const ash_http_req *q, const char *path, bool checked, ash_http_reply *r, ash_error *err);
/* A link on a page: `rel` as seen from `base`. */
ash_status ash_http_join(const char *base, const char *rel, char *out, size_t size, ash_error *err);

#endif
