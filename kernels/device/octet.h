// Eight neighbouring elements of a row, the unit in which the fused operations of the training step move rows
// and in which dropout decides (kernels/dropout.h): 16 bytes of bf16, 32 of fp32, aligned to 16. They stay
// packed in registers until a value is asked for, which halves the registers of a row in bf16.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>

#include "kernels/device/fragment.h"

namespace scrna::kernels::device {

inline constexpr int kOctet = 8;

template <class Element>
struct Octet {
  uint4 piece[sizeof(Element) / 2];

  static __device__ __forceinline__ Octet load(const Element* from) {
    Octet octet;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(Element) / 2); ++i)
      octet.piece[i] = reinterpret_cast<const uint4*>(from)[i];
    return octet;
  }
  __device__ __forceinline__ void store(Element* to) const {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(Element) / 2); ++i)
      reinterpret_cast<uint4*>(to)[i] = piece[i];
  }
  /// Rounds to the element's type, nearest even; NaN stays NaN.
  static __device__ __forceinline__ Octet of(const float (&values)[kOctet]) {
    Octet octet;
    if constexpr (std::is_same_v<Element, float>) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        octet.piece[i] = make_uint4(__float_as_uint(values[4 * i]), __float_as_uint(values[4 * i + 1]),
                                    __float_as_uint(values[4 * i + 2]), __float_as_uint(values[4 * i + 3]));
    } else {
      octet.piece[0] = make_uint4(pack<Element>(values[0], values[1]), pack<Element>(values[2], values[3]),
                                  pack<Element>(values[4], values[5]), pack<Element>(values[6], values[7]));
    }
    return octet;
  }
  __device__ __forceinline__ void unpack_to(float (&values)[kOctet]) const {
    if constexpr (std::is_same_v<Element, float>) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        values[4 * i] = __uint_as_float(piece[i].x);
        values[4 * i + 1] = __uint_as_float(piece[i].y);
        values[4 * i + 2] = __uint_as_float(piece[i].z);
        values[4 * i + 3] = __uint_as_float(piece[i].w);
      }
    } else {
      const uint32_t words[4] = {piece[0].x, piece[0].y, piece[0].z, piece[0].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack<Element>(words[i]);
        values[2 * i] = pair.x;
        values[2 * i + 1] = pair.y;
      }
    }
  }
};

template <class Element>
__device__ __forceinline__ void load_octet(const Element* from, float (&values)[kOctet]) {
  Octet<Element>::load(from).unpack_to(values);
}
template <class Element>
__device__ __forceinline__ void store_octet(Element* to, const float (&values)[kOctet]) {
  Octet<Element>::of(values).store(to);
}

}  // namespace scrna::kernels::device
