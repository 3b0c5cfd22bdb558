/* model.c - load a GGUF as a model: find the architecture, read hyperparameters, bind the tensors; and what others may
 * ask of a loaded model. */
#include "model/arch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct ash_model_lazy {
    pthread_mutex_t mu;
    ash_vocab *vocab;
};

ash_status ash_model_load_gguf(ash_model **out, ash_gguf *g, ash_error *err) {
    *out = NULL;
    ash_status st;
    ash_model *m = ash_calloc(1, sizeof *m);
    if (!m) {
        ash_gguf_close(g);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a model");
    }
    atomic_init(&m->refs, 1);
    m->gguf = g;
    m->lazy = ash_calloc(1, sizeof *m->lazy);
    if (!m->lazy) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a model");
        goto fail;
    }
    pthread_mutex_init(&m->lazy->mu, NULL);

    ash_str arch;
    if (!ash_gguf_get_str(m->gguf, "general.architecture", &arch)) {
        st = ash_fail(err, ASH_E_FORMAT, "key general.architecture is missing");
        goto fail;
    }
    m->arch = ash_arch_find(arch.p, arch.n);
    if (!m->arch) {
        char names[256];
        st = ash_fail(err, ASH_E_UNSUPPORTED, "architecture \"%.*s\" is not supported (known: %s)", (int)ASH_MIN(arch.n, 60), arch.p,
                      ash_arch_names(names, sizeof names));
        goto fail;
    }
    ASH_TRY_GOTO(ash_hparams_read(m, err), fail);
    ASH_TRY_GOTO(ash_bind_tensors(m, err), fail);
    ASH_TRY_GOTO(ash_rope_init(m, err), fail);
    ash_model_advise(m);
    *out = m;
    return ASH_OK;
fail:
    ash_model_free(m);
    return st;
}

ash_status ash_model_load(ash_model **out, const char *path, ash_error *err) {
    *out = NULL;
    ash_gguf *g;
    ASH_TRY(ash_gguf_open(&g, path, err)); /* names the file already */
    ash_status st = ash_model_load_gguf(out, g, err);
    if (st != ASH_OK && err) ash_error_prefix(err, "%s", path);
    return st;
}

ash_model *ash_model_ref(ash_model *m) {
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void ash_model_free(ash_model *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    if (m->lazy) {
        ash_vocab_free(m->lazy->vocab);
        pthread_mutex_destroy(&m->lazy->mu);
        ash_free(m->lazy);
    }
    ash_gguf_close(m->gguf);
    ash_arena_free(&m->arena);
    ash_free(m);
}

const ash_vocab *ash_model_vocab(const ash_model *m, ash_error *err) {
    pthread_mutex_lock(&m->lazy->mu);
    if (!m->lazy->vocab) {
        if (ash_vocab_load(&m->lazy->vocab, m->gguf, err) != ASH_OK) m->lazy->vocab = NULL;
        ash_gguf_forget_metadata(m->gguf); /* tens of megabytes of tokens and merges, read once */
    }
    const ash_vocab *v = m->lazy->vocab;
    pthread_mutex_unlock(&m->lazy->mu);
    return v;
}

const ash_gguf *ash_model_gguf(const ash_model *m) { return m->gguf; }
const char *ash_model_arch(const ash_model *m) { return m->arch->name; }
int32_t ash_model_n_layer(const ash_model *m) { return m->hp.n_layer; }
int32_t ash_model_n_embd(const ash_model *m) { return m->hp.n_embd; }
int32_t ash_model_n_vocab(const ash_model *m) { return m->hp.n_vocab; }
int32_t ash_model_n_ctx_train(const ash_model *m) { return m->hp.n_ctx_train; }
bool ash_model_tied(const ash_model *m) { return m->tied; }
bool ash_model_generates(const ash_model *m) { return m->hp.causal; }

const ash_mat *ash_model_mat(const ash_model *m, int layer, ash_role role) { return &m->layers[layer].w[role]; }
const char *ash_model_mat_name(const ash_model *m, int layer, ash_role role) { return m->layers[layer].name[role]; }
const ash_mat *ash_model_embd(const ash_model *m) { return &m->embd; }
const ash_mat *ash_model_head(const ash_model *m) { return &m->head; }

/* ---- what eval/delta.c repeats ---- */
static const char *not_plain(const ash_model *m, int il) {
    const ash_layer *l = &m->layers[il], *l0 = &m->layers[0];
    if (l->moe) return "has experts";
    if (l->kv_layer != il) return "shares another layer's keys and values";
    if (m->hp.n_ple) return "has a per-layer embedding";
    if (l->out_scale != 1.0f) return "scales its output";
    if (l->v_norm || l->v_from_k) return "normalises its values";
    if (l->rope == ASH_ROPE_NONE || m->hp.rope_long_after) return "has positions of another kind";
    for (int r = 0; r < ASH_W_COUNT; r++) {
        if (!l->w[r].data) return "has no gate or no values";
        if (l->bias[r]) return "has biases";
        if (l->w[r].n_rows != l0->w[r].n_rows || l->w[r].K != l0->w[r].K) return "has another shape than the first";
        for (int o = 0; o < r; o++)
            if (l->name[o] == l->name[r]) return "has fused matrices";
    }
    return NULL;
}

bool ash_model_plain(const ash_model *m, char *why, size_t cap) {
    const char *no = NULL;
    int il = 0;
    if (!m->hp.causal || m->hp.layer_norm) no = "is an encoder's";
    for (; !no && il < m->hp.n_layer; il++) no = not_plain(m, il);
    if (no && why) snprintf(why, cap, "layer %d %s", ASH_MAX(il - 1, 0), no);
    return !no;
}
