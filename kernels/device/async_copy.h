// Copies from global to shared memory that run while the threads compute (PTX cp.async, compute
// capability 8.0 and later). Each thread waits for its own copies; a __syncthreads() after that makes
// everyone's visible.
#pragma once

#include <cstdint>

namespace scrna::kernels::device {

/// 16 bytes, both sides aligned to them; zeros where the source does not count, which is not read then.
__device__ __forceinline__ void copy_or_clear_16(uint32_t destination, const void* source, bool counts) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source),
               "r"(counts ? 16 : 0)
               : "memory");
}

/// The same with 4 bytes.
__device__ __forceinline__ void copy_or_clear_4(uint32_t destination, const void* source, bool counts) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(destination), "l"(source),
               "r"(counts ? 4 : 0)
               : "memory");
}

/// Until none of this thread's copies is in flight.
__device__ __forceinline__ void copies_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace scrna::kernels::device
