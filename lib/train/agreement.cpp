#include "lib/train/agreement.h"

#include <csignal>
#include <exception>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/signals.h"
#include "lib/ops/parameters.h"
#include "lib/train/meters.h"

namespace scrna::train {

void require_same_configuration(dist::Communicator& communicator, const TrainConfig& config,
                                const std::optional<ResumePoint>& resume) {
  if (!communicator.is_connected()) return;
  const std::string start = resume ? resume->checkpoint.string() : "no checkpoint";
  const std::vector<std::string> starts = communicator.all_gather(start);
  const std::vector<std::string> texts = communicator.all_gather(config::dump(config));
  const auto refuse = [](std::size_t rank, const std::string& difference) {
    throw ConfigError(
        "rank {} was given other settings than rank 0: {}; start every process with the same configuration "
        "and --set",
        rank, difference);
  };
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (starts[rank] != starts[0])
      refuse(rank, fmt::format("it begins at {} instead of {}", starts[rank], starts[0]));
    if (texts[rank] == texts[0]) continue;
    const auto read = [&](std::size_t of_rank) {
      return config::from_node<TrainConfig>(
          config::parse_text(texts[of_rank], fmt::format("rank {}", of_rank)));
    };
    const config::Difference difference = config::differences(read(0), read(rank)).at(0);
    refuse(rank, fmt::format("{} is {} instead of {}", difference.path, difference.after, difference.before));
  }
}

int64_t checksum(const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  // Integer sums wrap and do not depend on the order of additions.
  const at::Tensor rows =
      tensor.view(at::kInt).view({-1, ops::kParameterAlignment}).sum({1}, false, at::kLong);
  const at::Tensor weights = at::arange(rows.numel(), rows.options()).mul_(2).add_(1);
  return rows.mul_(weights).sum().item<int64_t>();
}

void require_same_weights(dist::Communicator& communicator, const model::Encoder& encoder,
                          const optim::AdamW& optimizer, const std::string& when) {
  if (!communicator.is_connected()) return;
  std::string sums = fmt::format("{:016x} {}", static_cast<uint64_t>(checksum(encoder.parameters().values())),
                                 optimizer.num_updates());
  if (optimizer.is_whole()) {
    sums += fmt::format(" {:016x} {:016x}", static_cast<uint64_t>(checksum(optimizer.mean())),
                        static_cast<uint64_t>(checksum(optimizer.squared_mean())));
  }
  const std::vector<std::string> all = communicator.all_gather(sums);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    SCRNA_CHECK(all[rank] == all[0], "{}: rank {} has other weights (checksums {}) than rank 0 ({})", when,
                rank, all[rank], all[0]);
  }
}

SharedStep share_step(dist::Communicator& communicator, const std::function<DeviceBatch()>& next) {
  SharedStep step;
  std::exception_ptr problem;
  try {
    step.batch = next();
  } catch (...) {
    problem = std::current_exception();
  }
  if (!problem) step.load = load_of(step.batch);
  const int signal = stop_signal();
  // Counts are exact: sums stay below 2^53.
  const std::vector<double> sums = communicator.sum(
      {problem ? 1.0 : 0.0, signal == SIGTERM ? 1.0 : 0.0, signal != 0 ? 1.0 : 0.0,
       static_cast<double>(step.batch.num_cells), static_cast<double>(step.batch.num_tokens),
       static_cast<double>(step.batch.num_masked), static_cast<double>(step.batch.num_micro_batches),
       static_cast<double>(step.load.rows), step.load.squared_lengths});
  if (sums[0] > 0) {
    communicator.together([&] {
      if (problem) std::rethrow_exception(problem);
    });
  }
  step.stop_signal = sums[1] > 0 ? SIGTERM : sums[2] > 0 ? SIGINT : 0;
  const auto count = [&](std::size_t index) { return static_cast<int64_t>(sums[index]); };
  step.batch.num_cells = count(3);
  step.batch.num_tokens = count(4);
  step.batch.num_masked = count(5);
  step.batch.num_micro_batches = count(6);
  step.load = {.cells = count(3),
               .tokens = count(4),
               .masked_tokens = count(5),
               .squared_lengths = sums[8],
               .rows = count(7)};
  return step;
}

}  // namespace scrna::train
