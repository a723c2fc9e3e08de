// Cuts a CPU attention call into work items, longest first, and runs them on OpenMP threads.
//
// Forward: one item for each (cell, head, block of queries). Backward: one item for each (cell, head, range
// of keys), short enough for its cache and for all threads to get their share; the ranges of a head follow
// each other through its blocks of queries, so every sum has one order and the cut changes no bit of the
// result. Few heads and many threads are no special case: no product is made twice and nothing is added
// atomically.
#include "kernels/attention_cpu.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include <omp.h>

#include "kernels/attention_cpu_task.h"

namespace scrna::kernels {
namespace {

/// Keys of one item of the backward pass. Its five arrays [keys, K] take 0.4 MB at width 64 and 0.7 MB at 128
/// and should stay in the core's second cache, while the item's queries pass by.
constexpr int64_t kKeysOfItem = 2 * kKeyBlock;
/// Items of the backward pass that every thread should get, for even shares.
constexpr int64_t kItemsPerThread = 4;

struct Item {
  int64_t cell = 0;
  int64_t head = 0;
  Range range{};  // forward: queries; backward: keys
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

size_t bytes_of(ElementType type) { return type == ElementType::kBFloat16 ? 2 : 4; }

HeadRows rows_of(const TokenView& view, ElementType type, int64_t first_token, int64_t head) {
  if (view.data == nullptr) return {nullptr, 0, type};
  const int64_t first = first_token * view.token_stride + head * view.head_stride;
  return {static_cast<std::byte*>(view.data) + first * static_cast<int64_t>(bytes_of(type)),
          view.token_stride, type};
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
  task.q = rows_of(q, shape.element_type, queries.begin, head);
  task.k = rows_of(k, shape.element_type, keys.begin, head);
  task.v = rows_of(v, shape.element_type, keys.begin, head);
  task.o = rows_of(o, shape.element_type, queries.begin, head);
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
        std::memset(rows_of(view, shape.element_type, token, head).data, 0,
                    static_cast<size_t>(shape.head_width) * bytes_of(shape.element_type));
  }
}

void longest_first(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.cost > b.cost; });
}

/// Runs body(index of the item, scratch of the thread) for all items. An item begins only after all before it
/// have begun.
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
  std::atomic<size_t> next = 0;  // an OpenMP loop promises no order between threads
#pragma omp parallel num_threads(threads)
  for (size_t i = next.fetch_add(1); i < items.size(); i = next.fetch_add(1))
    body(i, aligned + per_thread * static_cast<size_t>(omp_get_thread_num()));
}

std::vector<Item> forward_items(const AttentionShape& shape) {
  std::vector<Item> items;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
    const int64_t num_queries = cell_of(shape.query, cell).length;
    const int64_t num_keys = cell_of(shape.key, cell).length;
    if (num_keys == 0) continue;
    for (int64_t head = 0; head < shape.num_heads; ++head)
      for (int64_t begin = 0; begin < num_queries; begin += kForwardQueries) {
        const int64_t end = std::min(begin + kForwardQueries, num_queries);
        items.push_back(
            {cell, head, {begin, end}, static_cast<double>(end - begin) * static_cast<double>(num_keys)});
      }
  }
  longest_first(items);
  return items;
}

/// Keys of one item of the backward pass: few enough for the cache (kKeysOfItem) and for all threads to get
/// items.
int64_t keys_of_item(const AttentionShape& shape, int num_threads) {
  const auto num_items = [&](int64_t keys) {
    int64_t count = 0;
    for (int64_t cell = 0; cell < shape.num_cells; ++cell)
      count += shape.num_heads * blocks(cell_of(shape.key, cell).length, keys);
    return count;
  };
  const int64_t keys = shape.head_width <= 128 ? kKeysOfItem : kKeysOfItem / 2;
  return num_items(keys) < kItemsPerThread * num_threads ? kKeyBlock : keys;
}

