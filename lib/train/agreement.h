// What the ranks of a run agree on besides gradients: that they run the same thing, how large the global
// batch is, when to stop, and that their weights are the same. Each is one exchange on the host plane of the
// communicator; alone, each is free. Every rank must call them in the same order.
#pragma once

#include <filesystem>
#include <string>

#include "lib/dist/communicator.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/device_batch.h"
#include "lib/train/flops.h"
#include "lib/train/resume.h"
#include "lib/train/train_config.h"

namespace scrna::train {

/// All ranks have the same settings and begin at the same checkpoint. Throws ConfigError, on every rank, that
/// names a rank that differs and the first setting in which it does.
void require_same_configuration(dist::Communicator& communicator, const TrainConfig& config,
                                const std::optional<ResumePoint>& resume);

/// All ranks hold the same weights, and moments unless each has its own part, bit for bit: compares checksums
/// made on the device. Throws InternalError naming the ranks and `when`. Waits for the device.
void require_same_weights(dist::Communicator& communicator, const model::Encoder& encoder,
                          const optim::AdamW& optimizer, const std::string& when);

/// Sum over positions of the bits of each number times an odd function of its row of 1,024: any change of one
/// number changes it, as does swapping two rows. tensor: flat fp32, whole rows.
int64_t checksum(const at::Tensor& tensor);

/// A step as all ranks see it before it begins.
struct SharedStep {
  DeviceBatch batch;    // the cells of this rank; the counts are those of the global batch
  StepLoad load;        // of the global batch
  int stop_signal = 0;  // not 0: some rank was asked to stop, none shall begin the step
};

/// Takes the next batch (`next`) and exchanges its counts. When `next` throws on a rank, all throw: that one
/// its own exception, the others an Error that quotes it.
SharedStep share_step(dist::Communicator& communicator, const std::function<DeviceBatch()>& next);

}  // namespace scrna::train
