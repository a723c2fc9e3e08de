// The ranks of a run and what they say to each other, over PyTorch's own c10d: rendezvous at a TCPStore, NCCL
// between GPUs, Gloo between CPUs. Two planes:
//
//   tensors  all_reduce, reduce_scatter, all_gather_parts, broadcast: on the device, ordered on its current
//            stream, nothing waits (NCCL); with CPU tensors Gloo, on threads of its own
//   host     sum, all_gather, barrier, together: small, blocking, always Gloo. They are how ranks agree (stop
//   now?
//            same configuration? did all succeed?), and how the death of a rank is noticed at once: its
//            sockets close.
//
// Every rank must make the same calls in the same order, each plane from one thread at a time. A rank that is
// alone has no sockets and every call is the identity. No engine of our own: c10d is what users run and what
// is debugged.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/dist/world.h"

namespace scrna::dist {

enum class Reduction { kSum, kMax };

/// A collective on its way.
class Work {
 public:
  Work();
  ~Work();
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;
  /// NCCL: the current stream waits for it, the host does not. Gloo: the host waits. Throws DeviceError when
  /// it failed.
  void wait();

 private:
  friend class Communicator;
  struct Impl;
  std::unique_ptr<Impl> impl_;  // null: nothing to wait for
};

class Communicator {
 public:
  /// Alone.
  Communicator();
  /// Meets the other ranks; blocks until all are there. device: where tensors will be, a GPU with its index
  /// or the CPU. A collective that is not answered within `timeout` fails. Throws DeviceError when the ranks
  /// do not meet within it, when two ranks of one machine were given the same GPU, or when the program was
  /// built without NCCL or Gloo.
  Communicator(const World& world, at::Device device, std::chrono::milliseconds timeout);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] int64_t rank() const { return world_.rank; }
  [[nodiscard]] int64_t num_ranks() const { return world_.num_ranks; }
  [[nodiscard]] bool is_first() const { return world_.rank == 0; }
  /// Other ranks may be there; false: every call is the identity.
  [[nodiscard]] bool is_connected() const { return groups_ != nullptr; }
  /// "4 ranks on 2 machines, started by torchrun: NCCL".
  [[nodiscard]] const std::string& description() const { return description_; }

  /// In place, in tensor's own type (sums in bf16 round in bf16). The tensor must be dense, on the device of
  /// the constructor and unused until wait(). All ranks get the same bits. Throws DeviceError.
  [[nodiscard]] Work all_reduce(const at::Tensor& tensor, Reduction reduction = Reduction::kSum);
  /// In place: the tensor is as many equal parts as there are ranks; afterwards this rank's part, the rank-th,
  /// holds the sum of everybody's, and the others nothing in particular. As all_reduce otherwise.
  [[nodiscard]] Work reduce_scatter(const at::Tensor& tensor);
  /// In place: this rank's part, the rank-th of as many equal parts as there are ranks, to everybody.
  [[nodiscard]] Work all_gather_parts(const at::Tensor& tensor);
  /// Rank `root`'s values into everybody's tensor.
  [[nodiscard]] Work broadcast(const at::Tensor& tensor, int64_t root = 0);

  /// Element by element over all ranks; counts below 2^53 are exact. Throws DeviceError, as do the next
  /// three.
  [[nodiscard]] std::vector<double> sum(std::vector<double> values);
  /// Everybody's text, by rank. Texts of up to some megabytes.
  [[nodiscard]] std::vector<std::string> all_gather(const std::string& text);
  void barrier();
  /// Runs `part` here and waits for everybody's. When it threw on some rank, it throws on all: the rank's own
  /// exception there, elsewhere an Error with the same exit code that names the first such rank and what it
  /// said.
  void together(const std::function<void()>& part);

 private:
  struct Groups;
  template <class Launch>
  Work start(const char* what, Launch launch);
  [[nodiscard]] at::Tensor own_part(const at::Tensor& tensor) const;
  [[noreturn]] void fail(const char* what, const std::exception& problem) const;

  World world_;
  std::string description_;
  std::chrono::milliseconds timeout_{0};
  std::unique_ptr<Groups> groups_;
};

/// What this build connects several processes with: "Gloo between CPUs, NCCL between GPUs", or what is missing.
std::string engines();

/// The message of any exception, without stack traces, on one line.
std::string message_of(const std::exception_ptr& problem);

}  // namespace scrna::dist
