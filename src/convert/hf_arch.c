/* hf_arch.c - the mapping tables: which HF tensor becomes which GGUF tensor, in groups that families share.
 * HF names are without their prefix ("model.", "language_model.", "bert."). A new family is one line at the end, and the
 * groups it does not share. GGUF names: gguf.md and the naming of llama.cpp's files. */
#include "convert/hf_int.h"

#define END \
    { NULL, NULL, NULL, HF_COPY, HF_REQ }
#define LAYER(leaf) "layers.%d." leaf
#define BLK(leaf) "blk.%d." leaf

static const ash_hf_row head[] = {{"embed_tokens.weight", "token_embd.weight", "VD", HF_COPY, HF_REQ},
                                  {"norm.weight", "output_norm.weight", "D", HF_NORM, HF_REQ},
                                  {"lm_head.weight", "output.weight", "VD", HF_COPY, HF_UNTIED},
                                  END};

static const ash_hf_row attn[] = {{LAYER("input_layernorm.weight"), BLK("attn_norm.weight"), "D", HF_NORM, HF_REQ},
                                  {LAYER("self_attn.q_proj.weight"), BLK("attn_q.weight"), "QD", HF_ROPE_Q, HF_REQ},
                                  {LAYER("self_attn.k_proj.weight"), BLK("attn_k.weight"), "KD", HF_ROPE_K, HF_KV},
                                  {LAYER("self_attn.v_proj.weight"), BLK("attn_v.weight"), "KD", HF_COPY, HF_V},
                                  {LAYER("self_attn.o_proj.weight"), BLK("attn_output.weight"), "DQ", HF_COPY, HF_REQ},
                                  {LAYER("self_attn.q_proj.bias"), BLK("attn_q.bias"), "Q", HF_ROPE_Q, HF_OPT},
                                  {LAYER("self_attn.k_proj.bias"), BLK("attn_k.bias"), "K", HF_ROPE_K, HF_OPT},
                                  {LAYER("self_attn.v_proj.bias"), BLK("attn_v.bias"), "K", HF_COPY, HF_OPT},
                                  {LAYER("self_attn.o_proj.bias"), BLK("attn_output.bias"), "D", HF_COPY, HF_OPT},
                                  END};

static const ash_hf_row qk_norm[] = {{LAYER("self_attn.q_norm.weight"), BLK("attn_q_norm.weight"), "H", HF_NORM, HF_REQ},
                                     {LAYER("self_attn.k_norm.weight"), BLK("attn_k_norm.weight"), "H", HF_NORM, HF_KV},
                                     END};

static const ash_hf_row mlp[] = {{LAYER("mlp.gate_proj.weight"), BLK("ffn_gate.weight"), "FD", HF_COPY, HF_DENSE},
                                 {LAYER("mlp.up_proj.weight"), BLK("ffn_up.weight"), "FD", HF_COPY, HF_DENSE},
                                 {LAYER("mlp.down_proj.weight"), BLK("ffn_down.weight"), "DF", HF_COPY, HF_DENSE},
                                 {LAYER("mlp.gate_proj.bias"), BLK("ffn_gate.bias"), "F", HF_COPY, HF_OPT},
                                 {LAYER("mlp.up_proj.bias"), BLK("ffn_up.bias"), "F", HF_COPY, HF_OPT},
                                 {LAYER("mlp.down_proj.bias"), BLK("ffn_down.bias"), "D", HF_COPY, HF_OPT},
                                 END};

static const ash_hf_row pooled[] = {/* EmbeddingGemma: after pooling; the folders' tensors are all called linear.weight */
                                    {"dense_2.linear.weight", "dense_2.weight", "AD", HF_COPY, HF_POOLED},
                                    {"dense_3.linear.weight", "dense_3.weight", "DA", HF_COPY, HF_POOLED},
                                    END};

static const ash_hf_row norm2[] = {{LAYER("post_attention_layernorm.weight"), BLK("ffn_norm.weight"), "D", HF_NORM, HF_REQ}, END};

