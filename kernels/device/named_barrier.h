// Barriers between some of a block's threads, by number (PTX bar; number 0 is __syncthreads), and the
// register budgets of warpgroups.
#pragma once

namespace scrna::kernels::device {

/// Waits until `threads` threads have arrived at or synchronised with barrier `id`.
__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Registers per thread of the calling warpgroup from here on. All warps of the warpgroup call it, each role
/// in a branch of its own; the block must have been launched with as many registers as its roles hold
/// together.
template <int kRegisters>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace scrna::kernels::device
