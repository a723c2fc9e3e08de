#include "lib/ops/embedding.h"

#include <string>
#include <tuple>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/embedding_cuda.h"
#endif

namespace scrna::ops {
namespace {

bool has(const EmbeddingLookup& lookup) { return lookup.table.defined(); }

void check(const EmbeddingLookup& lookup, const EmbeddingLookup& like) {
  SCRNA_CHECK(lookup.table.dim() == 2 && lookup.table.is_floating_point(), "embed: a table must be [V, D]");
  SCRNA_CHECK(lookup.ids.dim() == 1 && lookup.ids.scalar_type() == at::kLong, "embed: ids must be int64 [T]");
  SCRNA_CHECK(lookup.table.size(1) == like.table.size(1) && lookup.ids.numel() == like.ids.numel() &&
                  lookup.table.scalar_type() == like.table.scalar_type(),
              "embed: both tables must have one width and type, and both lists of ids one length");
  SCRNA_CHECK(lookup.table.device() == like.table.device() && lookup.ids.device() == like.table.device(),
              "embed: tables and ids must be on {}", like.table.device().str());
  if (lookup.ids.is_cpu() && lookup.ids.numel() > 0)
    SCRNA_CHECK(
        lookup.ids.min().item<int64_t>() >= 0 && lookup.ids.max().item<int64_t>() < lookup.table.size(0),
        "embed: an id is outside [0, {})", lookup.table.size(0));
}

/// x itself where nothing is dropped.
at::Tensor drop(const at::Tensor& x, const std::optional<CellDropout>& dropout,
                Implementation implementation) {
  return dropout ? ops::dropout(x, dropout->cu_seqlens, dropout->cell_ids, dropout->site, implementation) : x;
}

at::Tensor composed(const EmbeddingLookup& first, const EmbeddingLookup& second, at::ScalarType type,
                    const std::optional<CellDropout>& dropout, Implementation implementation) {
  const at::ScalarType given = first.table.scalar_type();
  const at::ScalarType sum_type = given == at::kBFloat16 || given == at::kHalf ? at::kFloat : given;
  at::Tensor sum = at::embedding(first.table, first.ids).to(sum_type);
  if (has(second)) sum = sum.add(at::embedding(second.table, second.ids));
  return drop(sum, dropout, implementation).to(type);
}

#ifdef SCRNA_CUDA_ENABLED

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<at::Tensor>;

struct EmbedCall : torch::CustomClassHolder {
  EmbeddingLookup first, second;  // in the forward pass; afterwards only what has no gradient
  std::optional<CellDropout> dropout;
  at::ScalarType type = at::kFloat;
};

kernels::Embedding kernel_shape(int64_t tokens, int64_t width, at::ScalarType type,
                                const std::optional<CellDropout>& dropout) {
  return {.num_tokens = tokens,
          .width = width,
          .element_type = element_type(type),
          .mask = dropout_mask(dropout)};
}

std::string missing_for_kernel(const EmbedCall& call) {
  const at::ScalarType table_type = call.first.table.scalar_type();
  if (table_type != at::kFloat && table_type != at::kBFloat16) return "it takes tables in fp32 and bf16";
  const bool wants_gradients =
      at::GradMode::is_enabled() &&
      (call.first.table.requires_grad() || (has(call.second) && call.second.table.requires_grad()));
  if (table_type == at::kBFloat16 && wants_gradients) return "gradients are for tables in fp32";
  const std::string unreadable =
      unreadable_by_kernels({call.first.table, call.first.ids, call.second.table, call.second.ids});
  if (!unreadable.empty()) return unreadable;
  const char* reason = kernels::embedding_unsupported(
      kernel_shape(call.first.ids.numel(), call.first.table.size(1), call.type, call.dropout));
  return reason == nullptr ? std::string() : reason;
}

kernels::EmbeddingTable kernel_table(const EmbeddingLookup& lookup) {
  if (!has(lookup)) return {};
  return {.rows = lookup.table.data_ptr(),
          .ids = lookup.ids.data_ptr<int64_t>(),
          .num_rows = lookup.table.size(0)};
}

void kernel_gradient(const at::Tensor& d_table, const at::Tensor& ids, const at::Tensor& d_e,
                     const std::optional<CellDropout>& dropout, bool accumulate) {
  const auto [sorted_ids, order] = at::sort(ids.to(at::kInt), /*stable=*/std::optional<bool>(true));
  const kernels::Embedding shape = kernel_shape(ids.numel(), d_table.size(1), d_e.scalar_type(), dropout);
  const at::Tensor partials = kernel_workspace(kernels::embedding_workspace_bytes(shape), d_e);
  launch_on_stream(d_e, "embed backward", [&, &sorted = sorted_ids, &places = order](cudaStream_t stream) {
    return kernels::embedding_backward_cuda({.shape = shape,
                                             .d_e = d_e.data_ptr(),
                                             .sorted_ids = sorted.data_ptr<int32_t>(),
                                             .order = places.data_ptr<int64_t>(),
                                             .num_rows = d_table.size(0),
                                             .d_table = d_table.data_ptr<float>(),
                                             .accumulate = accumulate,
                                             .partials = static_cast<float*>(partials.data_ptr())},
                                            stream);
  });
}

class EmbedFunction : public torch::autograd::Function<EmbedFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& first, const OptionalTensor& second,
                            const c10::intrusive_ptr<EmbedCall>& call) {
    const at::Tensor e =
        at::empty({call->first.ids.numel(), first.size(1)}, first.options().dtype(call->type));
    launch_on_stream(e, "embed forward", [&](cudaStream_t stream) {
      return kernels::embedding_forward_cuda(
          {.shape = kernel_shape(e.size(0), e.size(1), call->type, call->dropout),
           .table_type = element_type(first.scalar_type()),
           .first = kernel_table(call->first),
           .second = kernel_table(call->second),
           .e = e.data_ptr()},
          stream);
    });
    context->saved_data["first_rows"] = first.requires_grad() ? first.size(0) : int64_t{-1};
    context->saved_data["second_rows"] = second && second->requires_grad() ? second->size(0) : int64_t{-1};
    call->first.table.reset();  // a call that held what it has to be freed with would never be freed
    call->second.table.reset();
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return e;
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const auto& call = *static_cast<const EmbedCall*>(capsule.get());
    const at::Tensor d_e = d_outputs[0].contiguous();
    const auto gradient = [&](const char* rows_name, const at::Tensor& ids) {
      const int64_t rows = context->saved_data[rows_name].toInt();
      if (rows < 0) return at::Tensor();
      const at::Tensor d_table = at::empty({rows, d_e.size(1)}, d_e.options().dtype(at::kFloat));
      kernel_gradient(d_table, ids, d_e, call.dropout, /*accumulate=*/false);
      return d_table;
    };
    return {gradient("first_rows", call.first.ids), gradient("second_rows", call.second.ids), at::Tensor()};
  }
};