static const ash_hf_row norm4[] = {/* gemma: a norm before and after each half */
                                   {LAYER("post_attention_layernorm.weight"), BLK("post_attention_norm.weight"), "D", HF_NORM, HF_REQ},
                                   {LAYER("pre_feedforward_layernorm.weight"), BLK("ffn_norm.weight"), "D", HF_NORM, HF_REQ},
                                   {LAYER("post_feedforward_layernorm.weight"), BLK("post_ffw_norm.weight"), "D", HF_NORM, HF_REQ},
                                   END};

static const ash_hf_row mixtral[] = {{LAYER("block_sparse_moe.gate.weight"), BLK("ffn_gate_inp.weight"), "ED", HF_COPY, HF_MOE},
                                     {LAYER("block_sparse_moe.experts.%e.w1.weight"), BLK("ffn_gate_exps.weight"), "XD", HF_STACK, HF_MOE},
                                     {LAYER("block_sparse_moe.experts.%e.w2.weight"), BLK("ffn_down_exps.weight"), "DX", HF_STACK, HF_MOE},
                                     {LAYER("block_sparse_moe.experts.%e.w3.weight"), BLK("ffn_up_exps.weight"), "XD", HF_STACK, HF_MOE},
                                     END};

static const ash_hf_row qwen_moe[] = {{LAYER("mlp.gate.weight"), BLK("ffn_gate_inp.weight"), "ED", HF_COPY, HF_MOE},
                                      {LAYER("mlp.experts.%e.gate_proj.weight"), BLK("ffn_gate_exps.weight"), "XD", HF_STACK, HF_MOE},
                                      {LAYER("mlp.experts.%e.up_proj.weight"), BLK("ffn_up_exps.weight"), "XD", HF_STACK, HF_MOE},
                                      {LAYER("mlp.experts.%e.down_proj.weight"), BLK("ffn_down_exps.weight"), "DX", HF_STACK, HF_MOE},
                                      END};

static const ash_hf_row phi3[] = {/* fused: rows are [q|k|v] and [gate|up] in both formats */
                                  {LAYER("input_layernorm.weight"), BLK("attn_norm.weight"), "D", HF_NORM, HF_REQ},
                                  {LAYER("self_attn.qkv_proj.weight"), BLK("attn_qkv.weight"), "WD", HF_COPY, HF_REQ},
                                  {LAYER("self_attn.o_proj.weight"), BLK("attn_output.weight"), "DQ", HF_COPY, HF_REQ},
                                  {LAYER("mlp.gate_up_proj.weight"), BLK("ffn_up.weight"), "GD", HF_COPY, HF_REQ},
                                  {LAYER("mlp.down_proj.weight"), BLK("ffn_down.weight"), "DF", HF_COPY, HF_REQ},
                                  END};

