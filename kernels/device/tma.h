// Bulk copies by the tensor memory accelerator. Loads place a box of a tensor map (kernels/tensor_map.h) in
// shared memory with the 128-byte swizzle; elements outside the tensor arrive as zeros and still count as
// bytes.
#pragma once

#include <cuda.h>

#include "kernels/device/mbarrier.h"

namespace scrna::kernels::device {

/// Box at (column, token, head) into `destination`; completes on `barrier`. One thread.
__device__ __forceinline__ void load_box(void* destination, const CUtensorMap& map, Barrier& barrier,
                                         int column, int token, int head) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5}], [%2];" ::"r"(shared_address(destination)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(column), "r"(token), "r"(head)
      : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Adds `bytes` of fp32 from shared memory to global memory, element by element. One thread; asynchronous.
__device__ __forceinline__ void bulk_add(float* destination, const float* source, uint32_t bytes) {
  asm volatile(
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(destination),
      "r"(shared_address(source)), "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Until at most kPending of this thread's groups still read their shared memory.
template <int kPending>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

/// Until at most kPending of this thread's groups are not complete in global memory.
template <int kPending>
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Waits for the kernels before this one in the stream (programmatic dependent launch).
__device__ __forceinline__ void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

}  // namespace scrna::kernels::device
