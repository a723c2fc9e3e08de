// Cuts a CPU attention call into work items, longest first, and runs them on OpenMP threads.
//
// Forward: one item for each (cell, head, block of queries). Backward: one item for each (cell, head), which
// makes every product once; a head that is too large a share of the whole for that (few heads, long cells,
// many threads) is cut into items that make d_q and items that make d_k and d_v, which costs 7 products
// instead of 5 but needs no atomics. All items add in the same order, so the cut changes no bit of the
// result.
#include "kernels/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

#include <omp.h>

#include "kernels/attention_cpu_task.h"

namespace scrna::kernels {
namespace {

constexpr int64_t kKeysOfSplitItem = 4 * kKeyBlock;  // amortises packing the queries again for every item

struct Item {
  int64_t cell = 0;
  int64_t head = 0;
  Range queries{};
  Range keys{};
  bool want_query = true;
  bool want_key = true;
  double cost = 0.0;
};

struct Cell {
  int64_t begin;
  int64_t length;
};

Cell cell_of(const Ragged& ragged, int64_t cell) {
  if (ragged.padded_length > 0) return {cell * ragged.padded_length, ragged.lengths[cell]};
  return {ragged.cu_seqlens[cell], int64_t{ragged.cu_seqlens[cell + 1]} - ragged.cu_seqlens[cell]};
}

HeadRows rows_of(const TokenView& view, int64_t first_token, int64_t head) {
  auto* data = static_cast<float*>(view.data);
  if (data == nullptr) return {nullptr, 0};
  return {data + first_token * view.token_stride + head * view.head_stride, view.token_stride};
}

float bias_of(const AttentionShape& shape, int64_t cell, int64_t num_keys) {
  if (shape.kind == AttentionKind::kSoftmax) return 0.0F;
  switch (shape.bias_kind) {
    case BiasKind::kNegativeLogLength:
      return static_cast<float>(-std::log(static_cast<double>(num_keys)));
    case BiasKind::kScalar:
      return shape.scalar_bias;
    case BiasKind::kPerCell:
      return shape.cell_bias[cell];
  }
  return 0.0F;
}

const CpuAttentionCode& code_for(CpuVectors vectors) {
#ifdef SCRNA_CPU_X86_64
  if (vectors == CpuVectors::kBest)
    vectors = cpu_vectors_supported(CpuVectors::kAvx512) ? CpuVectors::kAvx512
              : cpu_vectors_supported(CpuVectors::kAvx2) ? CpuVectors::kAvx2
                                                         : CpuVectors::kBaseline;
  if (vectors == CpuVectors::kAvx512) return kAttentionCpuAvx512;
  if (vectors == CpuVectors::kAvx2) return kAttentionCpuAvx2;
#endif
  (void)vectors;
  return kAttentionCpuBaseline;
}

int64_t blocks(int64_t length, int64_t block) { return (length + block - 1) / block; }

/// Everything of one head of one cell but the views that only one direction has.
HeadTask head_task(const AttentionShape& shape, const TokenView& q, const TokenView& k, const TokenView& v,
                   const TokenView& o, int64_t cell, int64_t head) {
  const Cell queries = cell_of(shape.query, cell);
  const Cell keys = cell_of(shape.key, cell);
  HeadTask task{};
  task.q = rows_of(q, queries.begin, head);
  task.k = rows_of(k, keys.begin, head);
  task.v = rows_of(v, keys.begin, head);
  task.o = rows_of(o, queries.begin, head);
  task.num_queries = queries.length;
  task.num_keys = keys.length;
  task.head_width = static_cast<int>(shape.head_width);
  task.scale = shape.scale;
  task.bias = bias_of(shape, cell, keys.length);
  task.key_bias = shape.key_bias == nullptr ? nullptr : shape.key_bias + keys.begin;
  task.softmax = shape.kind == AttentionKind::kSoftmax;
  return task;
}

/// First row of the head's queries in [H, T_q].
int64_t lse_offset(const AttentionShape& shape, int64_t cell, int64_t head) {
  return head * shape.query.total_tokens + cell_of(shape.query, cell).begin;
}

/// Zero rows where no item writes: padding, and cells whose other side is empty.
void zero_rows(const TokenView& view, const AttentionShape& shape, const Ragged& ragged, const Ragged& other,
               int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(dynamic)
  for (int64_t b = 0; b < shape.num_cells; ++b) {
    const Cell cell = cell_of(ragged, b);
    const int64_t end =
        ragged.padded_length > 0 ? cell.begin + ragged.padded_length : cell.begin + cell.length;
    const int64_t first = cell_of(other, b).length > 0 ? cell.begin + cell.length : cell.begin;
    for (int64_t token = first; token < end; ++token)
      for (int64_t head = 0; head < shape.num_heads; ++head)
        std::fill_n(rows_of(view, token, head).data, shape.head_width, 0.0F);
  }
}

void longest_first(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.cost > b.cost; });
}

