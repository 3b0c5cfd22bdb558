/* test_doctor.c - the doctor through its header: the table of checks, examinations in memory, allocations that fail, cancelling, and marks
 * of matrices in the wrong place on a made-up trained model. */
#include "base/base.h"
#include "ashlar/doctor.h"
#include "ashlar/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static char *data(const char *rel) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("ASH_TEST_DATA"), rel);
    return path;
}

static ash_doctor_opts quick(void) {
    ash_doctor_opts o = ash_doctor_defaults();
    o.no_run = true;
    o.n_threads = 2;
    return o;
}

static bool has(const ash_doctor *d, ash_doc_check c, const char *where) {
    for (size_t i = 0; i < ash_doctor_n(d); i++)
        if (ash_doctor_at(d, i)->check == c && (!where || strcmp(ash_doctor_at(d, i)->where, where) == 0)) return true;
    return false;
}

static void table(void **state) {
    (void)state;
    for (int i = 0; i < ASH_DOC_COUNT; i++) {
        const ash_doc_info c = ash_doctor_check(i);
        assert_non_null(c.id);
        assert_true(c.text[0] && c.advice[0]);
        for (int k = 0; k < i; k++) assert_string_not_equal(c.id, ash_doctor_check(k).id);
    }
    assert_null(ash_doctor_check(-1).id);
    assert_null(ash_doctor_check(ASH_DOC_COUNT).id);
}

static void memory(void **state) {
    (void)state;
    ash_buf b = {0};
    ash_doctor *d;
    const ash_doctor_opts o = quick();
    assert_int_equal(ash_file_read(data("golden/llama/model.gguf"), 1 << 24, &b, NULL), ASH_OK);
    assert_int_equal(ash_doctor_new_mem(&d, b.p, b.n, &o, NULL), ASH_OK);
    assert_int_equal(ash_doctor_verdict(d), ASH_DOC_INFO);
    assert_false(ash_doctor_ran(d));
    ash_doctor_free(d);
    assert_int_equal(ash_doctor_new_mem(&d, b.p, b.n / 2, &o, NULL), ASH_OK);
    assert_int_equal(ash_doctor_verdict(d), ASH_DOC_ERROR);
    ash_doctor_free(d);
    assert_int_equal(ash_doctor_new_mem(&d, NULL, 0, &o, NULL), ASH_OK);
    assert_true(has(d, ASH_DOC_HEADER, NULL));
    assert_null(ash_doctor_at(d, ash_doctor_n(d)));
    ash_doctor_free(d);
    ash_doctor_free(NULL);
    ash_buf_free(&b);
}

/* Every allocation fails once: no leak (the sanitizers look), no crash, and a sentence. */
static void out_of_memory(void **state) {
    (void)state;
    const ash_doctor_opts o = quick();
    for (uint64_t n = 1;; n += n < 200 ? 1 : 37) {
        ash_doctor *d = NULL;
        ash_error e = {0};
        ash_alloc_fail_after(n);
        const ash_status st = ash_doctor_new(&d, data("golden/gemma3/model.gguf"), &o, &e);
        ash_alloc_fail_after(0);
        if (st == ASH_OK) {
            const bool whole = ash_doctor_verdict(d) == ASH_DOC_INFO;
            ash_doctor_free(d);
            if (whole) break;
            continue;
        }
        assert_null(d);
        assert_int_equal(st, ASH_E_NOMEM);
        assert_true(e.msg[0]);
        assert_true(n < 100000);
    }
}

static bool stop(void *ctx, const char *stage, double done, double total, const char *note) {
    (void)stage, (void)done, (void)total, (void)note;
    return --*(int *)ctx > 0;
}

static void cancelled(void **state) {
    (void)state;
    ash_doctor *d;
    ash_doctor_opts o = quick();
    int left = 5;
    o.progress = (ash_progress){stop, &left};
    assert_int_equal(ash_doctor_new(&d, data("golden/llama/model.gguf"), &o, NULL), ASH_E_CANCELLED);
    assert_null(d);
    assert_int_equal(ash_doctor_new(&d, data("golden/none.gguf"), &o, NULL), ASH_E_IO);
}

/* ---- a model with the marks of training: twelve layers, profiles shared as in trained ones ---- */
enum { L = 12, E = 128, FF = 256, HD = 32, V = 64 };

static double normal(ash_rng *r) { return sqrt(-2 * log(1 - ash_rng_f64(r))) * cos(6.283185307179586 * ash_rng_f64(r)); }

/* n_row x n_col with energies exp(row[i] + col[j]) */
static void put(ash_gguf_writer *w, ash_rng *r, int n_row, int n_col, const float *row, const float *col) {
    float *x = calloc((size_t)n_row * (size_t)n_col, sizeof *x);
    for (int i = 0; i < n_row; i++)
        for (int k = 0; k < n_col; k++) x[i * n_col + k] = (float)(0.02 * normal(r) * exp(0.5 * ((double)row[i] + (double)col[k])));
    assert_int_equal(ash_gguf_writer_data(w, x, (size_t)n_row * (size_t)n_col * sizeof *x, NULL), ASH_OK);
    free(x);
}

