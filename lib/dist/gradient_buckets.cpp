#include "lib/dist/gradient_buckets.h"

#include <utility>

#include <ATen/core/grad_mode.h>

#include "lib/core/error.h"

namespace scrna::dist {

GradientBuckets::GradientBuckets(Communicator& communicator, at::Tensor flat,
                                 const std::vector<GradientPiece>& pieces, int64_t bucket_bytes,
                                 GradientType type)
    : communicator_(communicator), flat_(std::move(flat)), type_(type), is_ready_(pieces.size(), 0) {
  SCRNA_CHECK(flat_.dim() == 1 && flat_.is_contiguous() && flat_.scalar_type() == at::kFloat,
              "gradients must be a contiguous flat fp32 buffer");
  int64_t covered = 0;
  for (const GradientPiece& piece : pieces) {
    SCRNA_CHECK(piece.begin >= 0 && piece.begin < piece.end && piece.end <= flat_.numel(),
                "gradients {} to {} of {}", piece.begin, piece.end, flat_.numel());
    covered += piece.end - piece.begin;
    Bucket* bucket = buckets_.empty() ? nullptr : &buckets_.back();
    const bool is_full = bucket == nullptr || bucket->phase != piece.phase ||
                         (bucket->end - bucket->begin) * static_cast<int64_t>(sizeof(float)) >= bucket_bytes;
    if (!is_full && piece.end == bucket->begin) {
      bucket->begin = piece.begin;
    } else if (!is_full && piece.begin == bucket->end) {
      bucket->end = piece.end;
    } else {
      bucket = &buckets_.emplace_back();
      bucket->begin = piece.begin;
      bucket->end = piece.end;
      bucket->phase = piece.phase;
    }
    ++bucket->num_pieces;
    bucket_of_.push_back(buckets_.size() - 1);
  }
  SCRNA_CHECK(covered == flat_.numel(), "pieces hold {} of {} gradients", covered, flat_.numel());
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
  const at::Tensor range = flat_.narrow(0, bucket.begin, bucket.end - bucket.begin);
  bucket.sent = type_ == GradientType::kBf16 ? range.to(at::kBFloat16) : range;
  bucket.work = communicator_.all_reduce(bucket.sent);
}

void GradientBuckets::finish() {
  SCRNA_CHECK(is_open_ && next_ == buckets_.size(), "{} of {} buckets of gradients are on their way", next_,
              buckets_.size());
  const at::NoGradGuard no_grad;
  for (Bucket& bucket : buckets_) {
    bucket.work.wait();
    if (type_ == GradientType::kBf16)
      flat_.narrow(0, bucket.begin, bucket.end - bucket.begin).copy_(bucket.sent);
    bucket.sent.reset();
  }
  is_open_ = false;
}

int64_t GradientBuckets::bytes_per_step() const {
  return flat_.numel() * (type_ == GradientType::kBf16 ? 2 : 4);
}

}  // namespace scrna::dist
