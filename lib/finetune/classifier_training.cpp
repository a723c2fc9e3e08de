#include "lib/finetune/classifier_training.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/data/pack_plan.h"
#include "lib/eval/embedding.h"
#include "lib/model/token_tensors.h"
#include "lib/optim/schedule.h"

namespace scrna::finetune {
namespace {

constexpr int64_t kWindowCells = 2048;  // embedded between two looks at a signal, at least

optim::OptimConfig optim_config(const TrainingSettings& settings, double learning_rate, int64_t total_steps) {
  return {.learning_rate = learning_rate,
          .schedule = optim::Schedule::kCosine,
          .warmup_steps = static_cast<int64_t>(settings.warmup_fraction * static_cast<double>(total_steps)),
          .weight_decay = settings.weight_decay,
          .clip_norm = settings.clip_norm};
}

/// [C] what a cell of each class counts; their mean over the training cells is 1.
std::vector<float> class_weights(const LabelledCells& cells, const Split& split, ClassWeights kind) {
  std::vector<float> weights(cells.classes.size(), 1.0F);
  if (kind == ClassWeights::kNone) return weights;
  std::vector<int64_t> sizes(cells.classes.size());
  for (const int64_t cell : split.training)
    ++sizes[static_cast<std::size_t>(cells.cells[static_cast<std::size_t>(cell)].label)];
  for (std::size_t i = 0; i < sizes.size(); ++i)
    weights[i] = static_cast<float>(static_cast<double>(split.training.size()) /
                                    static_cast<double>(std::ssize(sizes) * sizes[i]));
  return weights;
}

/// The tokens of some cells, one after another.
data::TokenizedCells tokens_of(const data::TokenizedCells& all, std::span<const int64_t> members) {
  data::TokenizedCells out;
  for (const int64_t member : members) {
    const std::span<const int32_t> tokens = all.tokens_of(member);
    out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
    out.begin.push_back(std::ssize(out.tokens));
  }
  return out;
}

}  // namespace

std::vector<ElementRange> trained_ranges(const model::Encoder& encoder) {
  const ops::ParameterSet& parameters = encoder.parameters();
  std::vector<ElementRange> ranges;
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    if (encoder.gradient_moment(i) == model::GradientMoment::kForward) continue;  // the output head's
    ElementRange range = parameters.range_of(i);
    range.end =
        (range.end + ops::kParameterAlignment - 1) / ops::kParameterAlignment * ops::kParameterAlignment;
    ranges.push_back(range);
  }
  std::ranges::sort(ranges, {}, &ElementRange::begin);
  std::vector<ElementRange> merged;
  for (const ElementRange& range : ranges) {
    if (!merged.empty() && merged.back().end == range.begin)
      merged.back().end = range.end;
    else
      merged.push_back(range);
  }
  return merged;
}

ClassifierTraining::ClassifierTraining(train::Embedder& embedder, const LabelledCells& cells,
                                       const Split& split, const FinetuneConfig& config)
    : embedder_(embedder),
      cells_(cells),
      split_(split),
      config_(config),
      device_(embedder.encoder->device()),
      class_weights_(class_weights(cells, split, config.training.class_weights)) {
  const TrainingSettings& training = config.training;
  SCRNA_CHECK(training.epochs > 0 && training.batch_cells > 0 && training.tokens_per_pack > 0,
              "settings that are not resolved");
  const int64_t per_epoch = (std::ssize(split.training) + training.batch_cells - 1) / training.batch_cells;
  total_steps_ = per_epoch * training.epochs;
  if (!config.frozen)
    encoder_optimizer_ = std::make_unique<optim::AdamW>(
        embedder.encoder->parameters(), optim_config(training, training.learning_rate, total_steps_),
        trained_ranges(*embedder.encoder));
}

std::optional<at::Tensor> ClassifierTraining::embed_part(
    const std::vector<int64_t>& part, int64_t done, int64_t total,
    const std::function<bool(int64_t, int64_t)>& keep_going) const {
  std::vector<at::Tensor> rows;
  for (std::size_t first = 0; first < part.size(); first += kWindowCells) {
    const std::span<const int64_t> members =
        std::span(part).subspan(first, std::min<std::size_t>(kWindowCells, part.size() - first));
    const at::Tensor window = eval::embed_cells(
        *embedder_.encoder, tokens_of(cells_.tokens, members), embedder_.options,
        [&](int64_t cell) { return keep_going(done + static_cast<int64_t>(first) + cell, total); });
    if (!window.defined()) return std::nullopt;
    rows.push_back(window);
  }
  return at::cat(rows);
}

