/* fuzz_hf_config.c - config.json on arbitrary bytes: hyperparameters, dimensions of every layer, GGUF keys. */
#include "convert/hf_int.h"

static volatile int64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_convert_opts o = ash_convert_defaults();
    ash_hf h = {.dir = "/nonexistent", .o = &o};
    ash_gguf_writer *w = NULL;
    if (ash_hf_json_parse(&h.root, (const char *)p, n, "config.json", NULL) != ASH_OK) return 0;
    h.cfg = h.root;
    if (ash_hf_config_load(&h, NULL) == ASH_OK && ash_gguf_writer_new(&w, NULL) == ASH_OK) {
        for (int64_t il = 0; il < h.p.n_layer; il += 1 + h.p.n_layer / 16)
            for (const char *c = "VDZFGXYQKHWEPLCT1"; *c; c++) sink ^= ash_hf_dim(&h, *c, il);
        ash_hf_config_keys(&h, w, NULL);
    }
    ash_gguf_writer_free(w);
    json_decref(h.root);
    ash_arena_free(&h.arena);
    ash_buf_free(&h.notes);
    return 0;
}
