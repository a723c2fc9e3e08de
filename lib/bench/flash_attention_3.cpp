// FlashAttention-3 as a column of `bench attention`. LibTorch does not hold it; its extension for Hopper
// registers flash_attn_3::fwd and ::bwd with the dispatcher when it is loaded, so a library of the user's
// (built for the stable ABI of LibTorch) is opened by name and called through its schemas: arguments by name,
// defaults for the rest. Its module needs Python's symbols only when Python imports it, hence the lazy
// binding.
#include <cmath>
#include <map>
#include <utility>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/empty.h>
#include <dlfcn.h>

#include "lib/bench/attention_forms.h"
#include "lib/core/error.h"

namespace scrna::bench {
namespace {

using Arguments = std::map<std::string, c10::IValue>;

c10::OperatorHandle find_operator(const std::string& name, const std::string& path) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found.has_value())
    throw ConfigError("--flash-attention-3 {}: the library was loaded but registers no operator {}", path,
                      name);
  return *found;
}

/// Throws ConfigError when the operator does not know one of `names`.
void check_arguments(const c10::OperatorHandle& op, const std::vector<std::string>& names,
                     const std::string& path) {
  for (const std::string& name : names)
    if (!op.schema().argumentIndexWithName(name).has_value())
      throw ConfigError(
          "--flash-attention-3 {}: {} has no argument '{}'; another version than this program knows", path,
          op.schema().name(), name);
}

torch::jit::Stack call(const c10::OperatorHandle& op, const Arguments& given) {
  torch::jit::Stack stack;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const auto it = given.find(argument.name());
    stack.push_back(it != given.end() ? it->second : argument.default_value().value_or(c10::IValue()));
  }
  op.callBoxed(&stack);
  return stack;
}

struct Operators {
  c10::OperatorHandle forward, backward;
};

Operators load(const std::string& path) {
  ::dlopen("libtorch.so", RTLD_LAZY);  // by our own search path; the library may need it and have none
  if (::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    const std::string reason = ::dlerror();
    throw ConfigError("--flash-attention-3 {}: cannot load it: {}{}", path, reason,
                      reason.find("libcudart") == std::string::npos
                          ? ""
                          : " (add the folder of that CUDA runtime to LD_LIBRARY_PATH)");
  }
  const Operators operators{find_operator("flash_attn_3::fwd", path),
                            find_operator("flash_attn_3::bwd", path)};
  const std::vector<std::string> lengths{"cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"};
  check_arguments(operators.forward, {"q", "k", "v", "softmax_scale", "num_splits"}, path);
  check_arguments(operators.forward, lengths, path);
  check_arguments(operators.backward, {"dout", "q", "k", "v", "out", "softmax_lse", "dq", "dk", "dv"}, path);
  check_arguments(operators.backward, lengths, path);
  return operators;
}

AttentionPasses prepare(const Operators& operators, const AttentionProblem& problem) {
  const bool batched = problem.row.has_equal_lengths();
  const auto shaped = [&](const at::Tensor& x) {
    return batched ? x.unflatten(0, {problem.num_cells(), problem.max_length}) : x;
  };
  Arguments arguments{
      {"q", shaped(problem.part(0))}, {"k", shaped(problem.part(1))}, {"v", shaped(problem.part(2))}};
  arguments["softmax_scale"] = 1.0 / std::sqrt(static_cast<double>(problem.row.head_width));
  if (!batched) {
    arguments["cu_seqlens_q"] = arguments["cu_seqlens_k"] = problem.cu_seqlens;
    arguments["max_seqlen_q"] = arguments["max_seqlen_k"] = problem.max_length;
  }
  Arguments of_backward = arguments;
  arguments["num_splits"] = int64_t{1};  // what its Python interface passes
  const torch::jit::Stack out = call(operators.forward, arguments);
  of_backward["dout"] = shaped(problem.d_o);
  of_backward["out"] = out[0];
  of_backward["softmax_lse"] = out[1];
  std::vector<at::Tensor> gradients;
  for (const char* name : {"dq", "dk", "dv"}) {
    gradients.push_back(at::empty(out[0].toTensor().sizes(), out[0].toTensor().options()));
    of_backward[name] = gradients.back();
  }
  return {.forward = [=] { return call(operators.forward, arguments)[0].toTensor(); },
          .backward =
              [=] {
                call(operators.backward, of_backward);
                return gradients;
              },
          .valid_tokens = [batched](const at::Tensor& x) { return batched ? x.flatten(0, 1) : x; }};
}

}  // namespace

AttentionForm flash_attention_3(const std::string& path) {
  const Operators operators = load(path);
  return {.key = "flash_attention_3",
          .title = "FlashAttention-3",
          .kind = "softmax",
          .what = "FlashAttention-3, from the library given",
          .missing = {},
          .prepare = [operators](const AttentionProblem& problem) { return prepare(operators, problem); }};
}

}  // namespace scrna::bench
