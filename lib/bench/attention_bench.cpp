#include "lib/bench/attention_bench.h"

#include <algorithm>
#include <map>

#include <ATen/TensorOperators.h>

#include "lib/bench/attention_forms.h"
#include "lib/bench/timer.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"

namespace scrna::bench {
namespace {

using kernels::SigmoidPrecision;

constexpr int64_t kGpuTokens = 16384;
constexpr int64_t kCpuTokens = 2048;
/// Two right implementations in bf16 differ by less: each is within 5e-3 of fp64. A wrong one differs by far
/// more.
constexpr double kSameResult = 2e-2;

at::ScalarType scalar_type(Type type) {
  switch (type) {
    case Type::kFloat16:
      return at::kHalf;
    case Type::kFloat32:
      return at::kFloat;
    default:
      return at::kBFloat16;
  }
}

std::vector<AttentionForm> gpu_forms([[maybe_unused]] const AttentionBenchOptions& options) {
  std::vector<AttentionForm> forms;
#ifdef SCRNA_CUDA_ENABLED
  const bool learnable = options.bias == Bias::kLearnable;
  forms.push_back(our_attention("sigmoid_exact", "exact", "our sigmoid attention, the default",
                                {.precision = SigmoidPrecision::kExact, .learnable_bias = learnable}));
  forms.push_back(our_attention("sigmoid_fast", "fast", "the same with tanh.approx",
                                {.precision = SigmoidPrecision::kFast, .learnable_bias = learnable}));
  forms.push_back(our_attention(
      "sigmoid_deterministic", "exact, det.", "exact, with gradients that are the same bits in every run",
      {.precision = SigmoidPrecision::kExact, .deterministic = true, .learnable_bias = learnable}));
  forms.push_back(our_attention("sigmoid_portable", "portable",
                                "exact, by the kernels for compute capability 8.0 and later",
                                {.learnable_bias = learnable, .path = kernels::CudaPath::kPortable}));
  forms.push_back(libtorch_flash());
  forms.push_back(libtorch_cudnn());
  if (!options.flash_attention_3.empty()) forms.push_back(flash_attention_3(options.flash_attention_3));
#endif
  return forms;
}

std::vector<AttentionForm> cpu_forms() {
  return {our_cpu_attention(kernels::AttentionKind::kSigmoid),
          our_cpu_attention(kernels::AttentionKind::kSoftmax), libtorch_cpu_attention()};
}

std::vector<AttentionRow> chosen(std::vector<AttentionRow> rows, const std::vector<std::string>& words) {
  std::vector<AttentionRow> kept;
  std::vector<std::string> names;
  for (AttentionRow& row : rows) {
    names.push_back(row.name);
    const bool wanted = std::any_of(words.begin(), words.end(), [&](const std::string& word) {
      return row.name.find(word) != std::string::npos;
    });
    if (words.empty() || wanted) kept.push_back(std::move(row));
  }
  if (kept.empty())
    throw ConfigError("--only {}: no row has a name that contains it; the rows are '{}'",
                      fmt::join(words, " "), fmt::join(names, "', '"));
  return kept;
}

/// Relative L2 distance of a from b, summed in fp64.
double relative_distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).norm() / y.norm()).item<double>();
}

/// Runs both passes once. Empty, or how the results differ from those of `first`, which is set if it is
/// empty.
std::string compare(const AttentionForm& form, const AttentionPasses& passes,
                    std::vector<at::Tensor>& first) {
  std::vector<at::Tensor> results{passes.valid_tokens(passes.forward()).clone()};
  for (const at::Tensor& gradient : passes.backward())
    results.push_back(passes.valid_tokens(gradient).clone());
  if (first.empty()) {
    first = std::move(results);
    return {};
  }
  constexpr std::array kNames{"O", "dQ", "dK", "dV"};
  for (size_t i = 0; i < results.size(); ++i) {
    const double distance = relative_distance(results[i], first[i]);
    if (!(distance <= kSameResult))
      return fmt::format("its {} differs from that of the first {} column by {:.2g} (relative L2)", kNames[i],
                         form.kind, distance);
  }
  return {};
}