static void declare(ash_gguf_writer *w, const char *name, int ne0, int ne1) {
    const uint64_t ne[2] = {(uint64_t)ne0, (uint64_t)ne1};
    assert_int_equal(ash_gguf_add_tensor(w, name, ASH_F32, ne1 ? 2 : 1, ne, NULL), ASH_OK);
}

typedef enum { GOOD, SWAP_UP, SWAP_Q_O, TRANSPOSE_Q } fault;

/* swap: layers 2 and 5 exchange ffn_up; layer 3 exchanges q and o, or has q transposed. */
static void trained(const char *path, fault f) {
    static const struct {
        const char *name;
        int ne0, ne1;
    } k[] = {{"attn_norm", E, 0}, {"attn_q", E, E},    {"attn_k", E, E},  {"attn_v", E, E},   {"attn_output", E, E},
             {"ffn_norm", E, 0},  {"ffn_gate", E, FF}, {"ffn_up", E, FF}, {"ffn_down", FF, E}};
    static float in[L][E], ffn[L][E], heads[L][E], hidden[L][FF], zero[FF], minus[FF], ones[E];
    ash_gguf_writer *w;
    ash_rng r;
    char name[64];
    ash_rng_seed(&r, 7);
    for (int l = 0; l < L; l++) {
        for (int i = 0; i < E; i++)
            in[l][i] = (float)normal(&r), ffn[l][i] = (float)normal(&r), heads[l][i] = (float)normal(&r), ones[i] = 1;
        for (int i = 0; i < FF; i++) hidden[l][i] = (float)normal(&r);
    }
    assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
    ash_gguf_set_str(w, "general.architecture", "llama", 5, NULL);
    ash_gguf_set_u32(w, "llama.block_count", L, NULL);
    ash_gguf_set_u32(w, "llama.embedding_length", E, NULL);
    ash_gguf_set_u32(w, "llama.feed_forward_length", FF, NULL);
    ash_gguf_set_u32(w, "llama.attention.head_count", E / HD, NULL);
    ash_gguf_set_u32(w, "llama.context_length", 64, NULL);
    ash_gguf_set_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f, NULL);
    declare(w, "token_embd.weight", E, V);
    declare(w, "output_norm.weight", E, 0);
    for (int l = 0; l < L; l++)
        for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, k[i].name);
            declare(w, name, k[i].ne0, k[i].ne1);
        }
    assert_int_equal(ash_gguf_writer_begin(w, path, NULL), ASH_OK);
    put(w, &r, V, E, zero, zero);
    assert_int_equal(ash_gguf_writer_data(w, ones, sizeof ones, NULL), ASH_OK);
    for (int l = 0; l < L; l++) {
        const int up = f == SWAP_UP && (l == 2 || l == 5) ? 7 - l : l;
        const bool here = l == 3;
        for (int i = 0; i < FF; i++) minus[i] = -hidden[l][i];
        assert_int_equal(ash_gguf_writer_data(w, ones, sizeof ones, NULL), ASH_OK);
        if (here && f == SWAP_Q_O)
            put(w, &r, E, E, zero, heads[l]);
        else if (here && f == TRANSPOSE_Q)
            put(w, &r, E, E, in[l], zero);
        else
            put(w, &r, E, E, zero, in[l]);
        put(w, &r, E, E, zero, in[l]);
        put(w, &r, E, E, heads[l], in[l]);
        put(w, &r, E, E, zero, here && f == SWAP_Q_O ? in[l] : heads[l]);
        assert_int_equal(ash_gguf_writer_data(w, ones, sizeof ones, NULL), ASH_OK);
        put(w, &r, FF, E, zero, ffn[l]);
        put(w, &r, FF, E, hidden[up], ffn[up]);
        put(w, &r, E, FF, zero, minus);
    }
    assert_int_equal(ash_gguf_writer_finish(w, NULL), ASH_OK);
    ash_gguf_writer_free(w);
}

static void wrong_places(void **state) {
    (void)state;
    static const struct {
        fault f;
        ash_doc_check c;
        const char *where;
    } k[] = {{GOOD, ASH_DOC_COUNT, NULL},
             {SWAP_UP, ASH_DOC_SWAPPED, "blk.2.ffn_up.weight"},
             {SWAP_Q_O, ASH_DOC_SWAPPED, "blk.3.attn_q.weight"},
             {TRANSPOSE_Q, ASH_DOC_TRANSPOSED, "blk.3.attn_q.weight"}};
    const ash_doctor_opts o = quick();
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
        ash_doctor *d;
        trained("doctor.gguf", k[i].f);
        assert_int_equal(ash_doctor_new(&d, "doctor.gguf", &o, NULL), ASH_OK);
        assert_int_equal(ash_doctor_verdict(d), k[i].f == GOOD ? ASH_DOC_INFO : ASH_DOC_ERROR);
        if (k[i].f != GOOD) assert_true(has(d, k[i].c, k[i].where));
        ash_doctor_free(d);
    }
    remove("doctor.gguf");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(memory), cmocka_unit_test(out_of_memory),
                                       cmocka_unit_test(cancelled), cmocka_unit_test(wrong_places)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
