#include "lib/ops/dropout.h"

#include <array>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/dropout.h"
#include "lib/core/error.h"
#include "lib/core/random.h"

#ifdef SCRNA_CUDA_ENABLED
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/dropout_cuda.h"
#endif

namespace scrna::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  at::Tensor cu_seqlens, cell_ids;
  uint64_t key = 0;
  uint32_t threshold = 0;
  bool composed = false;
};

kernels::ElementType element_type(at::ScalarType type) {
  if (type == at::kFloat) return kernels::ElementType::kFloat32;
  return type == at::kBFloat16 ? kernels::ElementType::kBFloat16 : kernels::ElementType::kFloat16;
}

bool has_kernel(const at::Tensor& x) {
  if (x.is_cpu()) return x.scalar_type() != at::kHalf;
#ifdef SCRNA_CUDA_ENABLED
  return x.is_cuda();
#else
  return false;
#endif
}

/// The words of Philox for every (token, group of features), as four [T, groups] int64 tensors. LibTorch has
/// no 32 x 32
/// -> 64 bit unsigned product, so each is put together from two halves.
std::array<at::Tensor, 4> philox(std::array<at::Tensor, 4> counter, uint64_t key) {
  constexpr int64_t kLow = 0xFFFFFFFF;
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  const auto product = [](const at::Tensor& c, int64_t factor) {
    const at::Tensor low = c.bitwise_and(0xFFFF).mul(factor);
    const at::Tensor high = c.bitwise_right_shift(16).mul(factor);
    const at::Tensor word_high = high.add(low.bitwise_right_shift(16)).bitwise_right_shift(16);
    const at::Tensor word_low = high.bitwise_and(0xFFFF).bitwise_left_shift(16).add(low).bitwise_and(kLow);
    return std::pair(word_high, word_low);
  };
  for (int round = 0; round < 10; ++round) {
    const auto [high0, low0] = product(counter[0], 0xD2511F53);
    const auto [high1, low1] = product(counter[2], 0xCD9E8D57);
    counter = {high1.bitwise_xor(counter[1]).bitwise_xor(int64_t{key0}), low1,
               high0.bitwise_xor(counter[3]).bitwise_xor(int64_t{key1}), low0};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

/// keep [T, D] bool, from LibTorch operators alone.
at::Tensor composed_mask(const at::Tensor& x, const Call& call) {
  const at::TensorOptions integers = x.options().dtype(at::kLong);
  const at::Tensor begin = call.cu_seqlens.to(at::kLong);
  const at::Tensor tokens = at::arange(x.size(0), integers);
  const at::Tensor cells =
      at::searchsorted(begin.slice(0, 1).contiguous(), tokens, /*out_int32=*/false, /*right=*/true);
  const at::Tensor positions = (tokens.sub(begin.index_select(0, cells))).unsqueeze(1);
  const at::Tensor ids = call.cell_ids.index_select(0, cells).unsqueeze(1);
  const int64_t num_groups = (x.size(1) + kernels::kDropoutGroup - 1) / kernels::kDropoutGroup;
  const at::Tensor groups = at::arange(num_groups, integers).unsqueeze(0).expand({x.size(0), num_groups});
  const auto words =
      philox({positions.expand_as(groups), groups, ids.bitwise_and(0xFFFFFFFF).expand_as(groups),
              ids.bitwise_right_shift(32).bitwise_and(0xFFFFFFFF).expand_as(groups)},
             call.key);
  std::vector<at::Tensor> halves;
  for (const at::Tensor& word : words) {
    halves.push_back(word.bitwise_and(0xFFFF));
    halves.push_back(word.bitwise_right_shift(16));
  }
  return at::stack(halves, 2).flatten(1).narrow(1, 0, x.size(1)).ge(static_cast<int64_t>(call.threshold));
}

at::Tensor apply_mask(const at::Tensor& x, const Call& call) {
  const at::NoGradGuard no_grad;
  const float scale = kernels::dropout_scale(call.threshold);
  if (call.composed) return x.mul(scale).masked_fill_(composed_mask(x, call).logical_not(), 0.0);
  const at::Tensor y = at::empty_like(x);
  const kernels::Dropout kernel{.x = x.data_ptr(),
                                .y = y.data_ptr(),
                                .element_type = element_type(x.scalar_type()),
                                .num_tokens = x.size(0),
                                .width = x.size(1),
                                .cu_seqlens = call.cu_seqlens.data_ptr<int32_t>(),
                                .cell_ids = static_cast<const uint64_t*>(call.cell_ids.data_ptr()),
                                .num_cells = call.cell_ids.numel(),
                                .key = call.key,
                                .threshold = call.threshold};
  if (x.is_cpu()) {
    kernels::dropout_cpu(kernel, at::get_num_threads());
    return y;
  }
#ifdef SCRNA_CUDA_ENABLED
  const c10::cuda::CUDAGuard on_device(x.device());
  const cudaError_t status = kernels::dropout_cuda(kernel, c10::cuda::getCurrentCUDAStream());
  if (status != cudaSuccess)
    throw DeviceError("dropout on {}: {}", x.device().str(), cudaGetErrorString(status));
#endif
  return y;
}

class DropoutFunction : public torch::autograd::Function<DropoutFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<Call>& call) {
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return apply_mask(x, *call);
  }
  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    return {apply_mask(d_outputs[0].contiguous(), *static_cast<const Call*>(capsule.get())), at::Tensor()};
  }
};

