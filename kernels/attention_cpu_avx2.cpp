// The CPU attention for AVX2 and FMA.
#include "kernels/attention_cpu_backward.h"
#include "kernels/attention_cpu_forward.h"

namespace scrna::kernels {

const CpuAttentionCode kAttentionCpuAvx2 = {forward_scratch_floats, forward, backward_scratch_floats,
                                            backward};

}  // namespace scrna::kernels
