#include "apps/scrna_train/wait_policy.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace scrna::app {

void wait_without_spinning() {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::ifstream stream("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(stream, word, '\0');) words.push_back(word);
  if (words.empty()) return;  // without /proc: slower on a busy machine, otherwise the same
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::setenv("OMP_WAIT_POLICY", "PASSIVE", 1);
  ::execv("/proc/self/exe", argv.data());
}

}  // namespace scrna::app
