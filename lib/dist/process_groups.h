// How c10d's process groups are made: the one place that needs the headers of NCCL and Gloo. Internal to
// lib/dist.
#pragma once

#include <chrono>
#include <string>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "lib/dist/world.h"

namespace scrna::dist {

/// The key-value store at which the ranks meet; rank 0 serves it unless somebody else does. Blocks until all
/// ranks are there. Keys are those of this attempt alone. Throws c10::Error.
c10::intrusive_ptr<c10d::Store> meet(const World& world, std::chrono::milliseconds timeout);

/// Gloo between the ranks, bound to the interface that reaches rank 0 (or to GLOO_SOCKET_IFNAME). `name`:
/// unlike any other group's. Throws DeviceError when the build has no Gloo headers.
c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, const World& world,
                                            const std::string& name, std::chrono::milliseconds timeout);

/// NCCL between the ranks' GPUs. Throws DeviceError when the build has no NCCL.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, const World& world,
                                            at::Device device, std::chrono::milliseconds timeout);

/// Why the name of a machine has no address, for a message; empty: it has one.
std::string why_unresolvable(const std::string& host);

/// What tells the GPU from every other one of its machine (its UUID), whatever index it has in this process.
std::string gpu_identity(at::Device device);

}  // namespace scrna::dist