// Full training needs the rows for the head's standardisation alone.
bool ClassifierTraining::embed(const TrainingCallbacks& callbacks) {
  const int64_t num_training = std::ssize(split_.training);
  const int64_t total = num_training + (config_.frozen ? std::ssize(split_.heldout) : 0);
  const auto training = embed_part(split_.training, 0, total, callbacks.keep_embedding);
  if (!training) return false;
  if (config_.frozen) {
    const auto heldout = embed_part(split_.heldout, num_training, total, callbacks.keep_embedding);
    if (!heldout) return false;
    heldout_rows_ = *heldout;
    training_rows_ = training->to(device_);
  }
  const auto [mean, deviation] = standardisation_of(*training);
  head_ = std::make_unique<ClassificationHead>(mean, deviation, std::ssize(cells_.classes),
                                               config_.training.seed, device_);
  head_optimizer_ = std::make_unique<optim::AdamW>(
      head_->parameters(), optim_config(config_.training, config_.training.head_learning_rate, total_steps_));
  return callbacks.keep_embedding(total, total);
}

bool ClassifierTraining::run(const TrainingCallbacks& callbacks) {
  if (!embed(callbacks)) return false;
  double best_f1 = -1, best_loss = 0;
  int64_t best_epoch = 0;
  for (int64_t epoch = 1; epoch <= config_.training.epochs; ++epoch) {
    const double start = now_seconds();
    Epoch out{.epoch = epoch};
    if (!train_epoch(epoch, callbacks, out)) return false;
    if (!predict(callbacks, out)) return false;
    out.seconds = now_seconds() - start;
    out.is_best =
        out.report.macro_f1 > best_f1 || (out.report.macro_f1 == best_f1 && out.heldout_loss < best_loss);
    if (out.is_best) {
      best_f1 = out.report.macro_f1;
      best_loss = out.heldout_loss;
      best_epoch = epoch;
    }
    callbacks.on_epoch(out);
    if (epoch - best_epoch >= config_.training.patience) break;
  }
  return true;
}

std::vector<int64_t> ClassifierTraining::order_of(int64_t epoch) const {
  std::vector<int64_t> order(split_.training.size());
  std::iota(order.begin(), order.end(), 0);
  const RandomStream random(config_.training.seed, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch));
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
  return order;
}

bool ClassifierTraining::train_epoch(int64_t epoch, const TrainingCallbacks& callbacks, Epoch& out) {
  const std::vector<int64_t> order = order_of(epoch);
  const auto batch_cells = static_cast<std::size_t>(config_.training.batch_cells);
  loss_sum_ = at::zeros({}, at::TensorOptions(at::kDouble).device(device_));
  weight_sum_ = 0;
  for (std::size_t first = 0; first < order.size(); first += batch_cells) {
    if (!callbacks.keep_going(steps_, total_steps_)) return false;
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), first + batch_cells));
    const std::vector<int64_t> places(order.begin() + static_cast<std::ptrdiff_t>(first), end);
    if (config_.frozen)
      frozen_step(places);
    else
      full_step(places);
  }
  out.steps = steps_;
  out.learning_rate = learning_rate_;
  out.head_learning_rate = head_learning_rate_;
  out.training_loss = loss_sum_.item<double>() / weight_sum_;
  if (!std::isfinite(out.training_loss)) {
    throw NumericError("epoch {}: the loss is not finite; lower {}", epoch,
                       config_.frozen ? "--head-learning-rate" : "--learning-rate and --head-learning-rate");
  }
  return true;
}

// places: into split_.training.
void ClassifierTraining::frozen_step(const std::vector<int64_t>& places) {
  at::Tensor targets = at::empty({std::ssize(places)}, at::kLong),
             weights = at::empty({std::ssize(places)}, at::kFloat);
  at::Tensor index = at::empty({std::ssize(places)}, at::kLong);
  double weight_sum = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto cell = static_cast<std::size_t>(split_.training[static_cast<std::size_t>(places[i])]);
    const int32_t label = cells_.cells[cell].label;
    index.mutable_data_ptr<int64_t>()[i] = places[i];
    targets.mutable_data_ptr<int64_t>()[i] = label;
    weights.mutable_data_ptr<float>()[i] = class_weights_[static_cast<std::size_t>(label)];
    weight_sum += class_weights_[static_cast<std::size_t>(label)];
  }
  head_->parameters().zero_gradients();
  const at::Tensor rows = at::index_select(training_rows_, 0, index.to(device_));
  const auto loss =
      head_->loss_with_gradients(rows, targets.to(device_), weights.to(device_), 1 / weight_sum);
  loss_sum_.add_(loss.sum);
  update(weight_sum);
}

