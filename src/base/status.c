/* status.c - status names, error records, version. */
#include "base/base.h"

#include <stdio.h>

const char *ash_status_name(ash_status s) {
    switch (s) {
#define X(name, code, exit_code, text)                                                             \
    case ASH_##name: return #name;
        ASH_STATUS_LIST(X)
#undef X
    }
    return "?";
}

const char *ash_status_text(ash_status s) {
    switch (s) {
#define X(name, code, exit_code, text)                                                             \
    case ASH_##name: return text;
        ASH_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

int ash_status_exit(ash_status s) {
    switch (s) {
#define X(name, code, exit_code, text)                                                             \
    case ASH_##name: return exit_code;
        ASH_STATUS_LIST(X)
#undef X
    }
    return 5;
}

static void fill(ash_error *err, ash_status code, uint64_t pos, const char *fmt, va_list ap) {
    if (!err) return;
    err->code = code;
    err->pos = pos;
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    for (char *c = err->msg; *c; c++) /* names come from hostile files: keep it one printable line */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

ash_status ash_fail(ash_error *err, ash_status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, 0, fmt, ap);
    va_end(ap);
    return code;
}

ash_status ash_fail_at(ash_error *err, ash_status code, uint64_t pos, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, pos, fmt, ap);
    va_end(ap);
    return code;
}

ash_status ash_error_prefix(ash_error *err, const char *fmt, ...) {
    if (!err) return ASH_E_INTERNAL;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    ash_status code = err->code;
    uint64_t pos = err->pos;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, pos, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", old);
    return code;
}

const char *ash_version(void) { return ASHLAR_VERSION; }
