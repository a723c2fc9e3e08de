// The `dist` section of a configuration: what several processes say to each other. None of it changes what is
// computed, but for gradient_type (and roundings).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "lib/config/bound.h"

namespace scrna::dist {

enum class GradientType { kFp32, kBf16 };
constexpr auto enum_names(GradientType) {
  return std::array{std::pair{std::string_view("fp32"), GradientType::kFp32},
                    std::pair{std::string_view("bf16"), GradientType::kBf16}};
}

struct DistConfig {
  GradientType gradient_type = GradientType::kFp32;
  bool shard_optimizer = false;
  int64_t bucket_megabytes = 25;
  int64_t timeout_seconds = 600;

  template <class V>
  void visit(V&& v) {
    v("gradient_type", gradient_type,
      "type in which gradients are sent and summed over the processes: fp32, or bf16 for half the bytes and "
      "rounded "
      "sums; unused in one process");
    v("shard_optimizer", shard_optimizer,
      "true: each process keeps and updates only its part of AdamW's moments (ZeRO stage 1), which saves up to 8 "
      "bytes per parameter on every GPU and sends the same bytes, part of them after the step; checkpoints stay the "
      "same; unused in one process");
    v("bucket_megabytes", bucket_megabytes,
      "size of the pieces in which gradients are summed while the backward pass goes on",
      config::between(1, 10000));
    v("timeout_seconds", timeout_seconds,
      "how long a process waits for the others, at the start and in every exchange, before it gives up with "
      "exit code 5",
      config::between(1, 86400));
  }
};

}  // namespace scrna::dist
