#include "lib/dist/communicator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include "lib/core/error.h"
#include "lib/dist/process_groups.h"

namespace scrna::dist {

struct Work::Impl {
  c10::intrusive_ptr<c10d::Work> work;
  std::function<void(const char*, const std::exception&)> fail;
};

Work::Work() = default;
Work::~Work() = default;
Work::Work(Work&&) noexcept = default;
Work& Work::operator=(Work&&) noexcept = default;

void Work::wait() {
  if (!impl_) return;
  const std::unique_ptr<Impl> impl = std::move(impl_);
  try {
    impl->work->wait();
  } catch (const std::exception& problem) {
    impl->fail("a sum over the ranks", problem);
  }
}

struct Communicator::Groups {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> host;
  c10::intrusive_ptr<c10d::Backend> tensors;
};

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

// What c10d said in words that say what to do.
std::string why_not_met(const World& world, std::chrono::milliseconds timeout, std::string said) {
  while (said.ends_with('.')) said.pop_back();
  if (said.find("EADDRINUSE") != std::string::npos) {
    return fmt::format(
        "port {} of this machine is taken, by another job or by a second process with RANK=0; choose another "
        "(--rdzv-endpoint, MASTER_PORT)",
        world.master_port);
  }
  if (const std::string problem = why_unresolvable(world.master_address); !problem.empty()) {
    return fmt::format(
        "{}; expected the name or address of the machine of rank 0 (--rdzv-endpoint, MASTER_ADDR)", problem);
  }
  return fmt::format(
      "not within {} s (dist.timeout_seconds): {}. Is every process running, with the same MASTER_ADDR and "
      "MASTER_PORT and a RANK of its own, and the port reachable?",
      timeout.count() / 1000, said);
}

// The first line says what happened; LibTorch adds stack traces.
std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

}  // namespace

std::string message_of(const std::exception_ptr& problem) {
  try {
    std::rethrow_exception(problem);
  } catch (const c10::Error& error) {
    return first_line(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return first_line(error.what());
  } catch (...) {
    return "an exception of unknown type";
  }
}

Communicator::Communicator() = default;

Communicator::Communicator(const World& world, at::Device device, std::chrono::milliseconds timeout)
    : world_(world), timeout_(timeout) {
  if (!world.is_launched()) return;
  try {
    auto groups = std::make_unique<Groups>();
    groups->store = meet(world, timeout);
    groups->host = make_gloo(groups->store, world, "host", timeout);
    groups->tensors = device.is_cpu() ? make_gloo(groups->store, world, "tensors", timeout)
                                      : make_nccl(groups->store, world, device, timeout);
    groups_ = std::move(groups);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw DeviceError("rank {} of {} (started by {}): the ranks did not meet at {}:{}: {}", world.rank,
                      world.num_ranks, world.launcher, world.master_address, world.master_port,
                      why_not_met(world, timeout, message_of(std::current_exception())));
  }
  // Two processes on one GPU would train, at half the speed: refused.
  std::map<std::string, std::size_t> rank_of;
  std::set<std::string> machines;
  const std::string host = host_name();
  const std::vector<std::string> places =
      all_gather(host + "\n" + (device.is_cpu() ? std::to_string(world.rank) : gpu_identity(device)));
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    machines.insert(places[rank].substr(0, places[rank].find('\n')));
    const auto [other, is_new] = rank_of.emplace(places[rank], rank);
    if (!is_new) {
      throw DeviceError(
          "ranks {} and {} on {} have the same GPU; start as many processes as there are GPUs, each with its "
          "own "
          "(CUDA_VISIBLE_DEVICES, --gpus-per-task)",
          other->second, rank, places[rank].substr(0, places[rank].find('\n')));
    }
  }
  description_ = fmt::format(
      "{} rank{} on {} machine{}, started by {}: {}", world.num_ranks, world.num_ranks == 1 ? "" : "s",
      machines.size(), machines.size() == 1 ? "" : "s", world.launcher, device.is_cpu() ? "Gloo" : "NCCL");
}

Communicator::~Communicator() {
  if (!groups_) return;
  try {
    // What is under way will not be answered when this rank fails: given up, not waited for.
    if (std::uncaught_exceptions() > 0) {
      groups_->tensors->abort();
    } else {
      groups_->tensors->shutdown();
    }
  } catch (const std::exception&) {  // nothing is left to be told: the run is over
  }
}

void Communicator::fail(const char* what, const std::exception& problem) const {
  const auto* error = dynamic_cast<const c10::Error*>(&problem);
  throw DeviceError(
      "rank {} of {}: {} failed: another rank ended, or did not answer within {} s (dist.timeout_seconds); "
      "its own message "
      "says why ({})",
      world_.rank, world_.num_ranks, what, timeout_.count() / 1000,
      first_line(error != nullptr ? error->what_without_backtrace() : problem.what()));
}

