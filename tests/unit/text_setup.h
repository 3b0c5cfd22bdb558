/* text_setup.h - what the tests of tokenizers share: vocabularies from tests/data/tokenizers, text to ids and back. */
#ifndef ASH_TEXT_SETUP_H
#define ASH_TEXT_SETUP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/text.h"
#include "text/merge_int.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct { ash_gguf *g; ash_vocab *v; } voc;

static inline const char *text_data(const char *name) {
    static char buf[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(buf[k], sizeof buf[k], "%s/tokenizers/%s", getenv("ASH_TEST_DATA"), name);
    return buf[k];
}

static inline voc load_path(const char *path) {
    voc v = {0};
    ash_error e = {0};
    if (ash_gguf_open(&v.g, path, &e) != ASH_OK) fail_msg("%s: %s", path, e.msg);
    if (ash_vocab_load(&v.v, v.g, &e) != ASH_OK) fail_msg("%s: %s", path, e.msg);
    return v;
}
static inline voc load(const char *name) { return load_path(text_data(name)); }
static inline void drop(voc *v) {
    ash_vocab_free(v->v);
    ash_gguf_close(v->g);
}

static inline ash_token *tok(const ash_vocab *v, const char *p, size_t n, unsigned flags, size_t *k) {
    ash_token *t;
    ash_error e = {0};
    if (ash_tokenize(v, p, n, flags, &t, k, &e) != ASH_OK) fail_msg("%s", e.msg);
    return t;
}

/* Pieces of any bytes join to those bytes. */
static inline void check_lossless(const ash_vocab *v, const char *p, size_t n, unsigned flags) {
    size_t k, nd;
    ash_token *t = tok(v, p, n, flags, &k);
    char *d;
    assert_int_equal(ash_detokenize(v, t, k, true, &d, &nd, NULL), ASH_OK);
    if (nd != n || memcmp(d, p, n) != 0) fail_msg("%zu bytes came back as %zu", n, nd);
    ash_text_free(d);
    ash_tokens_free(t);
}

/* A file for a vocabulary that a test makes up; path: "/tmp/ash-vocab-XXXXXX". */
static inline void temp_file(char *path) {
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

#endif
