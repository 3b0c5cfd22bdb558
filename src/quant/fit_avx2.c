/* fit_avx2.c - the fits compiled for AVX2: same bits as fit_ref.c. */
#if defined(__AVX2__)
#define FIT_FN ash_fit_avx2
#include "quant/fit.inc"
#endif
