#include "lib/dist/error_file.h"

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

namespace scrna::dist {

void write_error_file(std::string_view message) {
  const char* const path = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (path == nullptr || *path == '\0') return;
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  const nlohmann::json content = {
      {"message", {{"message", message}, {"extraInfo", {{"timestamp", std::to_string(seconds)}}}}}};
  // Bytes that are not UTF-8 (of a file name) are replaced: a report that cannot be read helps nobody.
  std::ofstream(path) << content.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace scrna::dist
