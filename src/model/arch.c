/* arch.c - the one list of architectures the engine runs. */
#include "model/arch.h"

#include <stdio.h>

static const ash_arch k_archs[] = {
    {.name = "llama", .title = "Llama, Mistral, Mixtral, SmolLM2", .act = ASH_ACT_SILU, .swa = ASH_SWA_ALL, .experts = true},
    {.name = "qwen2", .title = "Qwen 2, 2.5", .rope_neox = true, .qkv_bias = true, .act = ASH_ACT_SILU, .swa = ASH_SWA_NONE},
    {.name = "qwen3", .title = "Qwen 3", .rope_neox = true, .qk_norm = true, .act = ASH_ACT_SILU, .swa = ASH_SWA_NONE},
    {.name = "qwen3moe",
     .title = "Qwen 3 with experts",
     .rope_neox = true,
     .qk_norm = true,
     .act = ASH_ACT_SILU,
     .swa = ASH_SWA_NONE,
     .experts = true},
    {.name = "phi3", .title = "Phi 3, 3.5, 4", .rope_neox = true, .act = ASH_ACT_SILU, .swa = ASH_SWA_ALL},
    {.name = "gemma2",
     .title = "Gemma 2",
     .rope_neox = true,
     .post_norm = true,
     .embd_sqrt = true,
     .act = ASH_ACT_GELU,
     .swa = ASH_SWA_PATTERN,
     .swa_pattern = 2,
     .wide_attn_layers = 46 /* the 27B model: query_pre_attn_scalar = n_embd / n_head */},
    {.name = "gemma3",
     .title = "Gemma 3",
     .rope_neox = true,
     .qk_norm = true,
     .post_norm = true,
     .embd_sqrt = true,
     .act = ASH_ACT_GELU,
     .swa = ASH_SWA_PATTERN,
     .swa_pattern = 6,
     .swa_rope_base = 10000.0f,
     .swa_rope_unscaled = true,
     .wide_attn_layers = 62 /* the 27B model, as above */},
    {.name = "gemma4",
     .title = "Gemma 4",
     .rope_neox = true,
     .qk_norm = true,
     .v_norm = true,
     .v_optional = true,
     .post_norm = true,
     .embd_sqrt = true,
     .experts = true,
     .ple = true,
     .layer_scale = true,
     .act = ASH_ACT_GELU,
     .swa = ASH_SWA_LISTED,
     .swa_rope_base = 10000.0f,
     .swa_rope_unscaled = true,
     .attn_scale = 1.0f},
    {.name = "gemma-embedding",
     .title = "EmbeddingGemma",
     .rope_neox = true,
     .qk_norm = true,
     .post_norm = true,
     .embd_sqrt = true,
     .encoder = true,
     .pooled_dense = true,
     .act = ASH_ACT_GELU,
     .swa = ASH_SWA_PATTERN,
     .swa_pattern = 6,
     .swa_rope_base = 10000.0f,
     .swa_rope_unscaled = true},
    {.name = "bert",
     .title = "BERT, MiniLM",
     .no_rope = true,
     .out_norm = true,
     .layer_norm = true,
     .plain_ffn = true,
     .encoder = true,
     .token_types = true,
     .act = ASH_ACT_GELU_ERF,
     .swa = ASH_SWA_NONE},
    {.name = "nomic-bert",
     .title = "Nomic Embed",
     .rope_neox = true,
     .out_norm = true,
     .layer_norm = true,
     .encoder = true,
     .token_types = true,
     .act = ASH_ACT_SILU,
     .swa = ASH_SWA_NONE},
};

const ash_arch *ash_arch_find(const char *name, size_t n) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_archs); i++)
        if (strlen(k_archs[i].name) == n && memcmp(k_archs[i].name, name, n) == 0) return &k_archs[i];
    return NULL;
}

const char *ash_arch_names(char *buf, size_t cap) {
    size_t at = 0;
    buf[0] = 0;
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_archs) && at < cap; i++) {
        int w = snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", k_archs[i].name);
        if (w < 0) break;
        at += (size_t)w;
    }
    return buf;
}
