/* ref.c - references: computed from a model, opened from a file. The head is redone from the model whenever logits are
 * wanted, so that a reference costs n_embd numbers per position and not n_vocab. */
#include "eval/ref.h"

#include <stdlib.h>

static ash_status check_opts(const ash_eval_text *t, uint32_t n_ctx, uint32_t *n_chunks, ash_error *err) {
    if (n_ctx < 8 || n_ctx > 1u << 20) return ash_fail(err, ASH_E_USAGE, "a chunk of %u tokens is not possible (8 to 1048576)", n_ctx);
    size_t have = t->n / n_ctx;
    if (have == 0) return ash_fail(err, ASH_E_RANGE, "the text has %zu tokens, fewer than one chunk of %u", t->n, n_ctx);
    if (*n_chunks == 0 || *n_chunks > have) *n_chunks = (uint32_t)ASH_MIN(have, (size_t)1 << 22);
    return ASH_OK;
}

ash_status ash_eval_windows(const ash_eval_text *t, const ash_eval_opts *o, uint32_t *n_ctx, uint32_t *n_chunks, ash_error *err) {
    *n_ctx = o->n_ctx ? o->n_ctx : 512;
    *n_chunks = o->n_chunks;
    return check_opts(t, *n_ctx, n_chunks, err);
}

uint32_t ash_chunks_per_group(const ash_exec *e, const ash_model *m, uint32_t n_ctx, uint32_t n_chunks, uint64_t budget) {
    uint64_t base = ash_fwd_bytes(e, m, n_ctx, 0), per = ash_fwd_bytes(e, m, n_ctx, 1) - base;
    uint64_t g = budget > base ? (budget - base) / per : 0;
    g = ASH_MAX(g, (uint64_t)e->n_threads);
    return (uint32_t)ASH_MIN(g, (uint64_t)n_chunks);
}

ash_status ash_eval_ref_compute(ash_eval_ref **out, ash_model *m, const ash_eval_text *t, const ash_eval_opts *o, ash_error *err) {
    *out = NULL;
    ash_status st = ASH_OK;
    ash_exec e = {0};
    ash_token *tok = NULL;
    ash_eval_ref *r = ash_calloc(1, sizeof *r);
    if (!r) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ASH_TRY_GOTO(ash_eval_windows(t, o, &r->n_ctx, &r->n_chunks, err), done);
    r->first = r->n_ctx / 2;
    r->n_embd = (uint32_t)m->hp.n_embd;
    r->n_vocab = (uint32_t)m->hp.n_vocab;
    r->add_bos = t->add_bos;
    r->bos = t->bos;
    memcpy(r->text_sha256, t->sha256, sizeof r->text_sha256);
    r->m = ash_model_ref(m);
    const char *path = ash_gguf_path(m->gguf);
    char *full = path[0] ? realpath(path, NULL) : NULL; /* so that the file is found from any folder */
    r->model_path = ash_strdup(full ? full : path);
    free(full);
    r->head_hash = ash_head_hash(m);
    size_t n = (size_t)r->n_ctx * r->n_chunks, per = ash_ref_per_chunk(r);
    r->tok = ash_calloc(n, sizeof *r->tok);
    r->hidden = ash_alloc_aligned(per * r->n_chunks * r->n_embd * sizeof(float), 64);
    tok = ash_chunk_tokens(t->tokens, r->n_ctx, r->n_chunks, t->add_bos, t->bos);
    if (!r->model_path || !r->tok || !r->hidden || !tok) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a reference of %zu positions", per * r->n_chunks);
        goto done;
    }
    memcpy(r->tok, t->tokens, n * sizeof *r->tok);
    ASH_TRY_GOTO(ash_exec_init(&e, o->n_threads, o->cpu_level, err), done);
    uint32_t g = ash_chunks_per_group(&e, m, r->n_ctx, r->n_chunks, o->mem_bytes ? o->mem_bytes : 512ull << 20);
    uint32_t groups = (r->n_chunks + g - 1) / g;
    for (uint32_t i = 0, c = 0; i < groups; i++, c += g) {
        ash_fwd_job j = {.m = m, .tok = tok + (size_t)c * r->n_ctx, .n_chunks = ASH_MIN(g, r->n_chunks - c), .n_ctx = r->n_ctx,
                         .first = r->first, .end = r->n_ctx - 1, .progress = &o->progress, .stage = "reference",
                         .done0 = (double)i * m->hp.n_layer, .total = (double)groups * m->hp.n_layer};
        ASH_TRY_GOTO(ash_fwd_chunks(&e, &j, r->hidden + (size_t)c * per * r->n_embd, err), done);
    }
done:
    ash_exec_free(&e);
    ash_free(tok);
    if (st == ASH_OK) *out = r;
    else ash_eval_ref_free(r);
    return st;
}

ash_status ash_eval_ref_open(ash_eval_ref **out, const char *path, ash_model *m, ash_error *err) {
    *out = NULL;
    ash_status st = ASH_OK;
    ash_eval_ref *r = ash_calloc(1, sizeof *r);
    if (!r) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ASH_TRY_GOTO(ash_map_open(&r->map, path, err), done);
    if (r->map.n >= 8 && memcmp(r->map.p, "_logits_", 8) == 0) {
        st = ash_base_parse(r, r->map.p, r->map.n, err);
        if (st != ASH_OK) ash_error_prefix(err, "%s", path);
        goto done;
    }
    st = ash_aref_parse(r, r->map.p, r->map.n, err);
    ash_map_close(&r->map);
    if (st != ASH_OK) {
        ash_error_prefix(err, "%s", path);
        goto done;
    }
    if (m) {
        r->m = ash_model_ref(m);
    } else if (r->model_path[0]) {
        st = ash_model_load(&r->m, r->model_path, err);
        if (st != ASH_OK) {
            ash_error_prefix(err, "%s: its reference model cannot be opened", path);
            goto done;
        }
    } else {
        st = ash_fail(err, ASH_E_USAGE, "%s: names no model; give the reference model", path);
        goto done;
    }
    if ((uint32_t)r->m->hp.n_embd != r->n_embd || (uint32_t)r->m->hp.n_vocab != r->n_vocab || ash_head_hash(r->m) != r->head_hash)
        st = ash_fail(err, ASH_E_FORMAT, "%s: was made with another head than the model %s has", path, ash_gguf_path(r->m->gguf));
done:
    if (st == ASH_OK) *out = r;
    else ash_eval_ref_free(r);
    return st;
}

void ash_eval_ref_free(ash_eval_ref *r) {
    if (!r) return;
    ash_ref_clear(r);
    ash_free(r);
}

uint32_t ash_eval_ref_n_ctx(const ash_eval_ref *r) { return r->n_ctx; }
uint32_t ash_eval_ref_n_chunks(const ash_eval_ref *r) { return r->n_chunks; }
const char *ash_eval_ref_text_sha256(const ash_eval_ref *r) { return r->text_sha256; }