// launch(): begins the collective and returns c10d's work. Alone nothing is begun.
template <class Launch>
Work Communicator::start(const char* what, Launch launch) {
  Work work;
  if (!groups_) return work;
  const auto failed = [this](const char* later, const std::exception& problem) { fail(later, problem); };
  try {
    work.impl_ = std::make_unique<Work::Impl>(Work::Impl{launch(), failed});
  } catch (const std::exception& problem) {
    fail(what, problem);
  }
  return work;
}

Work Communicator::all_reduce(const at::Tensor& tensor, Reduction reduction) {
  return start("a sum over the ranks", [&] {
    c10d::AllreduceOptions options;
    options.reduceOp = reduction == Reduction::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    std::vector<at::Tensor> tensors{tensor};
    return groups_->tensors->allreduce(tensors, options);
  });
}

at::Tensor Communicator::own_part(const at::Tensor& tensor) const {
  SCRNA_CHECK(tensor.dim() == 1 && tensor.numel() > 0 && tensor.numel() % world_.num_ranks == 0,
              "{} elements in {} equal parts", tensor.numel(), world_.num_ranks);
  const int64_t part = tensor.numel() / world_.num_ranks;
  return tensor.narrow(0, world_.rank * part, part);
}

// NCCL does both in place; Gloo works on a copy and writes the result on wait().
Work Communicator::reduce_scatter(const at::Tensor& tensor) {
  if (!groups_) return {};
  at::Tensor part = own_part(tensor), all = tensor;
  return start("a sum over the ranks", [&] { return groups_->tensors->_reduce_scatter_base(part, all); });
}

Work Communicator::all_gather_parts(const at::Tensor& tensor) {
  if (!groups_) return {};
  at::Tensor part = own_part(tensor), all = tensor;
  return start("an exchange between the ranks", [&] { return groups_->tensors->_allgather_base(all, part); });
}

Work Communicator::broadcast(const at::Tensor& tensor, int64_t root) {
  return start("a broadcast", [&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{tensor};
    return groups_->tensors->broadcast(tensors, options);
  });
}

std::vector<double> Communicator::sum(std::vector<double> values) {
  if (!groups_ || values.empty()) return values;
  try {
    std::vector<at::Tensor> tensors{at::from_blob(values.data(), {std::ssize(values)}, at::kDouble)};
    groups_->host->allreduce(tensors)->wait();
  } catch (const std::exception& problem) {
    fail("a sum of counts over the ranks", problem);
  }
  return values;
}

std::vector<std::string> Communicator::all_gather(const std::string& text) {
  if (!groups_) return {text};
  const auto num_ranks = static_cast<std::size_t>(world_.num_ranks);
  std::vector<double> own_length(num_ranks, 0);
  own_length[static_cast<std::size_t>(world_.rank)] = static_cast<double>(text.size());
  const std::vector<double> lengths = sum(std::move(own_length));
  const auto longest = static_cast<int64_t>(*std::ranges::max_element(lengths));
  if (longest == 0) return std::vector<std::string>(num_ranks);
  std::vector<at::Tensor> input{at::empty({longest}, at::kByte)};
  std::memset(input[0].data_ptr(), 0, static_cast<std::size_t>(longest));
  std::memcpy(input[0].data_ptr(), text.data(), text.size());
  std::vector<std::vector<at::Tensor>> output(1);
  for (std::size_t rank = 0; rank < num_ranks; ++rank) output[0].push_back(at::empty({longest}, at::kByte));
  try {
    groups_->host->allgather(output, input)->wait();
  } catch (const std::exception& problem) {
    fail("an exchange between the ranks", problem);
  }
  std::vector<std::string> texts;
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    texts.emplace_back(static_cast<const char*>(output[0][rank].const_data_ptr()),
                       static_cast<std::size_t>(lengths[rank]));
  }
  return texts;
}

void Communicator::barrier() { (void)sum({1.0}); }

void Communicator::together(const std::function<void()>& part) {
  std::exception_ptr own;
  std::string outcome;  // empty, or exit code and message
  try {
    part();
  } catch (const Error& error) {
    own = std::current_exception();
    outcome = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  } catch (...) {
    own = std::current_exception();
    outcome = fmt::format("{} {}", static_cast<int>(ExitCode::kBug), message_of(own));
  }
  if (!groups_) {
    if (own) std::rethrow_exception(own);
    return;
  }
  const std::vector<std::string> outcomes = all_gather(outcome);
  if (own) std::rethrow_exception(own);
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (outcomes[rank].empty()) continue;
    const std::size_t space = outcomes[rank].find(' ');
    throw Error(static_cast<ExitCode>(std::stoi(outcomes[rank].substr(0, space))),
                fmt::format("rank {}: {}", rank, outcomes[rank].substr(space + 1)));
  }
}

}  // namespace scrna::dist
