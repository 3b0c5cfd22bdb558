/* fuzz_adapter.c - any bytes as a LoRA adapter of a small model that is made here. */
#include "ashlar/engine.h"
#include "model/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One llama layer of width 32. */
static ash_model *make_model(void) {
    static const struct {
        const char *name;
        uint64_t ne[2];
    } t[] = {{"token_embd.weight", {32, 8}},      {"output.weight", {32, 8}},        {"output_norm.weight", {32, 0}},   {"blk.0.attn_norm.weight", {32, 0}},
             {"blk.0.attn_q.weight", {32, 32}},   {"blk.0.attn_k.weight", {32, 32}}, {"blk.0.attn_v.weight", {32, 32}}, {"blk.0.attn_output.weight", {32, 32}},
             {"blk.0.ffn_norm.weight", {32, 0}},  {"blk.0.ffn_gate.weight", {32, 48}}, {"blk.0.ffn_up.weight", {32, 48}}, {"blk.0.ffn_down.weight", {48, 32}}};
    char path[64];
    snprintf(path, sizeof path, "fuzz_adapter.%ld.gguf", (long)getpid());
    ash_error e;
    ash_gguf_writer *w;
    ash_model *m = NULL;
    static float ones[48 * 32];
    for (size_t i = 0; i < ASH_ARRAY_LEN(ones); i++) ones[i] = 0.01f * (float)(i % 7);
    bool ok = ash_gguf_writer_new(&w, &e) == ASH_OK && ash_gguf_set_str(w, "general.architecture", "llama", 5, &e) == ASH_OK &&
              ash_gguf_set_u32(w, "llama.block_count", 1, &e) == ASH_OK && ash_gguf_set_u32(w, "llama.embedding_length", 32, &e) == ASH_OK &&
              ash_gguf_set_u32(w, "llama.attention.head_count", 2, &e) == ASH_OK && ash_gguf_set_u32(w, "llama.feed_forward_length", 48, &e) == ASH_OK &&
              ash_gguf_set_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f, &e) == ASH_OK;
    for (size_t i = 0; ok && i < ASH_ARRAY_LEN(t); i++) ok = ash_gguf_add_tensor(w, t[i].name, ASH_F32, t[i].ne[1] ? 2 : 1, t[i].ne, &e) == ASH_OK;
    ok = ok && ash_gguf_writer_begin(w, path, &e) == ASH_OK;
    for (size_t i = 0; ok && i < ASH_ARRAY_LEN(t); i++)
        ok = ash_gguf_writer_data(w, ones, (size_t)(t[i].ne[0] * ASH_MAX(t[i].ne[1], 1) * sizeof(float)), &e) == ASH_OK;
    ok = ok && ash_gguf_writer_finish(w, &e) == ASH_OK && ash_model_load(&m, path, &e) == ASH_OK;
    unlink(path);
    if (!ok) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    ash_gguf_writer_free(w);
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static ash_model *m;
    if (!m) m = make_model();
    ash_gguf *g;
    ash_adapter *a;
    ash_error e = {0};
    if (n > 1 << 18 || ash_gguf_open_mem(&g, p, n, &e) != ASH_OK) return 0;
    if (ash_adapter_load_gguf(&a, m, g, &e) != ASH_OK) {
        if (!e.msg[0]) abort();
        return 0;
    }
    ash_session *s;
    ash_session_opts o = {.n_ctx = 3, .n_threads = 1, .cpu_level = -1, .adapters = (const ash_adapter *const[]){a}, .n_adapters = 1};
    static const ash_token t[] = {1, 2, 3};
    if (ash_session_new(&s, m, &o, &e) == ASH_OK) {
        if (ash_session_sync(s, t, 3, NULL, &e) != ASH_OK) abort();
        ash_session_free(s);
    }
    ash_adapter_free(a);
    return 0;
}
