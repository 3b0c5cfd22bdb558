/* pool.c - a fixed set of workers. A run publishes a job under a new epoch; workers spin for it for a
 * short while, then park on a condition variable. Pieces are claimed by an atomic counter. The caller
 * works too and leaves when every worker that joined has left. */
#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define cpu_relax() __builtin_ia32_pause()
#else
#define cpu_relax() ((void)0)
#endif

enum { SPINS = 4000 }; /* some 50-100 us: longer than the gaps inside a token, shorter than a time slice */

struct ash_pool {
    int n; /* threads incl. the caller */
    pthread_t *tid;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    _Atomic uint64_t epoch;
    _Atomic int parked;
    _Atomic int left; /* workers that have yet to finish the current epoch */
    _Atomic bool stop;
    _Atomic int64_t next;
    int64_t total, grain;
    ash_pool_fn fn;
    void *ctx;
};

typedef struct { ash_pool *p; int ith; } worker_arg;

static void work(ash_pool *p, int ith) {
    for (;;) {
        int64_t b = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (b >= p->total) return;
        p->fn(p->ctx, b, ASH_MIN(b + p->grain, p->total), ith);
    }
}

static void *worker(void *arg) {
    worker_arg wa = *(worker_arg *)arg;
    ash_free(arg);
    ash_pool *p = wa.p;
    uint64_t seen = 0;
    for (;;) {
        int spin = 0;
        while (atomic_load_explicit(&p->epoch, memory_order_acquire) == seen) {
            if (++spin < SPINS) {
                cpu_relax();
                continue;
            }
            pthread_mutex_lock(&p->mu);
            atomic_fetch_add(&p->parked, 1);
            while (atomic_load(&p->epoch) == seen) pthread_cond_wait(&p->cv, &p->mu);
            atomic_fetch_sub(&p->parked, 1);
            pthread_mutex_unlock(&p->mu);
            break;
        }
        seen++;
        if (atomic_load(&p->stop)) return NULL;
        work(p, wa.ith);
        atomic_fetch_sub_explicit(&p->left, 1, memory_order_release);
    }
}

static void publish(ash_pool *p) {
    atomic_store(&p->left, p->n - 1);
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->parked)) {
        pthread_mutex_lock(&p->mu);
        pthread_cond_broadcast(&p->cv);
        pthread_mutex_unlock(&p->mu);
    }
}

static void stop_workers(ash_pool *p, int started) {
    if (started) {
        atomic_store(&p->stop, true);
        atomic_fetch_add(&p->epoch, 1);
        pthread_mutex_lock(&p->mu);
        pthread_cond_broadcast(&p->cv);
        pthread_mutex_unlock(&p->mu);
        for (int i = 0; i < started; i++) pthread_join(p->tid[i], NULL);
    }
    pthread_mutex_destroy(&p->mu);
    pthread_cond_destroy(&p->cv);
    ash_free(p->tid);
    ash_free(p);
}

ash_status ash_pool_new(ash_pool **out, int n_threads, ash_error *err) {
    *out = NULL;
    if (n_threads < 1 || n_threads > 1024) return ash_fail(err, ASH_E_USAGE, "%d threads asked for; 1 to 1024 are possible", n_threads);
    ash_pool *p = ash_calloc(1, sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for a thread pool");
    p->n = n_threads;
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->cv, NULL);
    p->tid = ash_calloc((size_t)n_threads, sizeof *p->tid);
    for (int i = 1; i < n_threads; i++) {
        worker_arg *a = p->tid ? ash_alloc(sizeof *a) : NULL;
        if (a) *a = (worker_arg){p, i};
        if (!a || pthread_create(&p->tid[i - 1], NULL, worker, a) != 0) {
            ash_free(a);
            stop_workers(p, i - 1);
            return ash_fail(err, ASH_E_NOMEM, "cannot start thread %d of %d", i + 1, n_threads);
        }
    }
    *out = p;
    return ASH_OK;
}

void ash_pool_free(ash_pool *p) {
    if (p) stop_workers(p, p->n - 1);
}

int ash_pool_threads(const ash_pool *p) { return p ? p->n : 1; }

void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *ctx) {
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    if (!p || p->n == 1 || n <= grain) {
        for (int64_t b = 0; b < n; b += grain) fn(ctx, b, ASH_MIN(b + grain, n), 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->total = n;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    publish(p);
    work(p, 0);
    /* a worker that has lost its processor to another program needs ours more than we do */
    for (int spin = 0; atomic_load_explicit(&p->left, memory_order_acquire) > 0; spin++) {
        if (spin < SPINS) cpu_relax();
        else sched_yield();
    }
}
