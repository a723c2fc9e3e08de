#include "lib/train/device_memory.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <sys/resource.h>

#include "lib/core/error.h"

namespace scrna::train {
namespace {

c10::DeviceAllocator& allocator_of(at::Device device) {
  SCRNA_CHECK(!device.is_cpu(), "{} has no caching allocator", device.str());
  return *c10::getDeviceAllocator(device.type());
}

c10::DeviceIndex index_of(at::Device device) {
  return device.has_index() ? device.index() : c10::impl::VirtualGuardImpl(device.type()).getDevice().index();
}

const c10::CachingAllocator::Stat& total(const c10::CachingAllocator::StatArray& stats) {
  return stats[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
}

}  // namespace

DeviceMemory device_memory(at::Device device) {
  c10::DeviceAllocator& allocator = allocator_of(device);
  const auto stats = allocator.getDeviceStats(index_of(device));
  const auto [free, all] = allocator.getMemoryInfo(index_of(device));
  return {.allocated_bytes = total(stats.allocated_bytes).current,
          .peak_bytes = total(stats.allocated_bytes).peak,
          .peak_reserved_bytes = total(stats.reserved_bytes).peak,
          .reserved_bytes = total(stats.reserved_bytes).current,
          .free_bytes = static_cast<int64_t>(free),
          .total_bytes = static_cast<int64_t>(all)};
}

int64_t peak_memory_bytes(at::Device device) {
  return total(allocator_of(device).getDeviceStats(index_of(device)).allocated_bytes).peak;
}

void reset_peak_memory(at::Device device) { allocator_of(device).resetPeakStats(index_of(device)); }

void release_cached_memory(at::Device device) { allocator_of(device).emptyCache(); }

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

}  // namespace scrna::train