/// Runs body(item, scratch of the thread) for all items.
template <class Body>
void run(const std::vector<Item>& items, size_t scratch_floats, int num_threads, Body body) {
  const int threads = static_cast<int>(std::min(static_cast<size_t>(num_threads), items.size()));
  if (threads == 0) return;
  constexpr size_t kPage = 4096 / sizeof(float);
  const size_t per_thread = (scratch_floats + kPage - 1) / kPage * kPage;
  // Not filled: each thread touches its own pages first.
  const auto scratch =
      std::make_unique_for_overwrite<float[]>(per_thread * static_cast<size_t>(threads) + kPage);
  const size_t misaligned = reinterpret_cast<uintptr_t>(scratch.get()) / sizeof(float) % kPage;
  float* const aligned = scratch.get() + (kPage - misaligned);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (size_t i = 0; i < items.size(); ++i)
    body(items[i], aligned + per_thread * static_cast<size_t>(omp_get_thread_num()));
}

std::vector<Item> forward_items(const AttentionShape& shape) {
  std::vector<Item> items;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
    const int64_t num_queries = cell_of(shape.query, cell).length;
    const int64_t num_keys = cell_of(shape.key, cell).length;
    if (num_keys == 0) continue;
    for (int64_t head = 0; head < shape.num_heads; ++head)
      for (int64_t begin = 0; begin < num_queries; begin += kQueryBlock) {
        const Range queries{begin, std::min(begin + kQueryBlock, num_queries)};
        const double cost = static_cast<double>(queries.end - begin) * static_cast<double>(num_keys);
        items.push_back(
            {.cell = cell, .head = head, .queries = queries, .keys = {0, num_keys}, .cost = cost});
      }
  }
  longest_first(items);
  return items;
}

std::vector<Item> backward_items(const AttentionShape& shape, int num_threads) {
  double total = 0.0;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell)
    total += static_cast<double>(cell_of(shape.query, cell).length) *
             static_cast<double>(cell_of(shape.key, cell).length);
  // A head longer than half of a thread's share of the work would leave threads idle at the end.
  const double longest = total * static_cast<double>(shape.num_heads) / (2.0 * num_threads);
  std::vector<Item> items;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
    const int64_t num_queries = cell_of(shape.query, cell).length;
    const int64_t num_keys = cell_of(shape.key, cell).length;
    if (num_queries == 0 || num_keys == 0) continue;
    const double cost = static_cast<double>(num_queries) * static_cast<double>(num_keys);
    const bool whole = num_threads == 1 || cost <= longest;
    for (int64_t head = 0; head < shape.num_heads; ++head) {
      const auto add = [&](Range queries, Range keys, bool want_query, bool want_key, double share) {
        items.push_back({cell, head, queries, keys, want_query, want_key, share});
      };
      if (whole) {
        add({0, num_queries}, {0, num_keys}, true, true, cost);
        continue;
      }
      for (int64_t begin = 0; begin < num_queries; begin += kQueryBlock) {
        const int64_t end = std::min(begin + kQueryBlock, num_queries);
        add({begin, end}, {0, num_keys}, true, false, 0.6 * static_cast<double>((end - begin) * num_keys));
      }
      for (int64_t begin = 0; begin < num_keys; begin += kKeysOfSplitItem) {
        const int64_t end = std::min(begin + kKeysOfSplitItem, num_keys);
        add({0, num_queries}, {begin, end}, false, true,
            0.8 * static_cast<double>((end - begin) * num_queries));
      }
    }
  }
  longest_first(items);
  return items;
}

}  // namespace

