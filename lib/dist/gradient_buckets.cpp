#include "lib/dist/gradient_buckets.h"

#include <utility>

#include <ATen/core/grad_mode.h>

#include "lib/core/error.h"
#include "lib/dist/shards.h"

namespace scrna::dist {

BucketPlan plan_buckets(const std::vector<GradientPiece>& pieces, int64_t num_elements,
                        int64_t bucket_bytes) {
  BucketPlan plan;
  int64_t covered = 0, phase = 0;  // of the newest bucket
  for (const GradientPiece& piece : pieces) {
    SCRNA_CHECK(piece.begin >= 0 && piece.begin < piece.end && piece.end <= num_elements,
                "gradients {} to {} of {}", piece.begin, piece.end, num_elements);
    covered += piece.end - piece.begin;
    ElementRange* bucket = plan.buckets.empty() ? nullptr : &plan.buckets.back();
    const bool is_full = bucket == nullptr || phase != piece.phase ||
                         bucket->size() * static_cast<int64_t>(sizeof(float)) >= bucket_bytes;
    if (!is_full && piece.end == bucket->begin) {
      bucket->begin = piece.begin;
    } else if (!is_full && piece.begin == bucket->end) {
      bucket->end = piece.end;
    } else {
      plan.buckets.push_back({piece.begin, piece.end});
      phase = piece.phase;
    }
    plan.bucket_of.push_back(plan.buckets.size() - 1);
  }
  SCRNA_CHECK(covered == num_elements, "pieces hold {} of {} gradients", covered, num_elements);
  return plan;
}

GradientBuckets::GradientBuckets(Communicator& communicator, at::Tensor flat, BucketPlan plan,
                                 GradientType type, Summed summed, int64_t row_elements)
    : communicator_(communicator),
      flat_(std::move(flat)),
      type_(type),
      summed_(summed),
      row_elements_(row_elements),
      bucket_of_(std::move(plan.bucket_of)),
      is_ready_(bucket_of_.size(), 0) {
  SCRNA_CHECK(flat_.dim() == 1 && flat_.is_contiguous() && flat_.scalar_type() == at::kFloat,
              "gradients must be a contiguous flat fp32 buffer");
  for (const ElementRange& range : plan.buckets) buckets_.emplace_back().range = range;
  for (const std::size_t bucket : bucket_of_) ++buckets_.at(bucket).num_pieces;
}

void GradientBuckets::begin() {
  for (Bucket& bucket : buckets_) bucket.num_waiting = bucket.num_pieces;
  is_ready_.assign(is_ready_.size(), 0);
  next_ = 0;
  is_open_ = true;
}

void GradientBuckets::ready(std::size_t index) {
  SCRNA_CHECK(is_open_ && is_ready_.at(index) == 0, "gradient {} is ready {}", index,
              is_open_ ? "twice" : "outside a step");
  is_ready_[index] = 1;
  --buckets_[bucket_of_[index]].num_waiting;
  for (; next_ < buckets_.size() && buckets_[next_].num_waiting == 0; ++next_) launch(buckets_[next_]);
}

void GradientBuckets::launch(Bucket& bucket) {
  const at::NoGradGuard no_grad;
  const at::Tensor gradients = flat_.narrow(0, bucket.range.begin, bucket.range.size());
  bucket.sent = type_ == GradientType::kBf16 ? gradients.to(at::kBFloat16) : gradients;
  if (summed_ == Summed::kWhole) {
    bucket.works.push_back(communicator_.all_reduce(bucket.sent));
    return;
  }
  const BucketShares shares({0, bucket.range.size()}, communicator_.num_ranks(), row_elements_);
  const ElementRange parts = shares.parts(communicator_.num_ranks());
  if (parts.size() > 0)
    bucket.works.push_back(communicator_.reduce_scatter(bucket.sent.narrow(0, 0, parts.size())));
  const ElementRange rest = shares.rest(communicator_.num_ranks());
  if (rest.size() > 0)
    bucket.works.push_back(communicator_.all_reduce(bucket.sent.narrow(0, rest.begin, rest.size())));
}

void GradientBuckets::finish() {
  SCRNA_CHECK(is_open_ && next_ == buckets_.size(), "{} of {} buckets of gradients are on their way", next_,
              buckets_.size());
  const at::NoGradGuard no_grad;
  for (Bucket& bucket : buckets_) {
    for (Work& work : bucket.works) work.wait();
    bucket.works.clear();
    if (type_ == GradientType::kBf16)
      flat_.narrow(0, bucket.range.begin, bucket.range.size()).copy_(bucket.sent);
    bucket.sent.reset();
  }
  is_open_ = false;
}

int64_t GradientBuckets::bytes_per_step() const {
  return flat_.numel() * (type_ == GradientType::kBf16 ? 2 : 4);
}

}  // namespace scrna::dist
