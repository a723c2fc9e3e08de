// A range of a flat buffer. What dist says of who owns which part of it, and ops and optim do with their part.
#pragma once

#include <cstdint>

namespace scrna {

struct ElementRange {
  int64_t begin = 0;  // elements
  int64_t end = 0;
  [[nodiscard]] int64_t size() const { return end - begin; }
  friend bool operator==(const ElementRange&, const ElementRange&) = default;
};

}  // namespace scrna
