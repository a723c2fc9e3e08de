// Memory on the GPU for tests and benchmarks: owns it, copies vectors, reports errors of the runtime by
// exception.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

namespace scrna::test {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

/// Compute capability of the current device (9.0: 90); 0 without a device.
inline int compute_capability() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return 0;
  int major = 0;
  int minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "compute capability");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "compute capability");
  return major * 10 + minor;
}

template <class Element>
class DeviceVector {
 public:
  DeviceVector() = default;
  explicit DeviceVector(size_t size) : size_(size) {
    if (size > 0)
      check_cuda(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(Element)), "cudaMalloc");
  }
  explicit DeviceVector(const std::vector<Element>& values) : DeviceVector(values.size()) { assign(values); }
  DeviceVector(DeviceVector&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
  }
  DeviceVector& operator=(DeviceVector&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceVector() { cudaFree(data_); }

  void assign(const std::vector<Element>& values) {
    check_cuda(cudaMemcpy(data_, values.data(), size_ * sizeof(Element), cudaMemcpyHostToDevice),
               "copy to device");
  }
  [[nodiscard]] std::vector<Element> values() const {
    std::vector<Element> x(size_);
    check_cuda(cudaMemcpy(x.data(), data_, size_ * sizeof(Element), cudaMemcpyDeviceToHost),
               "copy from device");
    return x;
  }
  void fill_bytes(int byte) { check_cuda(cudaMemset(data_, byte, size_ * sizeof(Element)), "cudaMemset"); }
  [[nodiscard]] Element* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  Element* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace scrna::test
