#include "lib/dist/shards.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "lib/core/error.h"

namespace scrna::dist {
namespace {

at::Tensor view(const at::Tensor& flat, ElementRange range) {
  return flat.narrow(0, range.begin, range.size());
}

}  // namespace

BucketShares::BucketShares(ElementRange bucket_, int64_t num_ranks, int64_t row_elements)
    : bucket(bucket_), part(bucket.size() / row_elements / num_ranks * row_elements) {
  SCRNA_CHECK(bucket.size() > 0 && bucket.size() % row_elements == 0,
              "a bucket of {} elements; expected rows of {}", bucket.size(), row_elements);
}

Shards::Shards(Communicator& communicator, const std::vector<ElementRange>& buckets, int64_t row_elements)
    : communicator_(communicator) {
  const int64_t num_ranks = communicator.num_ranks();
  for (const ElementRange& range : buckets) {
    const BucketShares& bucket = buckets_.emplace_back(range, num_ranks, row_elements);
    num_elements_ += range.size();
    const ElementRange part = bucket.part_of(communicator.rank()), rest = bucket.rest(num_ranks);
    if (part.size() > 0) {
      own_.push_back(part);
      counted_.push_back(part);
    }
    if (rest.size() > 0) {
      own_.push_back(rest);
      if (communicator.is_first()) counted_.push_back(rest);
    }
    num_own_ += part.size() + rest.size();
  }
}

void Shards::spread(const at::Tensor& flat) const {
  SCRNA_CHECK(flat.dim() == 1 && flat.numel() == num_elements_, "a flat buffer of {} elements, got {}",
              num_elements_, flat.numel());
  const at::NoGradGuard no_grad;
  std::vector<Work> works;
  for (const BucketShares& bucket : buckets_) {
    const ElementRange parts = bucket.parts(communicator_.num_ranks());
    if (parts.size() > 0) works.push_back(communicator_.all_gather_parts(view(flat, parts)));
  }
  for (Work& work : works) work.wait();
}

at::Tensor Shards::collect(const at::Tensor& own) const {
  SCRNA_CHECK(own.dim() == 1 && own.numel() == num_own_, "{} own elements, got {}", num_own_, own.numel());
  const at::NoGradGuard no_grad;
  at::Tensor whole;
  if (communicator_.is_first()) whole = at::empty({num_elements_}, own.options().device(at::kCPU));
  int64_t at = 0;
  for (const BucketShares& bucket : buckets_) {
    const ElementRange parts = bucket.parts(communicator_.num_ranks());
    if (parts.size() > 0) {
      const at::Tensor all = at::empty({parts.size()}, own.options());
      all.narrow(0, communicator_.rank() * bucket.part, bucket.part).copy_(own.narrow(0, at, bucket.part));
      communicator_.all_gather_parts(all).wait();
      if (whole.defined()) view(whole, parts).copy_(all);
      at += bucket.part;
    }
    const ElementRange rest = bucket.rest(communicator_.num_ranks());
    if (rest.size() == 0) continue;
    if (whole.defined()) view(whole, rest).copy_(own.narrow(0, at, rest.size()));
    at += rest.size();
  }
  return whole;
}

}  // namespace scrna::dist
