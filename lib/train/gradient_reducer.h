// Connects the model's backward pass with the buckets that sum gradients over the ranks
// (lib/dist/gradient_buckets.h): which parameters are complete when, and a hook of autograd behind each one's
// last contribution. The head's gradients are made in the forward pass, so their bucket is on its way before
// the backward pass begins; the blocks' follow from the last to the first; the embeddings' come at the very
// end and are what the step waits for.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/dist/communicator.h"
#include "lib/dist/gradient_buckets.h"
#include "lib/model/encoder.h"

namespace scrna::train {

/// The buckets of this model's gradients. A function of the model and dist.bucket_megabytes alone.
dist::BucketPlan gradient_buckets_of(const model::Encoder& encoder, const dist::DistConfig& config);

class GradientReducer {
 public:
  /// Both must outlive this object, and the encoder's parameters stay on their device.
  GradientReducer(dist::Communicator& communicator, model::Encoder& encoder, const dist::DistConfig& config,
                  dist::Summed summed);
  /// Takes the hooks away again.
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// After the forward pass of a step's last micro-batch, before its backward pass.
  void begin();
  /// After that backward pass: afterwards the encoder's gradients are the sums over all ranks (with kShard in
  /// this rank's ranges alone), for the current stream. Throws DeviceError when a rank is gone.
  void finish();

  [[nodiscard]] const dist::GradientBuckets& buckets() const { return *buckets_; }

 private:
  struct Hooks;
  void completed(std::size_t parameter);
  void complete_all(model::GradientMoment moment);

  const model::Encoder& encoder_;
  std::vector<std::size_t> piece_of_;  // [parameters]
  std::unique_ptr<dist::GradientBuckets> buckets_;
  std::unique_ptr<Hooks> hooks_;
  bool is_last_micro_batch_ = false;
};

}  // namespace scrna::train
