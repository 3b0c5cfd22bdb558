/* fit_avx512.c - the fits and the compensated rounding compiled for AVX-512: same bits as fit_ref.c. */
#if defined(__AVX512F__)
#define FIT_FN ash_fit_avx512
#define COMP_FNS ash_comp_avx512
#include "quant/fit.inc"
#include "quant/compensate.inc"
#endif
