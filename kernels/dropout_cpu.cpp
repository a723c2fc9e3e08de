// Dropout on the CPU: tokens are split evenly over threads; a thread walks its tokens cell by cell. Sixteen
// groups of eight features go through Philox together, so that the compiler's vector code does the rounds.
#include <algorithm>
#include <bit>

#include "kernels/dropout.h"

namespace scrna::kernels {
namespace {

constexpr int kGroupsTogether = 16;

/// The 16-bit draws of kGroupsTogether groups of one token, feature by feature.
void draw(const Dropout& call, uint64_t cell_id, uint32_t position, uint32_t first_group, uint16_t* draws) {
  for (int g = 0; g < kGroupsTogether; ++g) {
    const PhiloxWords words =
        dropout_words(call.key, cell_id, position, first_group + static_cast<uint32_t>(g));
    for (int w = 0; w < 4; ++w) {
      draws[g * kDropoutGroup + 2 * w] = static_cast<uint16_t>(words.word[w]);
      draws[g * kDropoutGroup + 2 * w + 1] = static_cast<uint16_t>(words.word[w] >> 16);
    }
  }
}

float to_float(float x) { return x; }
float to_float(uint16_t bfloat16) { return std::bit_cast<float>(uint32_t{bfloat16} << 16); }
void store(float value, float* y) { *y = value; }
/// Round to nearest, ties to even; NaN stays NaN.
void store(float value, uint16_t* y) {
  const auto bits = std::bit_cast<uint32_t>(value);
  *y =
      value != value ? uint16_t{0x7FC0} : static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

template <class Element>
void drop_row(const Dropout& call, uint64_t cell_id, uint32_t position, const Element* x, Element* y) {
  constexpr int64_t kStep = int64_t{kGroupsTogether} * kDropoutGroup;
  const float scale = dropout_scale(call.threshold);
  uint16_t draws[kStep];
  for (int64_t first = 0; first < call.width; first += kStep) {
    draw(call, cell_id, position, static_cast<uint32_t>(first / kDropoutGroup), draws);
    const int64_t count = std::min(kStep, call.width - first);
    for (int64_t i = 0; i < count; ++i) {
      const float kept = to_float(x[first + i]) * scale;
      store(draws[i] >= call.threshold ? kept : 0.0F, &y[first + i]);
    }
  }
}

template <class Element>
void drop(const Dropout& call, int num_threads) {
  const auto* x = static_cast<const Element*>(call.x);
  auto* y = static_cast<Element*>(call.y);
  const int32_t* cu = call.cu_seqlens;
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t token = 0; token < call.num_tokens; ++token) {
    // The cell that owns the token: the last one that begins at or before it.
    const int64_t cell = std::upper_bound(cu, cu + call.num_cells, static_cast<int32_t>(token)) - cu - 1;
    const auto position = static_cast<uint32_t>(token - cu[cell]);
    drop_row(call, call.cell_ids[cell], position, x + token * call.width, y + token * call.width);
  }
}

}  // namespace

void dropout_cpu(const Dropout& call, int num_threads) {
  if (call.element_type == ElementType::kFloat32)
    drop<float>(call, num_threads);
  else
    drop<uint16_t>(call, num_threads);
}

}  // namespace scrna::kernels
