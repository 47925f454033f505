// Kernels for AVX-512 with VNNI and BF16.
#include "kernels.h"

#include "avx512.h"

#include "kernels_generic.h"

namespace tsc {
extern const Kernels kernels_avx512 = TSC_KERNELS("avx512");
}