void ClassifierTraining::full_step(const std::vector<int64_t>& places) {
  std::vector<int64_t> members;
  std::vector<int32_t> lengths;
  double weight_sum = 0;
  for (const int64_t place : places) {
    members.push_back(split_.training[static_cast<std::size_t>(place)]);
    lengths.push_back(static_cast<int32_t>(cells_.tokens.tokens_of(members.back()).size()));
    weight_sum += class_weights_[static_cast<std::size_t>(
        cells_.cells[static_cast<std::size_t>(members.back())].label)];
  }
  embedder_.encoder->parameters().zero_gradients();
  head_->parameters().zero_gradients();
  std::size_t index = 0;
  for (const std::vector<int32_t>& pack : data::plan_packs(lengths, config_.training.tokens_per_pack)) {
    std::vector<int64_t> of_pack;
    for (const int32_t member : pack) of_pack.push_back(members[static_cast<std::size_t>(member)]);
    add_gradients(of_pack, index++, 1 / weight_sum);
  }
  update(weight_sum);
}

void ClassifierTraining::add_gradients(const std::vector<int64_t>& members, std::size_t pack, double scale) {
  at::Tensor targets = at::empty({std::ssize(members)}, at::kLong),
             weights = at::empty({std::ssize(members)}, at::kFloat);
  for (std::size_t i = 0; i < members.size(); ++i) {
    const int32_t label = cells_.cells[static_cast<std::size_t>(members[i])].label;
    targets.mutable_data_ptr<int64_t>()[i] = label;
    weights.mutable_data_ptr<float>()[i] = class_weights_[static_cast<std::size_t>(label)];
  }
  const model::TokenTensors input = model::to_device(eval::pack_of(cells_.tokens, members), device_);
  model::ForwardContext context{.seed = config_.training.seed,
                                .step = steps_,
                                .micro_batch = static_cast<int64_t>(pack),
                                .training = true,
                                .recompute = config_.training.recompute};
  model::HiddenPass pass = embedder_.encoder->hidden_for_training(input, context);
  const at::Tensor hidden = pass.hidden();
  const at::Tensor pooled = eval::pool_cells(hidden, input.cu_seqlens_host, embedder_.options);
  const auto loss = head_->loss_with_gradients(pooled, targets.to(device_), weights.to(device_), scale);
  loss_sum_.add_(loss.sum);
  pass.backward(spread_over_tokens(loss.d_pooled_BD, input.cu_seqlens_host, embedder_.options.has_cls,
                                   hidden.scalar_type()));
}

// Nothing waits for a GPU: a loss that is not finite keeps AdamW from moving, and the end of the epoch finds
// it.
void ClassifierTraining::update(double weight_sum) {
  const TrainingSettings& training = config_.training;
  ops::ParameterSet& head = head_->parameters();
  at::Tensor squares = head.squared_gradient_norm_per_layer();
  head_learning_rate_ = optim::learning_rate_at(
      optim_config(training, training.head_learning_rate, total_steps_), steps_, total_steps_);
  const at::Tensor gate = loss_sum_.to(at::kFloat);
  if (encoder_optimizer_) {
    ops::ParameterSet& encoder = embedder_.encoder->parameters();
    squares = at::cat({encoder.squared_gradient_norm_per_layer(), squares});
    learning_rate_ = optim::learning_rate_at(optim_config(training, training.learning_rate, total_steps_),
                                             steps_, total_steps_);
    encoder_optimizer_->step(learning_rate_, squares, gate);
    encoder.refresh_compute_values();
  }
  head_optimizer_->step(head_learning_rate_, squares, gate);
  weight_sum_ += weight_sum;
  ++steps_;
}

bool ClassifierTraining::predict(const TrainingCallbacks& callbacks, Epoch& out) {
  std::optional<at::Tensor> rows;
  try {
    rows = config_.frozen ? std::optional(heldout_rows_)
                          : embed_part(split_.heldout, 0, std::ssize(split_.heldout), [&](int64_t, int64_t) {
                              return callbacks.keep_going(steps_, total_steps_);
                            });
  } catch (const NumericError&) {  // which blames the checkpoint
    throw NumericError("epoch {}: embeddings of held-out cells are not finite; lower --learning-rate",
                       out.epoch);
  }
  if (!rows) return false;
  out.probabilities = head_->weights().probabilities(*rows);
  const auto probabilities = out.probabilities.accessor<float, 2>();
  std::vector<int32_t> truth, predicted;
  for (int64_t i = 0; i < out.probabilities.size(0); ++i) {
    const int32_t label =
        cells_.cells[static_cast<std::size_t>(split_.heldout[static_cast<std::size_t>(i)])].label;
    int32_t best = 0;
    for (int32_t c = 1; c < static_cast<int32_t>(probabilities.size(1)); ++c)
      if (probabilities[i][c] > probabilities[i][best]) best = c;
    truth.push_back(label);
    predicted.push_back(best);
    out.heldout_loss -= std::log(std::max(static_cast<double>(probabilities[i][label]), 1e-38)) /
                        static_cast<double>(out.probabilities.size(0));
  }
  out.report = classification_report(truth, predicted, cells_.classes);
  return true;
}

}  // namespace scrna::finetune
