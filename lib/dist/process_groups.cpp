#include "lib/dist/process_groups.h"

#include <array>
#include <cstdlib>
#include <cstring>

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <unistd.h>
#ifdef USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef SCRNA_CUDA_ENABLED
#include <cuda_runtime_api.h>
#endif
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "lib/core/error.h"
#include "lib/dist/communicator.h"

namespace scrna::dist {
namespace {

// The address of the interface that packets to `host` leave by: what others can reach us at. A machine's own
// name will not do: Debian maps it to 127.0.1.1. A datagram socket is connected, nothing is sent.
[[maybe_unused]] std::string local_address_towards(const std::string& host, int64_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int problem = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
      problem != 0) {
    throw DeviceError("MASTER_ADDR={}: {}; expected the name or address of the machine of rank 0", host,
                      ::gai_strerror(problem));
  }
  std::string address;
  for (const addrinfo* candidate = found; candidate != nullptr && address.empty();
       candidate = candidate->ai_next) {
    const int descriptor = ::socket(candidate->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    std::array<char, NI_MAXHOST> text{};
    if (::connect(descriptor, candidate->ai_addr, candidate->ai_addrlen) == 0 &&
        ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text.data(), text.size(), nullptr, 0,
                      NI_NUMERICHOST) == 0) {
      address = text.data();
    }
    ::close(descriptor);
  }
  ::freeaddrinfo(found);
  if (address.empty())
    throw DeviceError("MASTER_ADDR={}: no network interface of this machine reaches it", host);
  return address;
}

}  // namespace

std::string why_unresolvable(const std::string& host) {
  addrinfo* found = nullptr;
  const int problem = ::getaddrinfo(host.c_str(), nullptr, nullptr, &found);
  if (problem != 0) return fmt::format("no machine is called '{}': {}", host, ::gai_strerror(problem));
  ::freeaddrinfo(found);
  return {};
}

c10::intrusive_ptr<c10d::Store> meet(const World& world, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(world.master_port);
  options.isServer = world.rank == 0 && !world.store_is_served;
  options.timeout = timeout;
  if (!world.store_is_served) options.numWorkers = static_cast<std::size_t>(world.num_ranks);
  if (options.isServer && world.listening_socket >= 0) options.masterListenFd = world.listening_socket;
  auto store = c10::make_intrusive<c10d::TCPStore>(world.master_address, options);
  // torchrun keeps its store over restarts: what an earlier attempt left there must not be read.
  return c10::make_intrusive<c10d::PrefixStore>("scrna-train/attempt_" + std::to_string(world.attempt),
                                                store);
}

c10::intrusive_ptr<c10d::Backend> make_gloo([[maybe_unused]] const c10::intrusive_ptr<c10d::Store>& store,
                                            [[maybe_unused]] const World& world,
                                            [[maybe_unused]] const std::string& name,
                                            [[maybe_unused]] std::chrono::milliseconds timeout) {
#ifdef USE_C10D_GLOO
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  const char* const interface = std::getenv("GLOO_SOCKET_IFNAME");
  options->devices.push_back(interface != nullptr && *interface != '\0'
                                 ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                 : c10d::ProcessGroupGloo::createDeviceForHostname(
                                       local_address_towards(world.master_address, world.master_port)));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, store),
                                                     static_cast<int>(world.rank),
                                                     static_cast<int>(world.num_ranks), options);
#else
  throw DeviceError(
      "this program was built without the headers of Gloo, so it trains in one process only; install "
      "libgloo-dev and build again (scripts/build.sh does both)");
#endif
}

c10::intrusive_ptr<c10d::Backend> make_nccl([[maybe_unused]] const c10::intrusive_ptr<c10d::Store>& store,
                                            [[maybe_unused]] const World& world,
                                            [[maybe_unused]] at::Device device,
                                            [[maybe_unused]] std::chrono::milliseconds timeout) {
#ifdef USE_C10D_NCCL
  // High priority: a bucket on its way goes before the backward pass that fills the next one.
  auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  options->timeout = timeout;
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::make_intrusive<c10d::PrefixStore>("nccl", store), static_cast<int>(world.rank),
      static_cast<int>(world.num_ranks), options);
  group->setBoundDeviceId(device);
  return group;
#else
  throw DeviceError(
      "this program was built without NCCL, so it trains on one GPU only; build it with device code and "
      "nccl.h "
      "(scripts/build.sh --cuda ON)");
#endif
}

std::string gpu_identity([[maybe_unused]] at::Device device) {
#ifdef SCRNA_CUDA_ENABLED
  cudaDeviceProp properties{};
  if (const cudaError_t problem = cudaGetDeviceProperties(&properties, device.index());
      problem != cudaSuccess) {
    throw DeviceError("{}: {}", device.str(), cudaGetErrorString(problem));
  }
  std::string text;
  for (const char byte : properties.uuid.bytes)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
#else
  throw DeviceError("{}: this program was built without device code", device.str());
#endif
}

std::string engines() {
#ifdef USE_C10D_GLOO
#ifdef USE_C10D_NCCL
  return "Gloo between CPUs, NCCL between GPUs";
#else
  return "Gloo between CPUs";
#endif
#else
  return "not built in (libgloo-dev was missing)";
#endif
}

}  // namespace scrna::dist
