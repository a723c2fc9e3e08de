#include "lib/train/gradient_reducer.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "lib/core/error.h"

namespace scrna::train {
namespace {

constexpr int64_t kMegabyte = int64_t{1} << 20;

class Call : public torch::autograd::FunctionPostHook {
 public:
  explicit Call(std::function<void()> done) : done_(std::move(done)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list& /*inputs*/) override {
    done_();
    return outputs;
  }

 private:
  std::function<void()> done_;
};

struct Place {
  std::size_t parameter;
  dist::GradientPiece piece;
  bool is_decayed;
};

// Every parameter with the gap behind it, in buffer order.
std::vector<Place> places_of(const model::Encoder& encoder) {
  const ops::ParameterSet& parameters = encoder.parameters();
  std::vector<Place> places;
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const int64_t begin = parameters.range_of(i).begin;
    places.push_back({i,
                      {.begin = begin, .end = 0, .phase = static_cast<int64_t>(encoder.gradient_moment(i))},
                      begin < parameters.num_decayed()});
  }
  std::ranges::sort(places, {}, [](const Place& place) { return place.piece.begin; });
  for (std::size_t i = 0; i < places.size(); ++i) {
    places[i].piece.end = i + 1 < places.size() ? places[i + 1].piece.begin : parameters.gradients().numel();
  }
  return places;
}

// By moment; the matrices of the blocks from the last to the first, then the small parameters (in a range of
// their own, complete only when the first block is).
std::vector<Place> expected_order(const model::Encoder& encoder) {
  std::vector<Place> places = places_of(encoder);
  std::ranges::sort(places, {}, [](const Place& place) {
    return std::tuple(place.piece.phase, place.is_decayed ? 0 : 1, -place.piece.begin);
  });
  return places;
}

}  // namespace

// Autograd calls the node that accumulates a parameter's gradient once per backward pass, also when the
// operation before it has added the gradient by itself and returned none. The node lives as long as somebody
// holds it.
struct GradientReducer::Hooks {
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> of_nodes;
};

dist::BucketPlan gradient_buckets_of(const model::Encoder& encoder, const dist::DistConfig& config) {
  std::vector<dist::GradientPiece> pieces;
  for (const Place& place : expected_order(encoder)) pieces.push_back(place.piece);
  return dist::plan_buckets(pieces, encoder.parameters().gradients().numel(),
                            config.bucket_megabytes * kMegabyte);
}

GradientReducer::GradientReducer(dist::Communicator& communicator, model::Encoder& encoder,
                                 const dist::DistConfig& config, dist::Summed summed)
    : encoder_(encoder),
      piece_of_(encoder.parameters().all().size()),
      buckets_(std::make_unique<dist::GradientBuckets>(
          communicator, encoder.parameters().gradients(), gradient_buckets_of(encoder, config),
          config.gradient_type, summed, ops::kParameterAlignment)),
      hooks_(std::make_unique<Hooks>()) {
  const std::vector<Place> places = expected_order(encoder);
  for (std::size_t piece = 0; piece < places.size(); ++piece) piece_of_[places[piece].parameter] = piece;
  for (std::size_t i = 0; i < piece_of_.size(); ++i) {
    if (encoder.gradient_moment(i) != model::GradientMoment::kBackward) continue;
    auto node = torch::autograd::impl::grad_accumulator(encoder.parameters().all()[i].value);
    SCRNA_CHECK(node != nullptr, "parameter {} accumulates no gradient", encoder.parameters().all()[i].name);
    const uintptr_t key = node->add_post_hook(std::make_unique<Call>([this, i] { completed(i); }));
    hooks_->of_nodes.emplace_back(std::move(node), key);
  }
}

GradientReducer::~GradientReducer() {
  for (const auto& [node, key] : hooks_->of_nodes) node->del_post_hook(key);
}

void GradientReducer::completed(std::size_t parameter) {
  if (is_last_micro_batch_) buckets_->ready(piece_of_[parameter]);
}

void GradientReducer::complete_all(model::GradientMoment moment) {
  for (std::size_t i = 0; i < piece_of_.size(); ++i) {
    if (encoder_.gradient_moment(i) == moment) buckets_->ready(piece_of_[i]);
  }
}

void GradientReducer::begin() {
  is_last_micro_batch_ = true;
  buckets_->begin();
  complete_all(model::GradientMoment::kForward);
}

void GradientReducer::finish() {
  is_last_micro_batch_ = false;
  complete_all(model::GradientMoment::kEnd);
  buckets_->finish();
}

}  // namespace scrna::train
