// Speed of the CPU attention, as lib/ops calls it, beside LibTorch's scaled_dot_product_attention (its flash
// CPU kernel, softmax), in one process: milliseconds forward and forward + backward, through autograd, random
// normal operands, all threads. Every round calls each contender once, so that a slow moment of the machine
// meets all of them; the median of the rounds counts. Each side gets the layout it likes best: ours the fused
// projection [T, 3, H, K], the peer contiguous [1 or B, H, n, K] (a ragged pack cell by cell, as it knows no
// packs).
//
//   attention_cpu_bench [--threads N] [--seconds S] [name ...]    only rows whose names contain one of the
//   words
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include "lib/ops/attention.h"

namespace scrna {
namespace {

constexpr int kFewestRounds = 5;

struct Row {
  std::string name;
  std::vector<int32_t> lengths;
  int64_t heads;
  int64_t width;
  at::ScalarType type = at::kFloat;
};

std::vector<Row> rows() {
  const std::vector<int32_t> ragged{2048, 311, 1490, 704, 3107, 220, 989, 1733};
  std::vector<Row> all;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const std::string suffix = type == at::kFloat ? " fp32" : " bf16";
    for (const int64_t width : {64, 128}) {
      const std::string d = " d" + std::to_string(width) + suffix;
      all.push_back({"1 x 2048" + d, {2048}, 768 / width, width, type});
      all.push_back({"4 x 2048" + d, std::vector<int32_t>(4, 2048), 768 / width, width, type});
      all.push_back({"1 x 8192" + d, {8192}, 768 / width, width, type});
      all.push_back({"ragged 8 cells" + d, ragged, 768 / width, width, type});
    }
  }
  return all;
}

double seconds_of(const std::function<void()>& call) {
  const auto begin = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Median milliseconds of every contender, called in turn.
std::vector<double> interleaved_medians(const std::vector<std::function<void()>>& contenders,
                                        double seconds) {
  std::vector<std::vector<double>> times(contenders.size());
  for (const auto& contender : contenders) contender();
  double spent = 0.0;
  for (int round = 0; round < kFewestRounds || spent < seconds; ++round)
    for (size_t i = 0; i < contenders.size(); ++i) {
      times[i].push_back(seconds_of(contenders[i]));
      spent += times[i].back();
    }
  std::vector<double> medians;
  for (std::vector<double>& all : times) {
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::nth_element(all.begin(), middle, all.end());
    medians.push_back(1e3 * *middle);
  }
  return medians;
}

/// Our attention on one fused projection.
class Ours {
 public:
  explicit Ours(const Row& row) {
    std::vector<int32_t> begin{0};
    for (const int32_t length : row.lengths) begin.push_back(begin.back() + length);
    cu_seqlens_ = at::tensor(begin, at::kInt);
    max_cell_tokens_ = *std::max_element(row.lengths.begin(), row.lengths.end());
    qkv_ = at::randn({begin.back(), 3, row.heads, row.width}).to(row.type).set_requires_grad(true);
    d_o_ = at::randn({begin.back(), row.heads, row.width}).to(row.type);
  }
  void run(kernels::AttentionKind kind, bool with_backward) const {
    const at::AutoGradMode grad(with_backward);
    const at::Tensor o = ops::attention_qkv(qkv_, cu_seqlens_, max_cell_tokens_,
                                            {.kind = kind, .implementation = ops::Implementation::kKernel});
    if (with_backward) torch::autograd::grad({o}, {qkv_}, {d_o_});
  }

 private:
  at::Tensor cu_seqlens_, qkv_, d_o_;
  int64_t max_cell_tokens_ = 0;
};

/// The peer: cells of one length in one call, others one by one.
class Peer {
 public:
  explicit Peer(const Row& row) {
    const bool equal = std::all_of(row.lengths.begin(), row.lengths.end(),
                                   [&](int32_t length) { return length == row.lengths[0]; });
    const int64_t batch = equal ? static_cast<int64_t>(row.lengths.size()) : 1;
    const auto operand = [&](int64_t length) {
      return at::randn({batch, row.heads, length, row.width}).to(row.type);
    };
    for (size_t call = 0; call < (equal ? 1 : row.lengths.size()); ++call) {
      Call made{{}, operand(row.lengths[call])};
      for (int i = 0; i < 3; ++i) made.qkv.push_back(operand(row.lengths[call]).set_requires_grad(true));
      calls_.push_back(made);
    }
    const at::Tensor o = attention_of(calls_[0]);
    if (o.grad_fn()->name().find("FlashAttentionForCpu") == std::string::npos)
      throw std::runtime_error("the peer is not LibTorch's flash kernel but " + o.grad_fn()->name());
  }
  void run(bool with_backward) const {
    const at::AutoGradMode grad(with_backward);
    for (const Call& call : calls_) {
      const at::Tensor o = attention_of(call);
      if (with_backward) torch::autograd::grad({o}, call.qkv, {call.d_o});
    }
  }

 private:
  struct Call {
    std::vector<at::Tensor> qkv;  // leaves
    at::Tensor d_o;
  };
  static at::Tensor attention_of(const Call& call) {
    return at::scaled_dot_product_attention(call.qkv[0], call.qkv[1], call.qkv[2]);
  }
  std::vector<Call> calls_;
};

void print(const Row& row, double seconds) {
  using kernels::AttentionKind;
  const Ours ours(row);
  const Peer peer(row);
  std::printf("| %-24s |", row.name.c_str());
  for (const bool with_backward : {false, true}) {
    const std::vector<double> ms = interleaved_medians(
        {[&] { ours.run(AttentionKind::kSigmoid, with_backward); },
         [&] { ours.run(AttentionKind::kSoftmax, with_backward); }, [&] { peer.run(with_backward); }},
        seconds);
    std::printf(" %8.1f | %8.1f | %8.1f | %5.2f | %5.2f |", ms[0], ms[1], ms[2], ms[0] / ms[2],
                ms[1] / ms[2]);
    std::fflush(stdout);
  }
  std::printf("\n");
}

int main_of(std::vector<std::string> words) {
  double seconds = 2.0;
  const auto option = [&](const char* name, const std::function<void(const std::string&)>& use) {
    const auto found = std::find(words.begin(), words.end(), name);
    if (found == words.end()) return;
    if (found + 1 == words.end()) throw std::runtime_error(std::string(name) + " needs a number");
    use(found[1]);
    words.erase(found, found + 2);
  };
  option("--threads", [](const std::string& text) { at::set_num_threads(std::stoi(text)); });
  option("--seconds", [&](const std::string& text) { seconds = std::stod(text); });
  at::manual_seed(1);
  const ops::AttentionChoice choice = ops::choose_attention(at::kCPU, at::kFloat, 64, {});
  std::printf("%s; milliseconds, medians; ratio = ours / LibTorch\n\n", choice.reason.c_str());
  std::printf("| %-24s | forward: sigmoid | softmax | LibTorch | ratio sigmoid | ratio softmax ",
              "cells, head width, type");
  std::printf("| both: sigmoid | softmax | LibTorch | ratio sigmoid | ratio softmax |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Row& row : rows()) {
    const auto named = [&](const std::string& word) { return row.name.find(word) != std::string::npos; };
    if (words.empty() || std::any_of(words.begin(), words.end(), named)) print(row, seconds);
  }
  return 0;
}

}  // namespace
}  // namespace scrna

int main(int argc, char** argv) {
  try {
    return scrna::main_of({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attention_cpu_bench: %s\n", error.what());
    return 70;
  }
}
