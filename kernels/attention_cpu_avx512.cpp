// The CPU attention for AVX-512.
#include "kernels/attention_cpu_backward.h"
#include "kernels/attention_cpu_forward.h"

namespace scrna::kernels {

const CpuAttentionCode kAttentionCpuAvx512 = {forward_scratch_floats, forward, backward_scratch_floats,
                                              backward};

}  // namespace scrna::kernels