kernels::RowSelection selection(const at::Tensor& rows, const at::Tensor& positions) {
  return {.num_rows = rows.size(0),
          .width_bytes = rows.size(1) * rows.element_size(),
          .positions = positions.data_ptr<int64_t>(),
          .num_positions = positions.numel()};
}

class SelectRowsFunction : public torch::autograd::Function<SelectRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& positions) {
    const at::Tensor selected = at::empty({positions.numel(), x.size(1)}, x.options());
    launch_on_stream(x, "select_rows forward", [&](cudaStream_t stream) {
      return kernels::gather_rows_cuda(selection(x, positions), x.data_ptr(), selected.data_ptr(), stream);
    });
    context->save_for_backward({positions});
    context->saved_data["num_rows"] = x.size(0);
    return selected;
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const at::Tensor positions = context->get_saved_variables()[0];
    const at::Tensor d_selected = d_outputs[0].contiguous();
    const at::Tensor d_x =
        at::empty({context->saved_data["num_rows"].toInt(), d_selected.size(1)}, d_selected.options());
    launch_on_stream(d_x, "select_rows backward", [&](cudaStream_t stream) {
      return kernels::scatter_rows_cuda(selection(d_x, positions), d_selected.data_ptr(), d_x.data_ptr(),
                                        stream);
    });
    return {d_x, at::Tensor()};
  }
};

#endif

}  // namespace

