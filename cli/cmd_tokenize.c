/* cmd_tokenize.c - `ashlar tokenize`: text on standard input to ids on one line. */
#include "cli.h"

#include "ashlar/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool o_bos = true, o_special = true;

static const opt_def opts[] = {
    {OPT_FLAG, 0, "bos", NULL, "add the begin-of-sequence token if the model wants it (on by default; --no-bos)", &o_bos},
    {OPT_FLAG, 0, "special", NULL, "turn special-token text such as <|im_end|> into its token (on by default; --no-special)", &o_special},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* All of standard input. */
static ash_status read_stdin(char **out, size_t *n_out, ash_error *err) {
    size_t n = 0, cap = 1 << 16;
    char *p = malloc(cap);
    while (p) {
        size_t k = fread(p + n, 1, cap - n, stdin);
        n += k;
        if (n < cap) {
            if (ferror(stdin)) {
                free(p);
                return ash_fail(err, ASH_E_IO, "cannot read standard input: %s", strerror(errno));
            }
            if (k == 0 || feof(stdin)) break;
            continue;
        }
        if (cap > INT32_MAX) {
            free(p);
            return ash_fail(err, ASH_E_LIMIT, "standard input is longer than 2 GiB");
        }
        cap *= 2;
        char *q = realloc(p, cap);
        if (!q) free(p);
        p = q;
    }
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for standard input");
    *out = p;
    *n_out = n;
    return ASH_OK;
}

/* Ids come by the million: digits by hand into a block, not printf. */
static void print_ids(const ash_token *t, size_t n, char sep) {
    char buf[8192];
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (at > sizeof buf - 16) {
            fwrite(buf, 1, at, stdout);
            at = 0;
        }
        char d[12];
        int k = 0;
        uint32_t x = (uint32_t)t[i];
        do d[k++] = (char)('0' + x % 10);
        while ((x /= 10) > 0);
        if (i) buf[at++] = sep;
        while (k) buf[at++] = d[--k];
    }
    fwrite(buf, 1, at, stdout);
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    ash_gguf *g = NULL;
    ash_vocab *v = NULL;
    ash_token *t = NULL;
    char *text = NULL;
    size_t n = 0, k = 0;
    unsigned flags = (o_bos ? ASH_TOKENIZE_BOS | ASH_TOKENIZE_EOS : 0u) | (o_special ? ASH_TOKENIZE_SPECIAL : 0u);
    ash_status st = ash_gguf_open(&g, argv[0], &err);
    if (st == ASH_OK) {
        st = ash_vocab_load(&v, g, &err);
        if (st != ASH_OK) ash_error_prefix(&err, "%s", argv[0]);
    }
    if (st == ASH_OK) st = read_stdin(&text, &n, &err);
    if (st == ASH_OK) st = ash_tokenize(v, text, n, flags, &t, &k, &err);
    if (st == ASH_OK) {
        if (g_json) printf("{\"model\":\"%s\",\"n_vocab\":%d,\"n_bytes\":%zu,\"n_tokens\":%zu,\"ids\":[", ash_vocab_model(v), ash_vocab_size(v), n, k);
        print_ids(t, k, g_json ? ',' : ' ');
        fputs(g_json ? "]}\n" : "\n", stdout);
    }
    int rc = st == ASH_OK ? 0 : cli_fail(&err, st);
    ash_tokens_free(t);
    free(text);
    ash_vocab_free(v);
    ash_gguf_close(g);
    return rc;
}

const ash_cmd cmd_tokenize = {
    .name = "tokenize",
    .usage = "MODEL < TEXT",
    .summary = "Turn text on standard input into token ids on one line.",
    .details = "MODEL is any GGUF with a vocabulary; a vocabulary-only file is enough. The text is taken as it is: a newline at its end "
               "is part of it. Bytes that are not UTF-8 are kept by the vocabulary's byte tokens.",
    .opts = opts,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .run = run};