/// Items with the keys [0, keys) of every head of a cell come before those with the next keys: where one must
/// wait for another, that one began a while ago.
std::vector<Item> backward_items(const AttentionShape& shape, int64_t keys) {
  std::vector<Item> items;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
    const int64_t num_queries = cell_of(shape.query, cell).length;
    const int64_t num_keys = cell_of(shape.key, cell).length;
    if (num_queries == 0) continue;
    const double cost = static_cast<double>(num_queries) * static_cast<double>(std::min(keys, num_keys));
    for (int64_t begin = 0; begin < num_keys; begin += keys)
      for (int64_t head = 0; head < shape.num_heads; ++head)
        items.push_back({cell, head, {begin, std::min(begin + keys, num_keys)}, cost});
  }
  longest_first(items);  // stable, and items of one cell cost the same: their order stays
  return items;
}

}  // namespace

/// On cache lines of its own: the items of a head poll each other's.
struct alignas(64) BlocksDone {
  std::atomic<int32_t> count = 0;  // the width that the system can wait for
};

void wait_for_block(const BlocksDone& done, int64_t block) {
  for (int32_t count = done.count.load(std::memory_order_acquire); count <= block;
       count = done.count.load(std::memory_order_acquire))
    done.count.wait(count, std::memory_order_acquire);
}

void block_is_done(BlocksDone& done, int64_t block) {
  done.count.store(static_cast<int32_t>(block + 1), std::memory_order_release);
  done.count.notify_one();
}

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
  const std::vector<Item> items = forward_items(shape);
  run(items, code.forward_scratch_floats(static_cast<int>(shape.head_width)), options.num_threads,
      [&](size_t i, float* scratch) {
        const Item& item = items[i];
        HeadTask task = head_task(shape, call.q, call.k, call.v, call.o, item.cell, item.head);
        if (call.lse != nullptr) task.new_lse = call.lse + lse_offset(shape, item.cell, item.head);
        code.forward(task, item.range, scratch);
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

  const int64_t keys_each = keys_of_item(shape, options.num_threads);
  const std::vector<Item> items = backward_items(shape, keys_each);
  std::vector<BlocksDone> done(items.size());
  const auto heads = static_cast<size_t>(shape.num_heads);
  // Sums of d_q are fp32 from one item to the next.
  std::unique_ptr<float[]> d_q_sums;
  TokenView d_q_sum = call.d_q;
  if (shape.element_type != ElementType::kFloat32) {
    const int64_t token_stride = shape.num_heads * shape.head_width;
    d_q_sums =
        std::make_unique_for_overwrite<float[]>(static_cast<size_t>(shape.query.total_tokens * token_stride));
    d_q_sum = {d_q_sums.get(), token_stride, shape.head_width};
  }
  run(items, code.backward_scratch_floats(static_cast<int>(shape.head_width), static_cast<int>(keys_each)),
      options.num_threads, [&](size_t i, float* scratch) {
        const Item& item = items[i];
        HeadTask task = head_task(shape, call.q, call.k, call.v, call.o, item.cell, item.head);
        const Cell queries = cell_of(shape.query, item.cell);
        const Cell keys = cell_of(shape.key, item.cell);
        task.d_o = rows_of(call.d_o, shape.element_type, queries.begin, item.head);
        task.d_q = rows_of(call.d_q, shape.element_type, queries.begin, item.head);
        task.d_q_sum = rows_of(d_q_sum, ElementType::kFloat32, queries.begin, item.head);
        task.d_k = rows_of(call.d_k, shape.element_type, keys.begin, item.head);
        task.d_v = rows_of(call.d_v, shape.element_type, keys.begin, item.head);
        if (call.lse != nullptr) task.lse = call.lse + lse_offset(shape, item.cell, item.head);
        if (want_bias)
          task.d_bias = &sums[first_sum[static_cast<size_t>(item.cell)] +
                              static_cast<size_t>(item.head * blocks(queries.length, kQueryBlock))];
        if (item.range.begin > 0) task.done_before = &done[i - heads];
        task.done = &done[i];
        code.backward(task, item.range, scratch);
      });
  for (size_t cell = 0; want_bias && cell < static_cast<size_t>(shape.num_cells); ++cell) {
    double sum = 0.0;
    for (size_t i = first_sum[cell]; i < first_sum[cell + 1]; ++i) sum += sums[i];
    call.d_cell_bias[cell] = static_cast<float>(sum);
  }
}

}  // namespace scrna::kernels
