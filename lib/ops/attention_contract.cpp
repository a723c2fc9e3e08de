#include "lib/ops/attention_contract.h"

#include "lib/core/error.h"

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::BiasKind;

void check_vector(const at::Tensor& x, const char* name, int64_t size, at::ScalarType type,
                  const at::Device& device) {
  SCRNA_CHECK(x.defined(), "attention: {} is missing", name);
  SCRNA_CHECK(x.dim() == 1 && x.numel() == size && x.is_contiguous() && x.scalar_type() == type,
              "attention: {} must be a contiguous vector of {} {}, got {} of {} elements", name, size,
              c10::toString(type), c10::toString(x.scalar_type()), x.numel());
  SCRNA_CHECK(x.device() == device, "attention: {} is on {}, the tokens are on {}", name, x.device().str(),
              device.str());
}

void check_cu_seqlens(const at::Tensor& host, const char* side, int64_t num_tokens, int64_t max_length) {
  const int32_t* begin = host.data_ptr<int32_t>();
  const int64_t num_cells = host.numel() - 1;
  SCRNA_CHECK(begin[0] == 0 && begin[num_cells] == num_tokens,
              "attention: cu_seqlens of the {} must run from 0 to the {} tokens, got {} ... {}", side,
              num_tokens, begin[0], begin[num_cells]);
  for (int64_t b = 0; b < num_cells; ++b) {
    const int64_t length = int64_t{begin[b + 1]} - begin[b];
    SCRNA_CHECK(length >= 0 && length <= max_length,
                "attention: cell {} has {} {} by cu_seqlens, expected 0 to the given maximum of {}", b,
                length, side, max_length);
  }
}

void check_lengths(const at::Tensor& host, const char* side, int64_t padded_length) {
  for (int64_t b = 0; b < host.numel(); ++b) {
    const int32_t length = host.data_ptr<int32_t>()[b];
    SCRNA_CHECK(length >= 0 && length <= padded_length,
                "attention: cell {} has {} {} by lengths, expected 0 to the padded length {}", b, length,
                side, padded_length);
  }
}

void check_cells(const CellTokens& cells, const char* side, const at::Tensor& tokens, int64_t num_cells) {
  if (cells.padded_length > 0) {
    check_vector(cells.lengths, "lengths", num_cells, at::kInt, tokens.device());
    if (tokens.is_cpu()) check_lengths(cells.lengths, side, cells.padded_length);
    return;
  }
  check_vector(cells.cu_seqlens, "cu_seqlens", num_cells + 1, at::kInt, tokens.device());
  if (tokens.is_cpu()) check_cu_seqlens(cells.cu_seqlens, side, tokens.size(0), cells.max_length);
}

void check_operands(const AttentionOperands& in) {
  for (const at::Tensor& x : {in.q, in.k, in.v}) {
    SCRNA_CHECK(x.dim() == 3, "attention: q, k and v must have tokens, heads and columns, [T, H, K]");
    SCRNA_CHECK(x.size(1) == in.q.size(1) && x.size(2) == in.q.size(2),
                "attention: q, k and v must have the same heads and columns, got [{}, {}] and [{}, {}]",
                in.q.size(1), in.q.size(2), x.size(1), x.size(2));
    SCRNA_CHECK(x.scalar_type() == in.q.scalar_type(), "attention: q, k and v must have one type");
    SCRNA_CHECK(x.device() == in.q.device(), "attention: q, k and v must be on one device");
    SCRNA_CHECK(x.size(2) <= 1 || x.stride(2) == 1,
                "attention: the last dimension of q, k and v must be contiguous");
  }
  SCRNA_CHECK(in.k.size(0) == in.v.size(0), "attention: k has {} tokens, v has {}", in.k.size(0),
              in.v.size(0));
}

}  // namespace

void check_attention(const AttentionOperands& in, const CellTokens& queries, const CellTokens& keys,
                     const AttentionOptions& options) {
  check_operands(in);
  const at::Device device = in.q.device();
  const int64_t num_cells = queries.num_cells();
  SCRNA_CHECK(num_cells >= 0, "attention: cu_seqlens must have B + 1 elements");
  check_cells(queries, "queries", in.q, num_cells);
  check_cells(keys, "keys", in.k, num_cells);
  if (options.cu_seqlens_host.defined())
    check_vector(options.cu_seqlens_host, "cu_seqlens_host", num_cells + 1, at::kInt, at::kCPU);
  if (options.kind == AttentionKind::kSigmoid && options.bias_kind == BiasKind::kPerCell)
    check_vector(options.cell_bias, "cell_bias", num_cells, at::kFloat, device);
  if (options.key_bias.defined()) {
    check_vector(options.key_bias, "key_bias", in.k.size(0), at::kFloat, device);
    SCRNA_CHECK(!options.key_bias.requires_grad(), "attention: key_bias has no gradient; detach it");
  }
}

}  // namespace scrna::ops
