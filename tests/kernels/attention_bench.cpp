// Speed of the CUDA attention kernels beside LibTorch's softmax attention (FlashAttention-2 and, for equal
// lengths, cuDNN), in one run: TFLOP/s forward and backward of valid tokens, 4 H K sum(L^2) and 2.5 times
// that. Random normal operands, bf16. Before each launch the L2 cache is flushed; warm-up, then the median of
// the launches of about a tenth of a second, timed by events. The backward includes everything it needs
// (zeroing and rounding of dQ).
//
//   attention_bench [name ...]      only the rows whose names contain one of the words
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <cuda_runtime_api.h>

#include "kernels/attention_cuda.h"
#include "tests/support/device_memory.h"

namespace scrna {
namespace {

using kernels::SigmoidPrecision;

constexpr double kWarmUpMilliseconds = 30;
constexpr double kMeasureMilliseconds = 100;
constexpr size_t kFlushBytes = size_t{256} << 20;

/// Median milliseconds of one call, all on the default stream.
double time_of(const std::function<void()>& call) {
  static test::DeviceVector<uint8_t> flush(kFlushBytes);
  const auto flushed = [&] { flush.fill_bytes(0); };
  std::vector<cudaEvent_t> events(2);
  const auto grow = [&](size_t size) {
    for (cudaEvent_t& event : events)
      if (event != nullptr) cudaEventDestroy(event);
    events.assign(size, nullptr);
    for (cudaEvent_t& event : events) test::check_cuda(cudaEventCreate(&event), "event");
  };
  const auto measure = [&](size_t count) {
    grow(2 * count);
    for (size_t i = 0; i < count; ++i) {
      flushed();
      cudaEventRecord(events[2 * i]);
      call();
      cudaEventRecord(events[2 * i + 1]);
    }
    test::check_cuda(cudaDeviceSynchronize(), "timed call");
    std::vector<float> times(count);
    for (size_t i = 0; i < count; ++i) cudaEventElapsedTime(&times[i], events[2 * i], events[2 * i + 1]);
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(count / 2), times.end());
    return static_cast<double>(times[count / 2]);
  };
  const double estimate = measure(5);
  measure(std::max<size_t>(1, static_cast<size_t>(kWarmUpMilliseconds / estimate)));
  const double median = measure(std::max<size_t>(3, static_cast<size_t>(kMeasureMilliseconds / estimate)));
  grow(0);
  return median;
}

struct Row {
  std::string name;
  std::vector<int32_t> lengths;
  int64_t heads;
  int64_t width;
};

/// Numbers of expressed genes as in CELLxGENE: log2-normal(10.75, 1.25), clipped to 200 ... 8,192.
std::vector<int32_t> cell_lengths(int num_cells) {
  std::mt19937_64 generator(1);
  std::normal_distribution<double> log2_length(10.75, 1.25);
  std::vector<int32_t> lengths;
  for (int i = 0; i < num_cells; ++i)
    lengths.push_back(static_cast<int32_t>(std::clamp(std::exp2(log2_length(generator)), 200.0, 8192.0)));
  return lengths;
}

std::vector<Row> rows() {
  std::vector<Row> all;
  for (const int64_t width : {64, 128})
    for (const int32_t length : {512, 1024, 4096, 8192, 16384})
      all.push_back(
          {std::string("d").append(std::to_string(width)).append(" T=").append(std::to_string(length)),
           std::vector<int32_t>(static_cast<size_t>(16384 / length), length), 2048 / width, width});
  all.push_back({"ragged 32 cells 12x64", cell_lengths(32), 12, 64});
  all.push_back({"ragged 128 cells 12x64", cell_lengths(128), 12, 64});
  all.push_back({"ragged 32 cells 16x128", cell_lengths(32), 16, 128});
  all.push_back({"one cell of 500 12x64", {500}, 12, 64});
  return all;
}

struct Speeds {
  double forward, backward;  // TFLOP/s
};

class Problem {
 public:
  explicit Problem(const Row& row) : row_(row) {
    std::vector<int32_t> begin{0};
    for (const int32_t length : row.lengths) begin.push_back(begin.back() + length);
    const auto options = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
    const int64_t tokens = begin.back();
    cu_seqlens_ = at::tensor(begin, at::kInt).to(at::kCUDA);
    qkv_ = at::randn({tokens, 3, row.heads, row.width}, options);
    d_o_ = at::randn({tokens, row.heads, row.width}, options);
    o_ = at::empty({tokens, row.heads, row.width}, options);
    d_qkv_ = at::empty(qkv_.sizes(), options);
    max_length_ = *std::max_element(row.lengths.begin(), row.lengths.end());
    for (const int32_t length : row.lengths)
      forward_tflop_ += 4e-12 * static_cast<double>(row.heads * row.width) * length * length;
  }