void check(const at::Tensor& x, const at::Tensor& cu_seqlens, const at::Tensor& cell_ids) {
  const at::ScalarType type = x.scalar_type();
  SCRNA_CHECK(x.dim() == 2 && x.is_contiguous(), "dropout: x must be a contiguous [T, D]");
  SCRNA_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf,
              "dropout: x must be fp32, bf16 or fp16, got {}", c10::toString(type));
  check_cells("dropout", x, cu_seqlens, cell_ids);
}

}  // namespace

void check_cells(const char* operation, const at::Tensor& x, const at::Tensor& cu_seqlens,
                 const at::Tensor& cell_ids) {
  SCRNA_CHECK(cell_ids.dim() == 1 && cell_ids.scalar_type() == at::kLong && cell_ids.is_contiguous(),
              "{}: cell_ids must be a contiguous int64 [B]", operation);
  SCRNA_CHECK(cu_seqlens.dim() == 1 && cu_seqlens.scalar_type() == at::kInt && cu_seqlens.is_contiguous() &&
                  cu_seqlens.numel() == cell_ids.numel() + 1,
              "{}: cu_seqlens must be a contiguous int32 [B + 1], B = {}", operation, cell_ids.numel());
  SCRNA_CHECK(cu_seqlens.device() == x.device() && cell_ids.device() == x.device(),
              "{}: cu_seqlens and cell_ids must be on {}", operation, x.device().str());
  SCRNA_CHECK(
      !x.is_cpu() || (cu_seqlens[0].item<int32_t>() == 0 && cu_seqlens[-1].item<int32_t>() == x.size(0)),
      "{}: cu_seqlens must run from 0 to {} tokens", operation, x.size(0));
}

uint32_t dropout_threshold(const DropoutSite& site) {
  if (!(site.probability >= 0.0 && site.probability < 1.0))
    throw ConfigError("dropout: probability {} is outside [0, 1)", site.probability);
  const uint32_t threshold = kernels::dropout_threshold(site.probability);
  if (threshold > 65535)
    throw ConfigError("dropout: probability {} leaves nothing at a resolution of 1 / 65,536",
                      site.probability);
  return threshold;
}

uint64_t dropout_key(const DropoutSite& site) {
  const uint64_t where = (uint64_t{site.layer} << 32) | site.site;
  return mix64(mix64(mix64(mix64(site.seed) ^ static_cast<uint64_t>(RandomPurpose::kDropout)) ^
                     static_cast<uint64_t>(site.step)) ^
               where);
}

at::Tensor dropout(const at::Tensor& x_TD, const at::Tensor& cu_seqlens, const at::Tensor& cell_ids,
                   const DropoutSite& site, Implementation implementation) {
  auto call = c10::make_intrusive<Call>();
  call->threshold = dropout_threshold(site);
  check(x_TD, cu_seqlens, cell_ids);
  if (call->threshold == 0) return x_TD;
  call->cu_seqlens = cu_seqlens;
  call->cell_ids = cell_ids;
  call->key = dropout_key(site);
  call->composed = implementation == Implementation::kComposed || !has_kernel(x_TD);
  return DropoutFunction::apply(x_TD, call);
}

}  // namespace scrna::ops
