// The CPU attention for the plain instruction set of the build (SSE2 on x86-64, NEON on ARM).
#include "kernels/attention_cpu_backward.h"
#include "kernels/attention_cpu_forward.h"

namespace scrna::kernels {

const CpuAttentionCode kAttentionCpuBaseline = {forward_scratch_floats, forward, backward_scratch_floats,
                                                backward};

}  // namespace scrna::kernels