  Speeds ours(SigmoidPrecision precision, bool deterministic) {
    const kernels::Ragged ragged{
        .cu_seqlens = cu_seqlens_.data_ptr<int32_t>(), .total_tokens = o_.size(0), .max_length = max_length_};
    const kernels::AttentionShape shape{.num_cells = static_cast<int64_t>(row_.lengths.size()),
                                        .num_heads = row_.heads,
                                        .head_width = row_.width,
                                        .query = ragged,
                                        .key = ragged,
                                        .element_type = kernels::ElementType::kBFloat16,
                                        .precision = precision,
                                        .scale = static_cast<float>(1 / std::sqrt(row_.width))};
    const auto view = [](const at::Tensor& x) {
      return kernels::TokenView{x.data_ptr(), x.stride(0), x.stride(1)};
    };
    const auto part = [&](const at::Tensor& x, int64_t i) { return view(x.select(1, i)); };
    const kernels::AttentionForward forward{
        .shape = shape, .q = part(qkv_, 0), .k = part(qkv_, 1), .v = part(qkv_, 2), .o = view(o_)};
    const kernels::AttentionBackward backward{.shape = shape,
                                              .q = part(qkv_, 0),
                                              .k = part(qkv_, 1),
                                              .v = part(qkv_, 2),
                                              .d_o = view(d_o_),
                                              .d_q = part(d_qkv_, 0),
                                              .d_k = part(d_qkv_, 1),
                                              .d_v = part(d_qkv_, 2),
                                              .deterministic = deterministic};
    test::DeviceVector<uint8_t> workspace(std::max(kernels::attention_forward_workspace_bytes(shape),
                                                   kernels::attention_backward_workspace_bytes(shape)));
    return speeds(
        [&] {
          test::check_cuda(kernels::attention_forward_cuda(forward, workspace.data(), nullptr), "forward");
        },
        [&] {
          test::check_cuda(kernels::attention_backward_cuda(backward, workspace.data(), nullptr), "backward");
        });
  }

  Speeds flash() {
    const at::Tensor q = qkv_.select(1, 0), k = qkv_.select(1, 1), v = qkv_.select(1, 2);
    const auto forward = [&] {
      return at::_flash_attention_forward(q, k, v, cu_seqlens_, cu_seqlens_, max_length_, max_length_, 0.0,
                                          false, false, std::optional<double>());
    };
    const auto out = forward();
    return speeds([&] { forward(); },
                  [&] {
                    at::_flash_attention_backward(d_o_, q, k, v, std::get<0>(out), std::get<1>(out),
                                                  cu_seqlens_, cu_seqlens_, max_length_, max_length_, 0.0,
                                                  false, std::get<2>(out), std::get<3>(out));
                  });
  }

  /// Cells of one length only.
  Speeds cudnn() {
    const auto batch = static_cast<int64_t>(row_.lengths.size());
    const auto heads_first = [&](const at::Tensor& x) {
      return x.reshape({batch, max_length_, row_.heads, row_.width}).transpose(1, 2);
    };
    const at::Tensor q = heads_first(qkv_.select(1, 0)), k = heads_first(qkv_.select(1, 1)),
                     v = heads_first(qkv_.select(1, 2)), d_o = heads_first(d_o_);
    const auto forward = [&] { return at::_scaled_dot_product_cudnn_attention(q, k, v, std::nullopt, true); };
    const auto out = forward();
    return speeds([&] { forward(); },
                  [&] {
                    at::_scaled_dot_product_cudnn_attention_backward(
                        d_o, q, k, v, std::get<0>(out), std::get<1>(out), std::get<6>(out), std::get<7>(out),
                        at::Tensor(), at::Tensor(), at::Tensor(), max_length_, max_length_, 0.0, false);
                  });
  }

 private:
  [[nodiscard]] Speeds speeds(const std::function<void()>& forward,
                              const std::function<void()>& backward) const {
    return {1e3 * forward_tflop_ / time_of(forward), 2.5e3 * forward_tflop_ / time_of(backward)};
  }
  Row row_;
  at::Tensor cu_seqlens_, qkv_, d_o_, o_, d_qkv_;
  int64_t max_length_ = 0;
  double forward_tflop_ = 0;
};

void print(const Speeds& speeds) {
  std::printf(" %7.0f %7.0f", speeds.forward, speeds.backward);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  cudaDeviceProp properties{};
  test::check_cuda(cudaGetDeviceProperties(&properties, 0), "device");
  std::printf("%s; TFLOP/s forward, backward; bf16\n%-24s %15s %15s %15s %15s %15s\n", properties.name, "",
              "sigmoid fast", "sigmoid exact", "exact, determ.", "LibTorch flash", "cuDNN");
  for (const Row& row : rows()) {
    const bool wanted = argc == 1 || std::any_of(argv + 1, argv + argc, [&](const char* word) {
                          return row.name.find(word) != std::string::npos;
                        });
    if (!wanted) continue;
    Problem problem(row);
    std::printf("%-24s", row.name.c_str());
    print(problem.ours(SigmoidPrecision::kFast, false));
    print(problem.ours(SigmoidPrecision::kExact, false));
    print(problem.ours(SigmoidPrecision::kExact, true));
    print(problem.flash());
    const bool equal = std::equal(row.lengths.begin() + 1, row.lengths.end(), row.lengths.begin());
    if (equal) print(problem.cudnn());
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace scrna

int main(int argc, char** argv) {
  try {
    return scrna::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attention_bench: %s\n", error.what());
    return 5;
  }
}