/// One row: what each form can run, checked.
class RowRun {
 public:
  RowRun(const AttentionRow& row, const std::vector<AttentionForm>& forms, const at::Device& device,
         at::ScalarType type)
      : forms_(forms), problem_(row, device, type), measurements_(forms.size()), passes_(forms.size()) {
    std::map<std::string, std::vector<at::Tensor>> first_of_kind;
    for (size_t i = 0; i < forms.size(); ++i) {
      measurements_[i].problem = forms[i].missing ? forms[i].missing(row) : std::string();
      if (!measurements_[i].problem.empty()) continue;
      attempt(i, [&] {
        passes_[i] = forms[i].prepare(problem_);
        measurements_[i].problem = compare(forms[i], passes_[i], first_of_kind[forms[i].kind]);
      });
    }
  }

  /// `medians_of` times the passes that can run.
  std::vector<AttentionMeasurement> measure(const Medians& medians_of) {
    std::vector<Call> calls;
    std::vector<std::optional<double>*> times;
    for (size_t i = 0; i < forms_.size(); ++i) {
      if (!measurements_[i].problem.empty()) continue;
      if (forms_[i].measures_forward) {
        calls.emplace_back([this, i] { passes_[i].forward(); });
        times.push_back(&measurements_[i].forward_milliseconds);
      }
      calls.emplace_back([this, i] { passes_[i].backward(); });
      times.push_back(&measurements_[i].backward_milliseconds);
    }
    const std::vector<double> medians = medians_of(calls);
    for (size_t i = 0; i < medians.size(); ++i) *times[i] = medians[i];
    return std::move(measurements_);
  }

 private:
  /// What a peer throws is its problem; what ours throws ends the run.
  template <class Body>
  void attempt(size_t i, Body body) {
    if (!measurements_[i].problem.empty()) return;
    try {
      body();
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      measurements_[i] = {.forward_milliseconds = {},
                          .backward_milliseconds = {},
                          .problem = text.substr(0, text.find('\n'))};
    }
  }

  const std::vector<AttentionForm>& forms_;
  AttentionProblem problem_;
  std::vector<AttentionMeasurement> measurements_;
  std::vector<AttentionPasses> passes_;
};

}  // namespace

AttentionBench::AttentionBench(AttentionBenchOptions options) : options_(std::move(options)) {
  const bool gpu = on_gpu();
  if (options_.dtype == Type::kAuto) options_.dtype = gpu ? Type::kBFloat16 : Type::kFloat32;
  if (gpu && options_.dtype == Type::kFloat32)
    throw ConfigError(
        "--dtype fp32: attention on a GPU is measured in bf16 or fp16; fp32 is for --device cpu");
  if (!gpu && !options_.flash_attention_3.empty())
    throw ConfigError("--flash-attention-3: runs on a GPU, not with --device cpu");
  if (options_.tokens == 0) options_.tokens = gpu ? kGpuTokens : kCpuTokens;
  rows_ =
      chosen(gpu ? gpu_attention_rows(options_.tokens) : cpu_attention_rows(options_.tokens), options_.only);
  if (gpu) require_gpu("bench attention");
  forms_ = gpu ? gpu_forms(options_) : cpu_forms();
}

void AttentionBench::run(const std::function<void(const AttentionRowResult&, double seconds)>& done) {
  const at::Device device = on_gpu() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  std::optional<GpuTimer> timer;
  if (on_gpu()) timer.emplace(options_.measure_ms);
  const auto medians_of = [&](const std::vector<Call>& calls) {
    return timer ? timer->median_milliseconds(calls)
                 : median_milliseconds_in_turns(calls, options_.measure_ms);
  };
  for (const AttentionRow& row : rows_) {
    const double start = now_seconds();
    const AttentionRowResult result =
        measure_row(row, forms_, device, scalar_type(options_.dtype), medians_of);
    done(result, now_seconds() - start);
  }
}

AttentionRowResult measure_row(const AttentionRow& row, const std::vector<AttentionForm>& forms,
                               const at::Device& device, at::ScalarType type, const Medians& medians_of) {
  return {row, RowRun(row, forms, device, type).measure(medians_of)};
}

}  // namespace scrna::bench
