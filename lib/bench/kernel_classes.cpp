#include "lib/bench/kernel_classes.h"

#include <algorithm>
#include <cctype>
#include <unordered_map>

namespace scrna::bench {
namespace {

struct Rule {
  std::string_view part;  // of the name in lower case
  KernelClass kernel_class;
};

// The first rule that fits decides, so attention stands before products: FlashAttention is made of CUTLASS
// parts.
constexpr std::array kRules{
    Rule{"memcpy", KernelClass::kCopies},
    Rule{"memset", KernelClass::kCopies},
    // ours, by the struct they take (kernels/*.h) or by name
    Rule{"forwardparams", KernelClass::kAttention},
    Rule{"backwardparams", KernelClass::kAttention},
    Rule{"planparams", KernelClass::kAttention},
    Rule{"roundparams", KernelClass::kAttention},
    Rule{"bias_gradient_kernel", KernelClass::kAttention},
    Rule{"scoreprobe", KernelClass::kProbe},
    Rule{"row_squares_kernel", KernelClass::kOptimizer},
    Rule{"layer_squares_kernel", KernelClass::kOptimizer},
    Rule{"adamw", KernelClass::kOptimizer},
    Rule{"residualnorm", KernelClass::kNorm},
    Rule{"crossentropy", KernelClass::kLoss},
    Rule{"biasgelu", KernelClass::kGelu},
    Rule{"columnsums", KernelClass::kBiasSums},
    Rule{"biasgradient", KernelClass::kBiasSums},
    Rule{"embedding", KernelClass::kEmbedding},
    Rule{"rowselection", KernelClass::kEmbedding},
    Rule{"dropout", KernelClass::kNorm},
    // LibTorch and its libraries
    Rule{"flash", KernelClass::kAttention},
    Rule{"fmha", KernelClass::kAttention},
    Rule{"sdpa", KernelClass::kAttention},
    Rule{"attention", KernelClass::kAttention},
    Rule{"nvjet", KernelClass::kProducts},
    Rule{"gemm", KernelClass::kProducts},
    Rule{"cutlass", KernelClass::kProducts},
    Rule{"cublas", KernelClass::kProducts},
    Rule{"gemv", KernelClass::kProducts},
    Rule{"splitk", KernelClass::kProducts},
    Rule{"xmma", KernelClass::kProducts},
    Rule{"layer_norm", KernelClass::kNorm},
    Rule{"layernorm", KernelClass::kNorm},
    Rule{"gammabeta", KernelClass::kNorm},
    Rule{"gelu", KernelClass::kGelu},
    Rule{"softmax", KernelClass::kLoss},
    Rule{"nll_loss", KernelClass::kLoss},
    Rule{"adam", KernelClass::kOptimizer},
    Rule{"indexselect", KernelClass::kEmbedding},
    Rule{"index_elementwise", KernelClass::kEmbedding},
    Rule{"sort", KernelClass::kEmbedding},
    Rule{"compute_grad_weight", KernelClass::kEmbedding},
    Rule{"cudafunctor_add", KernelClass::kAutogradSums},
    Rule{"copy", KernelClass::kCopies},
    Rule{"fillfunctor", KernelClass::kCopies},
};

struct Coverage {
  double busy_ns = 0;   // at least one span runs
  double whole_ns = 0;  // from the first begin to the last end
};

Coverage coverage_of(std::vector<std::pair<int64_t, int64_t>> spans) {
  if (spans.empty()) return {};
  std::sort(spans.begin(), spans.end());
  int64_t busy = 0, end = spans.front().first;
  for (const auto& [first, last] : spans) {
    busy += std::max<int64_t>(0, last - std::max(first, end));
    end = std::max(end, last);
  }
  return {.busy_ns = static_cast<double>(busy), .whole_ns = static_cast<double>(end - spans.front().first)};
}

}  // namespace

KernelClass classify_kernel(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const Rule& rule : kRules) {
    if (lower.find(rule.part) != std::string::npos) return rule.kernel_class;
  }
  return KernelClass::kOther;
}

std::string_view class_name(KernelClass kernel_class) {
  for (const auto& [item, name] : kKernelClasses) {
    if (item == kernel_class) return name;
  }
  return {};
}

Breakdown break_down(const std::vector<DeviceEvent>& events, int64_t steps) {
  const double per_step = 1.0 / static_cast<double>(steps);
  Breakdown result;
  for (const auto& [kernel_class, name] : kKernelClasses) result.milliseconds[kernel_class] = 0;
  std::unordered_map<std::string, KernelTime> by_name;
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const DeviceEvent& event : events) {
    KernelTime& kernel = by_name[event.name];
    if (kernel.name.empty()) {
      kernel.name = event.name;
      kernel.kernel_class = classify_kernel(event.name);
    }
    const double milliseconds = static_cast<double>(event.duration_ns) * 1e-6 * per_step;
    kernel.calls_per_step += per_step;
    kernel.milliseconds_per_step += milliseconds;
    result.milliseconds[kernel.kernel_class] += milliseconds;
    spans.emplace_back(event.start_ns, event.start_ns + event.duration_ns);
  }
  const Coverage coverage = coverage_of(std::move(spans));
  result.busy_milliseconds = coverage.busy_ns * 1e-6 * per_step;
  result.step_milliseconds = coverage.whole_ns * 1e-6 * per_step;
  for (auto& [name, kernel] : by_name) result.kernels.push_back(std::move(kernel));
  std::sort(result.kernels.begin(), result.kernels.end(), [](const KernelTime& a, const KernelTime& b) {
    return std::pair(-a.milliseconds_per_step, a.name) < std::pair(-b.milliseconds_per_step, b.name);
  });
  return result;
}

}  // namespace scrna::bench