at::Tensor embed(const EmbeddingLookup& first, const EmbeddingLookup& second, at::ScalarType type,
                 const std::optional<CellDropout>& dropout, Implementation implementation) {
  check(first, first);
  if (has(second)) check(second, first);
  if (dropout) check_cells("embed", first.ids, dropout->cu_seqlens, dropout->cell_ids);
#ifdef SCRNA_CUDA_ENABLED
  auto call = c10::make_intrusive<EmbedCall>();
  call->first = first;
  call->second = second;
  call->dropout = dropout;
  call->type = type;
  if (use_kernel(implementation, "embed", missing_for_kernel(*call)))
    return EmbedFunction::apply(first.table, has(second) ? OptionalTensor(second.table) : std::nullopt, call);
#else
  use_kernel(implementation, "embed", unreadable_by_kernels({}));
#endif
  return composed(first, second, type, dropout, implementation);
}

void add_embedding_gradient(const at::Tensor& d_table, const at::Tensor& ids, const at::Tensor& d_e_TD,
                            const std::optional<CellDropout>& dropout, Implementation implementation) {
  const at::ScalarType sums = d_e_TD.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  SCRNA_CHECK(d_table.dim() == 2 && d_table.scalar_type() == sums && d_table.is_contiguous(),
              "add_embedding_gradient: d_table must be a contiguous {} [V, D]", c10::toString(sums));
  SCRNA_CHECK(ids.dim() == 1 && ids.scalar_type() == at::kLong && ids.device() == d_table.device(),
              "add_embedding_gradient: ids must be int64 [T] on {}", d_table.device().str());
  SCRNA_CHECK(d_e_TD.dim() == 2 && d_e_TD.is_contiguous() && d_e_TD.size(0) == ids.numel() &&
                  d_e_TD.size(1) == d_table.size(1) && d_e_TD.device() == d_table.device(),
              "add_embedding_gradient: d_e must be a contiguous [{}, {}] on {}", ids.numel(), d_table.size(1),
              d_table.device().str());
  if (dropout) check_cells("add_embedding_gradient", d_e_TD, dropout->cu_seqlens, dropout->cell_ids);
  const at::NoGradGuard no_grad;
  std::string missing = unreadable_by_kernels({d_table, ids, d_e_TD});
#ifdef SCRNA_CUDA_ENABLED
  if (missing.empty()) {
    const char* reason = kernels::embedding_unsupported(
        kernel_shape(ids.numel(), d_table.size(1), d_e_TD.scalar_type(), dropout));
    if (reason != nullptr) missing = reason;
  }
#endif
  if (use_kernel(implementation, "add_embedding_gradient", missing)) {
#ifdef SCRNA_CUDA_ENABLED
    kernel_gradient(d_table, ids, d_e_TD, dropout, /*accumulate=*/true);
#endif
    return;
  }
  at::Tensor sum = d_table;
  sum.index_add_(0, ids, drop(d_e_TD.to(sums), dropout, implementation));
}

at::Tensor select_rows(const at::Tensor& x_TD, const at::Tensor& positions_M, Implementation implementation) {
  SCRNA_CHECK(x_TD.dim() == 2 && x_TD.is_contiguous(), "select_rows: x must be a contiguous [T, D]");
  SCRNA_CHECK(positions_M.dim() == 1 && positions_M.scalar_type() == at::kLong &&
                  positions_M.device() == x_TD.device(),
              "select_rows: positions must be int64 [M] on {}", x_TD.device().str());
  if (x_TD.is_cpu() && positions_M.numel() > 0)
    SCRNA_CHECK(positions_M[0].item<int64_t>() >= 0 && positions_M[-1].item<int64_t>() < x_TD.size(0) &&
                    positions_M.diff().gt(0).all().item<bool>(),
                "select_rows: positions must ascend strictly inside [0, {})", x_TD.size(0));
  std::string missing = unreadable_by_kernels({x_TD, positions_M});
  if (missing.empty() && x_TD.size(1) * x_TD.element_size() % 16 != 0)
    missing = "it takes rows of whole 16 bytes";
  if (use_kernel(implementation, "select_rows", missing)) {
#ifdef SCRNA_CUDA_ENABLED
    return SelectRowsFunction::apply(x_TD, positions_M);
#endif
  }
  return at::index_select(x_TD, 0, positions_M);
}

}  // namespace scrna::ops
