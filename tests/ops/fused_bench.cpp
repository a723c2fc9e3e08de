// Speed of the fused operations of the training step beside their composed twins and LibTorch's own
// operators, in one run: median milliseconds and, for ours, GB/s of the bytes that each must move (inputs
// read once, outputs written once). The shapes are those of the 160M model on a pack of 65,536 tokens. Random
// operands, bf16 unless said.
//
//   fused_bench [name ...]      only the rows whose names contain one of the words
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/cross_entropy_cuda.h"
#include "lib/ops/adamw_update.h"
#include "lib/ops/embedding.h"
#include "lib/ops/gelu.h"
#include "lib/ops/linear_cross_entropy.h"
#include "lib/ops/parameters.h"
#include "lib/ops/residual_norm.h"
#include "tests/support/device_time.h"

namespace scrna {
namespace {

using ops::Implementation;
using test::median_milliseconds;
using torch::autograd::variable_list;

constexpr int64_t kTokens = 65536;
constexpr int64_t kWidth = 768;
constexpr int64_t kInner = 3072;
constexpr int64_t kGenes = 43804;
constexpr int64_t kMasked = 9830;
constexpr int64_t kCells = 32;

struct Bench {
  std::vector<std::string> words;

  [[nodiscard]] bool wants(const char* name) const {
    return words.empty() || std::any_of(words.begin(), words.end(), [&](const std::string& word) {
             return std::strstr(name, word.c_str());
           });
  }
  /// `bytes`: what must move; 0 for none to state. An empty function prints a dash.
  void row(const char* name, double bytes, const std::function<void()>& ours,
           const std::function<void()>& twin, const std::function<void()>& libtorch) const {
    if (!wants(name)) return;
    const double milliseconds = median_milliseconds(ours);
    std::printf("%-44s %9.3f", name, milliseconds);
    if (bytes > 0)
      std::printf(" %8.0f", 1e-6 * bytes / milliseconds);
    else
      std::printf(" %8s", "-");
    for (const auto& other : {twin, libtorch}) {
      if (other)
        std::printf(" %9.3f", median_milliseconds(other));
      else
        std::printf(" %9s", "-");
    }
    std::printf("\n");
    std::fflush(stdout);
  }
};

at::TensorOptions gpu(at::ScalarType type) { return at::TensorOptions(at::kCUDA).dtype(type); }

at::Tensor leaf(at::IntArrayRef sizes, at::ScalarType type) {
  return at::randn(sizes, gpu(at::kFloat)).to(type).requires_grad_();
}

ops::CellDropout cells() {
  std::vector<int32_t> begin;
  std::vector<int64_t> ids;
  for (int64_t cell = 0; cell <= kCells; ++cell)
    begin.push_back(static_cast<int32_t>(cell * kTokens / kCells));
  for (int64_t cell = 0; cell < kCells; ++cell) ids.push_back(1000 + cell);
  return {at::tensor(begin, at::kInt).to(at::kCUDA),
          at::tensor(ids, at::kLong).to(at::kCUDA),
          {.seed = 1, .step = 2, .layer = 3, .site = 0, .probability = 0.02}};
}

/// The gradient call of a graph that is built once; the graph's inputs are captured with it.
std::function<void()> backward_of(variable_list outputs, variable_list inputs, variable_list d_outputs) {
  return [=] { torch::autograd::grad(outputs, inputs, d_outputs, /*retain_graph=*/true); };
}

void residual_norm(const Bench& bench, at::ScalarType stream, const std::string& suffix) {
  const at::Tensor h = leaf({kTokens, kWidth}, stream), x = leaf({kTokens, kWidth}, at::kBFloat16);
  const ops::LayerNormWeights weights{leaf({kWidth}, at::kFloat), leaf({kWidth}, at::kFloat)};
  const at::Tensor d_h = at::randn({kTokens, kWidth}, gpu(stream));
  const at::Tensor d_y = at::randn({kTokens, kWidth}, gpu(at::kBFloat16));
  const ops::CellDropout dropout = cells();
  const auto run = [=](Implementation implementation) {
    return ops::residual_norm(h, x, weights, at::kBFloat16, dropout, implementation);
  };
  const auto theirs = [=] {
    const at::Tensor sum = h.add(std::get<0>(at::native_dropout(x, 0.02, true)));
    return variable_list{
        sum, at::layer_norm(sum, {kWidth}, weights.gamma.to(stream), weights.beta.to(stream), 1e-5)
                 .to(at::kBFloat16)};
  };
  const double elements = static_cast<double>(kTokens * kWidth);
  const double wide = stream == at::kFloat ? 4 : 2;
  bench.row(("residual+dropout+LayerNorm forward, " + suffix).c_str(), elements * (2 * wide + 4),
            [=] { run(Implementation::kKernel); }, [=] { run(Implementation::kComposed); },
            [=] { theirs(); });
  const variable_list inputs{h, x, weights.gamma, weights.beta}, gradients{d_h, d_y};
  const auto graph = [&](Implementation implementation) {
    const ops::ResidualNorm out = run(implementation);
    return backward_of({out.h, out.y}, inputs, gradients);
  };
  bench.row(("residual+dropout+LayerNorm backward, " + suffix).c_str(), elements * (3 * wide + 4),
            graph(Implementation::kKernel), graph(Implementation::kComposed),
            backward_of(theirs(), inputs, gradients));
}

void gelu(const Bench& bench) {
  const at::Tensor z = leaf({kTokens, kInner}, at::kBFloat16), bias = leaf({kInner}, at::kFloat);
  const at::Tensor d_y = at::randn({kTokens, kInner}, gpu(at::kBFloat16));
  const double elements = static_cast<double>(kTokens * kInner);
  const at::Tensor plain = z.detach();
  bench.row(
      "bias+GELU forward", elements * 4, [=] { ops::bias_gelu(z, bias, Implementation::kKernel); },
      [=] { ops::bias_gelu(z, bias, Implementation::kComposed); }, [=] { at::gelu(plain); });
  const auto graph = [&](Implementation implementation) {
    return backward_of({ops::bias_gelu(z, bias, implementation)}, {z, bias}, {d_y});
  };
  bench.row("bias+GELU backward", elements * 6, graph(Implementation::kKernel),
            graph(Implementation::kComposed), [=] { at::gelu_backward(d_y, plain).sum(0); });
}

double peak_megabytes(const std::function<void()>& call) {
  const auto device = c10::cuda::current_device();
  namespace allocator = c10::cuda::CUDACachingAllocator;
  test::check_cuda(cudaDeviceSynchronize(), "before memory");
  allocator::resetPeakStats(device);
  const auto before = allocator::getDeviceStats(device).allocated_bytes[0].current;
  call();
  test::check_cuda(cudaDeviceSynchronize(), "memory");
  return 1e-6 * static_cast<double>(allocator::getDeviceStats(device).allocated_bytes[0].peak - before);
}

void head(const Bench& bench) {
  if (!bench.wants("linear+cross-entropy")) return;
  const at::Tensor hidden = leaf({kMasked, kWidth}, at::kBFloat16);
  const at::Tensor weight = leaf({kGenes, kWidth}, at::kFloat), bias = leaf({kGenes}, at::kFloat);
  const at::Tensor small_weight = weight.detach().mul(0.02), no_bias = bias.detach().mul(0.02);
  const at::Tensor targets = at::randint(kGenes, {kMasked}, gpu(at::kLong));
  const ops::LinearCrossEntropyInputs in{hidden.detach(), small_weight, no_bias, targets};
  const ops::LinearCrossEntropyGradients out{at::empty_like(in.hidden), at::zeros_like(in.weight),
                                             at::zeros_like(in.bias)};
  const auto run = [=](int64_t rows, Implementation implementation) {
    ops::linear_cross_entropy_with_gradients(in, 1e-4, out,
                                             {.rows_per_chunk = rows, .implementation = implementation});
  };
  const at::Tensor w = small_weight.clone().requires_grad_(), b = no_bias.clone().requires_grad_();
  const auto theirs = [=] {
    const at::Tensor logits = at::linear(hidden, w.to(at::kBFloat16), b.to(at::kBFloat16)).to(at::kFloat);
    const at::Tensor loss = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum);
    torch::autograd::grad({loss}, {hidden, w, b});
  };
  for (const int64_t rows : {2048, 4096, 10000})
    bench.row(("linear+cross-entropy, forward and backward, chunk " + std::to_string(rows)).c_str(), 0,
              [=] { run(rows, Implementation::kKernel); }, [=] { run(rows, Implementation::kComposed); },
              rows == 4096 ? std::function<void()>(theirs) : std::function<void()>());
  std::printf(
      "  peak extra memory, MB: chunk 2048 %.0f, 4096 %.0f, 10000 %.0f; LibTorch %.0f; products alone at 700 "
      "TFLOP/s %.3f ms\n",
      peak_megabytes([=] { run(2048, Implementation::kKernel); }),
      peak_megabytes([=] { run(4096, Implementation::kKernel); }),
      peak_megabytes([=] { run(10000, Implementation::kKernel); }), peak_megabytes(theirs),
      6e-9 * static_cast<double>(kMasked) * kWidth * kGenes / 700);
}

/// The parts of one chunk of 4,096 rows; of products, TFLOP/s.
void head_parts(const Bench& bench) {
  if (!bench.wants("head part")) return;
  constexpr int64_t kRows = 4096, kPadded = 43840;
  const at::Tensor hidden = at::randn({kRows, kWidth}, gpu(at::kBFloat16));
  const at::Tensor weight = at::randn({kPadded, kWidth}, gpu(at::kBFloat16)).mul(0.02);
  const at::Tensor bias = at::zeros({kPadded}, gpu(at::kBFloat16));
  at::Tensor logits = at::empty({kRows, kPadded}, gpu(at::kBFloat16)), d_hidden = at::empty_like(hidden);
  at::Tensor d_weight = at::zeros({kGenes, kWidth}, gpu(at::kFloat));
  const double flop = 2e-9 * static_cast<double>(kRows) * kWidth * kGenes;
  const auto product = [&](const char* name, const std::function<void()>& call) {
    const double milliseconds = median_milliseconds(call);
    std::printf("%-44s %9.3f %8.0f TFLOP/s\n", name, milliseconds, flop / milliseconds);
  };
  product("head part: logits", [&] { at::addmm_out(logits, bias, hidden, weight.t()); });
  product("head part: gradient of hidden", [&] { at::mm_out(d_hidden, logits, weight); });
  const at::Tensor d_logits = logits.narrow(1, 0, kGenes).t();
  product("head part: gradient of W, 43,804 rows, added in fp32",
          [&] { at::addmm_out(d_weight, d_weight, d_logits, hidden, at::kFloat); });
  at::Tensor padded = at::zeros({kPadded, kWidth}, gpu(at::kFloat));
  product("head part: gradient of W, 43,840 rows, overwritten",
          [&] { at::mm_out(padded, logits.t(), hidden, at::kFloat); });
  const at::Tensor targets = at::randint(kGenes, {kRows}, gpu(at::kLong));
  const at::Tensor lse = at::empty({kRows}, gpu(at::kFloat)), losses = at::empty({kRows}, gpu(at::kFloat));
  const at::Tensor d_bias = at::zeros({kGenes}, gpu(at::kFloat));
  const kernels::CrossEntropy call{.num_rows = kRows,
                                   .num_classes = kGenes,
                                   .row_stride = kPadded,
                                   .element_type = kernels::ElementType::kBFloat16,
                                   .logits = logits.data_ptr(),
                                   .targets = targets.data_ptr<int64_t>(),
                                   .lse = lse.data_ptr<float>()};
  const test::DeviceVector<uint8_t> partials(kernels::cross_entropy_workspace_bytes(call));
  const double bytes = 2.0 * kRows * kPadded;
  bench.row("head part: log-sum-exp and loss", bytes,
            [&] {
              test::check_cuda(kernels::cross_entropy_forward_cuda(call, losses.data_ptr<float>(), nullptr),
                               "loss");
            },
            {}, {});
  bench.row("head part: gradient of logits and bias", 2 * bytes,
            [&] {
              const kernels::CrossEntropyGradient gradient{1.0F, d_bias.data_ptr<float>(),
                                                           reinterpret_cast<float*>(partials.data())};
              test::check_cuda(kernels::cross_entropy_backward_cuda(call, gradient, nullptr), "gradient");
            },
            {}, {});
}

void embedding(const Bench& bench) {
  at::Tensor ids = at::randint(kGenes, {kTokens}, gpu(at::kLong));
  ids.masked_fill_(at::randint(100, {kTokens}, gpu(at::kLong)).lt(15), 1);
  const at::Tensor ranks = at::arange(kTokens, gpu(at::kLong)).remainder(kTokens / kCells);
  const ops::EmbeddingLookup genes{leaf({kGenes, kWidth}, at::kFloat), ids};
  const ops::EmbeddingLookup places{leaf({2048, kWidth}, at::kFloat), ranks};
  const ops::CellDropout dropout = cells();
  const auto run = [=](Implementation implementation) {
    return ops::embed(genes, places, at::kFloat, dropout, implementation);
  };
  const auto theirs = [=] {
    return std::get<0>(at::native_dropout(
        at::embedding(genes.table, ids).add(at::embedding(places.table, ranks)), 0.02, true));
  };
  const double elements = static_cast<double>(kTokens * kWidth);
  bench.row(
      "embedding forward, fp32", elements * 8, [=] { run(Implementation::kKernel); },
      [=] { run(Implementation::kComposed); }, [=] { theirs(); });
  const at::Tensor d_e = at::randn({kTokens, kWidth}, gpu(at::kFloat));
  const auto graph = [&](const at::Tensor& e) {
    return backward_of({e}, {genes.table, places.table}, {d_e});
  };
  bench.row("embedding backward, fp32, both tables", elements * 8 + 4.0 * (kGenes + 2048) * kWidth,
            graph(run(Implementation::kKernel)), graph(run(Implementation::kComposed)), graph(theirs()));
  const at::Tensor d_genes = at::zeros_like(genes.table).detach();
  const at::Tensor d_half = d_e.to(at::kBFloat16);
  bench.row(
      "gene gradient added to a flat buffer, bf16", elements * 2 + 8.0 * kGenes * kWidth * 0.7,
      [=] { ops::add_embedding_gradient(d_genes, ids, d_half, dropout, Implementation::kKernel); },
      [=] { ops::add_embedding_gradient(d_genes, ids, d_half, dropout, Implementation::kComposed); }, {});
  const at::Tensor positions =
      std::get<0>(at::sort(at::randperm(kTokens, gpu(at::kLong)).narrow(0, 0, kMasked))).contiguous();
  const at::Tensor x = leaf({kTokens, kWidth}, at::kFloat);
  const at::Tensor d = at::randn({kMasked, kWidth}, gpu(at::kFloat));
  const double chosen = 4.0 * kMasked * kWidth;
  bench.row(
      "masked rows forward, fp32", 2 * chosen,
      [=] { ops::select_rows(x, positions, Implementation::kKernel); },
      [=] { at::index_select(x, 0, positions); }, {});
  bench.row("masked rows backward, fp32", chosen + 4 * elements,
            backward_of({ops::select_rows(x, positions, Implementation::kKernel)}, {x}, {d}),
            backward_of({at::index_select(x, 0, positions)}, {x}, {d}), {});
}

void adamw(const Bench& bench) {
  if (!bench.wants("AdamW") && !bench.wants("gradient norms")) return;
  const int64_t rows = 160'000'000 / 1024;
  std::vector<ops::Parameter> parameters;
  for (int layer = 0; layer < 14; ++layer)
    for (int part = 0; part < 10; ++part) {
      const std::string name = std::to_string(layer);
      parameters.push_back({name + "." + std::to_string(part),
                            at::zeros({rows / 140 * 1024}, gpu(at::kFloat)).requires_grad_(), name,
                            part < 8});
    }
  const ops::ParameterSet set(std::move(parameters));
  const at::NoGradGuard no_grad;
  set.values().copy_(at::randn_like(set.values()));
  set.gradients().copy_(at::randn_like(set.values()));
  const double elements = static_cast<double>(set.values().numel());
  ops::AdamWBuffers b{.values = set.values(),
                      .gradients = set.gradients(),
                      .mean = at::zeros_like(set.values()),
                      .squared_mean = at::zeros_like(set.values()),
                      .compute_copy = at::empty(set.values().sizes(), gpu(at::kBFloat16)),
                      .num_decayed = set.num_decayed(),
                      .num_updates = at::zeros({}, gpu(at::kLong))};
  const at::Tensor squares = set.squared_gradient_norm_per_layer();
  const ops::AdamWUpdate update{.learning_rate = 1e-6, .weight_decay = 0.1, .clip_norm = 1};
  bench.row(
      "gradient norms per layer, 160M", elements * 4,
      [&] { static_cast<void>(set.squared_gradient_norm_per_layer(Implementation::kKernel)); },
      [&] { static_cast<void>(set.squared_gradient_norm_per_layer(Implementation::kComposed)); }, {});
  const at::Tensor step = at::ones({}, gpu(at::kFloat));
  bench.row(
      "AdamW with bf16 copy and clipping, 160M", elements * 30,
      [&] { ops::adamw_update(b, squares, {}, update, Implementation::kKernel); },
      [&] { ops::adamw_update(b, squares, {}, update, Implementation::kComposed); },
      [&] {
        at::_fused_adamw_({b.values}, {b.gradients}, {b.mean}, {b.squared_mean}, {}, {step}, 1e-6, 0.9, 0.999,
                          0.1, 1e-8, false, false);
        b.compute_copy.copy_(b.values);
      });
}

int run(int argc, char** argv) {
  const Bench bench{{argv + 1, argv + argc}};
  cudaDeviceProp properties{};
  test::check_cuda(cudaGetDeviceProperties(&properties, 0), "device");
  std::printf("%s; milliseconds\n%-44s %9s %8s %9s %9s\n", properties.name, "", "ours", "GB/s", "twin",
              "LibTorch");
  {
    const at::Tensor from = at::randn({256 << 20}, gpu(at::kFloat)), to = at::empty_like(from);
    bench.row("copy of 1 GiB: the ceiling", 2.0 * 4 * (256 << 20), [=] { to.copy_(from); }, {}, {});
  }
  residual_norm(bench, at::kFloat, "stream fp32");
  residual_norm(bench, at::kBFloat16, "stream bf16");
  gelu(bench);
  head(bench);
  head_parts(bench);
  embedding(bench);
  adamw(bench);
  return 0;
}

}  // namespace
}  // namespace scrna

int main(int argc, char** argv) {
  try {
    return scrna::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fused_bench: %s\n", error.what());
    return 5;
  }
}
