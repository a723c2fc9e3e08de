// Memory barriers in shared memory (PTX mbarrier): a count of arrivals, a count of bytes still in flight, and
// a phase bit that flips when both reach zero. Copies of the tensor memory accelerator announce their bytes
// with arrive_expecting() and complete the barrier by themselves.
//
// Every barrier here is half of a pair around a buffer: full (the producer arrives) and empty (the consumers
// arrive). A Ring walks the buffers of such pairs; consumers wait with ring.phase, producers with ring.phase
// ^ 1, so that the producer's first round does not wait.
#pragma once

#include <cstdint>

namespace scrna::kernels::device {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

using Barrier = uint64_t;

__device__ __forceinline__ void barrier_init(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals));
}

/// Makes initialised barriers visible to the asynchronous proxy; follow with __syncthreads().
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

/// Arrives and adds `bytes` that copies will deliver before the phase can complete.
__device__ __forceinline__ void arrive_expecting(Barrier& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}

/// Returns when the phase with this parity has completed.
__device__ __forceinline__ void wait(Barrier& barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again_%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ready_%=;\nbra again_%=;\nready_%=:\n}" ::"r"(shared_address(&barrier)),
      "r"(phase)
      : "memory");
}

/// Makes ordinary writes to shared memory visible to wgmma and to bulk copies. Every writing thread, before
/// the barrier.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Position in a circle of kSize buffers and the parity of the current round.
template <int kSize>
struct Ring {
  int index = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++index == kSize) {
      index = 0;
      phase ^= 1;
    }
  }
  __device__ __forceinline__ void advance(int steps) {
    const int sum = index + steps;
    index = sum % kSize;
    phase ^= (sum / kSize) & 1;
  }
};

}  // namespace scrna::kernels::device
