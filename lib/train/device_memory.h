// What LibTorch's caching allocator says of a GPU's memory, through the interface that every accelerator has,
// so that no CUDA header is needed. `peak` is the quantity that memory_plan.h predicts: the most that tensors
// held at once. What the driver counts is more: free blocks that the allocator keeps, the context, and
// libraries' own buffers.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace scrna::train {

struct DeviceMemory {
  int64_t allocated_bytes = 0;      // held by tensors now
  int64_t peak_bytes = 0;           // the most since the start or reset_peak_memory()
  int64_t peak_reserved_bytes = 0;  // the most that the allocator took from the driver
  int64_t reserved_bytes = 0;       // taken from the driver now
  int64_t free_bytes = 0;           // what the driver can still give, to us or to others
  int64_t total_bytes = 0;          // of the device
};

/// Does not wait for the device. Throws InternalError for the CPU, which has no such allocator.
DeviceMemory device_memory(at::Device device);

/// The peak alone, without asking the driver: cheap enough for every step.
int64_t peak_memory_bytes(at::Device device);

/// Begins a new peak at what is held now.
void reset_peak_memory(at::Device device);

/// Gives cached free blocks back to the driver: after work whose buffers nobody will want again.
void release_cached_memory(at::Device device);

/// The largest resident set of this process so far, in bytes: what `peak` is on the CPU, everything included.
int64_t peak_resident_bytes();

}  // namespace scrna::train