bool cpu_vectors_supported(CpuVectors vectors) {
#ifdef SCRNA_CPU_X86_64
  if (vectors == CpuVectors::kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (vectors == CpuVectors::kAvx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  return vectors == CpuVectors::kBest || vectors == CpuVectors::kBaseline;
}

const char* cpu_vectors_name() {
  if (cpu_vectors_supported(CpuVectors::kAvx512)) return "AVX-512";
  return cpu_vectors_supported(CpuVectors::kAvx2) ? "AVX2" : "baseline";
}

void attention_forward_cpu(const AttentionForward& call, const CpuAttentionOptions& options) {
  const AttentionShape& shape = call.shape;
  const CpuAttentionCode& code = code_for(options.vectors);
  zero_rows(call.o, shape, shape.query, shape.key, options.num_threads);
  run(forward_items(shape), code.forward_scratch_floats(static_cast<int>(shape.head_width)),
      options.num_threads, [&](const Item& item, float* scratch) {
        HeadTask task = head_task(shape, call.q, call.k, call.v, call.o, item.cell, item.head);
        if (call.lse != nullptr) task.new_lse = call.lse + lse_offset(shape, item.cell, item.head);
        code.forward(task, item.queries, scratch);
      });
}

void attention_backward_cpu(const AttentionBackward& call, const CpuAttentionOptions& options) {
  const AttentionShape& shape = call.shape;
  const CpuAttentionCode& code = code_for(options.vectors);
  zero_rows(call.d_q, shape, shape.query, shape.key, options.num_threads);
  zero_rows(call.d_k, shape, shape.key, shape.query, options.num_threads);
  zero_rows(call.d_v, shape, shape.key, shape.query, options.num_threads);

  // One sum of dS for each (cell, head, block of queries), added up in that order at the end.
  const bool want_bias = call.d_cell_bias != nullptr;
  std::vector<size_t> first_sum{0};
  for (int64_t cell = 0; want_bias && cell < shape.num_cells; ++cell)
    first_sum.push_back(
        first_sum.back() +
        static_cast<size_t>(shape.num_heads * blocks(cell_of(shape.query, cell).length, kQueryBlock)));
  std::vector<double> sums(first_sum.back());

  const std::vector<Item> items = backward_items(shape, options.num_threads);
  size_t scratch_floats = 0;
  for (const Item& item : items)
    scratch_floats = std::max(
        scratch_floats, code.backward_scratch_floats(static_cast<int>(shape.head_width),
                                                     item.want_key ? item.keys.end - item.keys.begin : 0));
  run(items, scratch_floats, options.num_threads, [&](const Item& item, float* scratch) {
    HeadTask task = head_task(shape, call.q, call.k, call.v, call.o, item.cell, item.head);
    const Cell queries = cell_of(shape.query, item.cell);
    const Cell keys = cell_of(shape.key, item.cell);
    task.d_o = rows_of(call.d_o, queries.begin, item.head);
    task.d_q = rows_of(call.d_q, queries.begin, item.head);
    task.d_k = rows_of(call.d_k, keys.begin, item.head);
    task.d_v = rows_of(call.d_v, keys.begin, item.head);
    if (call.lse != nullptr) task.lse = call.lse + lse_offset(shape, item.cell, item.head);
    if (want_bias)
      task.d_bias = &sums[first_sum[static_cast<size_t>(item.cell)] +
                          static_cast<size_t>(item.head * blocks(queries.length, kQueryBlock))];
    code.backward(task, item.queries, item.keys, item.want_query, item.want_key, scratch);
  });
  for (size_t cell = 0; want_bias && cell < static_cast<size_t>(shape.num_cells); ++cell) {
    double sum = 0.0;
    for (size_t i = first_sum[cell]; i < first_sum[cell + 1]; ++i) sum += sums[i];
    call.d_cell_bias[cell] = static_cast<float>(sum);
  }
}

}  // namespace scrna::kernels