static const ash_hf_row gemma4[] = {{LAYER("layer_scalar"), BLK("layer_output_scale.weight"), "1", HF_COPY, HF_REQ},
                                    {LAYER("per_layer_input_gate.weight"), BLK("inp_gate.weight"), "PD", HF_COPY, HF_PLE},
                                    {LAYER("per_layer_projection.weight"), BLK("proj.weight"), "DP", HF_COPY, HF_PLE},
                                    {LAYER("post_per_layer_input_norm.weight"), BLK("post_norm.weight"), "D", HF_NORM, HF_PLE},
                                    {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight", "VL", HF_COPY, HF_PLE},
                                    {"per_layer_model_projection.weight", "per_layer_model_proj.weight", "LD", HF_COPY, HF_PLE},
                                    {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", "P", HF_NORM, HF_PLE},
                                    {LAYER("router.proj.weight"), BLK("ffn_gate_inp.weight"), "ED", HF_COPY, HF_MOE_ALL},
                                    {LAYER("router.scale"), BLK("ffn_gate_inp.scale"), "D", HF_COPY, HF_MOE_ALL},
                                    {LAYER("router.per_expert_scale"), BLK("ffn_down_exps.scale"), "E", HF_COPY, HF_MOE_ALL},
                                    {LAYER("experts.gate_up_proj"), BLK("ffn_gate_up_exps.weight"), "EYD", HF_COPY, HF_MOE_ALL},
                                    {LAYER("experts.down_proj"), BLK("ffn_down_exps.weight"), "EDX", HF_COPY, HF_MOE_ALL},
                                    {LAYER("pre_feedforward_layernorm_2.weight"), BLK("pre_ffw_norm_2.weight"), "D", HF_NORM, HF_MOE_ALL},
                                    {LAYER("post_feedforward_layernorm_1.weight"), BLK("post_ffw_norm_1.weight"), "D", HF_NORM, HF_MOE_ALL},
                                    {LAYER("post_feedforward_layernorm_2.weight"), BLK("post_ffw_norm_2.weight"), "D", HF_NORM, HF_MOE_ALL},
                                    END};

#define ENC(leaf) "encoder.layer.%d." leaf
static const ash_hf_row bert[] = {{"embeddings.word_embeddings.weight", "token_embd.weight", "VD", HF_COPY, HF_REQ},
                                  {"embeddings.position_embeddings.weight", "position_embd.weight", "CD", HF_COPY, HF_REQ},
                                  {"embeddings.token_type_embeddings.weight", "token_types.weight", "TD", HF_COPY, HF_REQ},
                                  {"embeddings.LayerNorm.weight", "token_embd_norm.weight", "D", HF_COPY, HF_REQ},
                                  {"embeddings.LayerNorm.bias", "token_embd_norm.bias", "D", HF_COPY, HF_REQ},
                                  {ENC("attention.self.query.weight"), BLK("attn_q.weight"), "DD", HF_COPY, HF_REQ},
                                  {ENC("attention.self.query.bias"), BLK("attn_q.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("attention.self.key.weight"), BLK("attn_k.weight"), "DD", HF_COPY, HF_REQ},
                                  {ENC("attention.self.key.bias"), BLK("attn_k.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("attention.self.value.weight"), BLK("attn_v.weight"), "DD", HF_COPY, HF_REQ},
                                  {ENC("attention.self.value.bias"), BLK("attn_v.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("attention.output.dense.weight"), BLK("attn_output.weight"), "DD", HF_COPY, HF_REQ},
                                  {ENC("attention.output.dense.bias"), BLK("attn_output.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("attention.output.LayerNorm.weight"), BLK("attn_output_norm.weight"), "D", HF_COPY, HF_REQ},
                                  {ENC("attention.output.LayerNorm.bias"), BLK("attn_output_norm.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("intermediate.dense.weight"), BLK("ffn_up.weight"), "FD", HF_COPY, HF_REQ},
                                  {ENC("intermediate.dense.bias"), BLK("ffn_up.bias"), "F", HF_COPY, HF_REQ},
                                  {ENC("output.dense.weight"), BLK("ffn_down.weight"), "DF", HF_COPY, HF_REQ},
                                  {ENC("output.dense.bias"), BLK("ffn_down.bias"), "D", HF_COPY, HF_REQ},
                                  {ENC("output.LayerNorm.weight"), BLK("layer_output_norm.weight"), "D", HF_COPY, HF_REQ},
                                  {ENC("output.LayerNorm.bias"), BLK("layer_output_norm.bias"), "D", HF_COPY, HF_REQ},
                                  END};

#define NENC(leaf) "encoder.layers.%d." leaf
static const ash_hf_row nomic[] = {/* y = fc2(fc11(x) * silu(fc12(x))): fc12 is the gate */
                                   {"embeddings.word_embeddings.weight", "token_embd.weight", "VD", HF_COPY, HF_REQ},
                                   {"embeddings.token_type_embeddings.weight", "token_types.weight", "TD", HF_COPY, HF_REQ},
                                   {"emb_ln.weight", "token_embd_norm.weight", "D", HF_COPY, HF_REQ},
                                   {"emb_ln.bias", "token_embd_norm.bias", "D", HF_COPY, HF_REQ},
                                   {NENC("attn.Wqkv.weight"), BLK("attn_qkv.weight"), "ZD", HF_COPY, HF_REQ},
                                   {NENC("attn.out_proj.weight"), BLK("attn_output.weight"), "DD", HF_COPY, HF_REQ},
                                   {NENC("norm1.weight"), BLK("attn_output_norm.weight"), "D", HF_COPY, HF_REQ},
                                   {NENC("norm1.bias"), BLK("attn_output_norm.bias"), "D", HF_COPY, HF_REQ},
                                   {NENC("mlp.fc11.weight"), BLK("ffn_up.weight"), "FD", HF_COPY, HF_REQ},
                                   {NENC("mlp.fc12.weight"), BLK("ffn_gate.weight"), "FD", HF_COPY, HF_REQ},
                                   {NENC("mlp.fc2.weight"), BLK("ffn_down.weight"), "DF", HF_COPY, HF_REQ},
                                   {NENC("norm2.weight"), BLK("layer_output_norm.weight"), "D", HF_COPY, HF_REQ},
                                   {NENC("norm2.bias"), BLK("layer_output_norm.bias"), "D", HF_COPY, HF_REQ},
                                   END};

static const ash_hf_arch table[] = {
    {HF_LLAMA, "LlamaForCausalLM", "llama", HF_F_PERMUTE, {head, attn, mlp, norm2}},
    {HF_MISTRAL, "MistralForCausalLM", "llama", HF_F_PERMUTE, {head, attn, mlp, norm2}},
    {HF_MIXTRAL, "MixtralForCausalLM", "llama", HF_F_PERMUTE, {head, attn, norm2, mixtral}},
    {HF_QWEN2, "Qwen2ForCausalLM", "qwen2", 0, {head, attn, mlp, norm2}},
    {HF_QWEN3, "Qwen3ForCausalLM", "qwen3", 0, {head, attn, qk_norm, mlp, norm2}},
    {HF_QWEN3MOE, "Qwen3MoeForCausalLM", "qwen3moe", 0, {head, attn, qk_norm, mlp, norm2, qwen_moe}},
    {HF_PHI3, "Phi3ForCausalLM", "phi3", 0, {head, phi3, norm2}},
    {HF_GEMMA2, "Gemma2ForCausalLM", "gemma2", HF_F_NORM1 | HF_F_TIED, {head, attn, mlp, norm4}},
    {HF_GEMMA3, "Gemma3ForCausalLM", "gemma3", HF_F_NORM1 | HF_F_TIED, {head, attn, qk_norm, mlp, norm4}},
    {HF_GEMMA3, "Gemma3ForConditionalGeneration", "gemma3", HF_F_NORM1 | HF_F_TIED, {head, attn, qk_norm, mlp, norm4}},
    {HF_GEMMA_EMB, "Gemma3TextModel", "gemma-embedding", HF_F_NORM1 | HF_F_TIED, {head, attn, qk_norm, mlp, norm4, pooled}},
    {HF_GEMMA4, "Gemma4ForCausalLM", "gemma4", HF_F_TIED, {head, attn, qk_norm, mlp, norm4, gemma4}},
    {HF_GEMMA4, "Gemma4ForConditionalGeneration", "gemma4", HF_F_TIED, {head, attn, qk_norm, mlp, norm4, gemma4}},
    {HF_BERT, "BertModel", "bert", 0, {bert}},
    {HF_BERT, "BertForMaskedLM", "bert", 0, {bert}},
    {HF_NOMIC, "NomicBertModel", "nomic-bert", 0, {nomic}},
};

const ash_hf_arch *ash_hf_arch_at(int i) { return i >= 0 && (size_t)i < ASH_ARRAY_LEN(table) ? &table[i] : NULL; }

const char *ash_convert_arch(int i) {
    const ash_hf_arch *a = ash_hf_arch_at(i);
    return a ? a->hf : NULL;
}
