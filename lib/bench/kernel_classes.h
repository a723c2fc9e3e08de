// What the kernels of a training step are for, told by their names. The names are those that CUPTI reports:
// our own kernels by the struct they take, cuBLAS by "nvjet", "gemm" or "cutlass", the rest of LibTorch by
// its functors. A name that no rule knows is `other`, and the report lists the largest of those, so that a
// rule that rots is seen.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scrna::bench {

enum class KernelClass {
  kProducts,      // matrix products, the head's too
  kAttention,     // forward, backward, plan and rounding of attention
  kNorm,          // residual + dropout + LayerNorm, and dropout of its own
  kGelu,          // bias + GELU and its backward pass
  kLoss,          // cross-entropy of the head, without its products
  kEmbedding,     // gather, scatter, sort, choice of the masked rows
  kBiasSums,      // column sums: gradients of biases and LayerNorm weights
  kProbe,         // sampled attention scores (train.probe_queries)
  kAutogradSums,  // LibTorch's, where two gradients of one tensor meet: of the embedding's stream, of
                  // LayerNorm weights and of GELU's biases
  kOptimizer,     // gradient norms and AdamW
  kCopies,        // copies and zeroing of memory
  kOther
};
inline constexpr std::array kKernelClasses{
    std::pair{KernelClass::kProducts, std::string_view("matrix products")},
    std::pair{KernelClass::kAttention, std::string_view("attention")},
    std::pair{KernelClass::kNorm, std::string_view("norm and dropout")},
    std::pair{KernelClass::kGelu, std::string_view("gelu")},
    std::pair{KernelClass::kLoss, std::string_view("cross-entropy")},
    std::pair{KernelClass::kEmbedding, std::string_view("embedding")},
    std::pair{KernelClass::kBiasSums, std::string_view("bias gradients")},
    std::pair{KernelClass::kProbe, std::string_view("score probe")},
    std::pair{KernelClass::kAutogradSums, std::string_view("sums of gradients")},
    std::pair{KernelClass::kOptimizer, std::string_view("optimizer")},
    std::pair{KernelClass::kCopies, std::string_view("copies")},
    std::pair{KernelClass::kOther, std::string_view("other")}};

/// Of a demangled kernel name, or of "Memcpy HtoD ..." and "Memset ...".
KernelClass classify_kernel(std::string_view name);
/// The word of kKernelClasses.
std::string_view class_name(KernelClass kernel_class);

/// One kernel or copy on the device.
struct DeviceEvent {
  std::string name;
  int64_t start_ns = 0;
  int64_t duration_ns = 0;
};

struct KernelTime {
  std::string name;
  KernelClass kernel_class = KernelClass::kOther;
  double calls_per_step = 0;
  double milliseconds_per_step = 0;
};

struct Breakdown {
  std::map<KernelClass, double> milliseconds;  // per step, every class
  double busy_milliseconds = 0;                // per step: at least one event runs (streams may overlap)
  double step_milliseconds = 0;  // from the first event's begin to the last one's end, divided by the steps

  /// Of a recorded step: nothing runs.
  [[nodiscard]] double idle_milliseconds() const { return step_milliseconds - busy_milliseconds; }
  std::vector<KernelTime> kernels;  // longest first
};

/// Sums the events of `steps` optimizer steps.
Breakdown break_down(const std::vector<DeviceEvent>& events, int64_t steps);

}  // namespace scrna::bench
