// The genes a model knows, each with a token id and the median that the tokenizer divides by. Ids 0..3 are
// the special tokens, genes follow in the order of vocabulary.tsv; a vocabulary built from data lists its
// genes sorted by id, so that it does not depend on the order of files. Medians are float32 written as the
// shortest text that reads back the same, and the whole text is the canonical form: save, load and hash agree
// byte for byte. Format: lib/data/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace scrna::data {

struct Gene {
  std::string id;     // Ensembl id without version, or symbol
  float median = 0;   // of the gene's counts per 10,000 over the cells that express it
  int64_t cells = 0;  // cells that express it in the data the vocabulary was built from
  double counts = 0;  // sum of its raw counts there

  bool operator==(const Gene&) const = default;
};

class Vocabulary {
 public:
  static constexpr int32_t kPad = 0, kMask = 1, kCls = 2, kUnk = 3;
  static constexpr int32_t kNumSpecial = 4;
  static constexpr std::size_t kMaxGenes = (std::size_t{1} << 22) - kNumSpecial;  // 22 bits of a sort key

  /// Tokens kNumSpecial, kNumSpecial + 1, ... are `genes` in their order. Throws DataError for an empty or
  /// repeated id, a median that is not a positive finite number, or no gene at all.
  explicit Vocabulary(std::vector<Gene> genes);
  Vocabulary(Vocabulary&&) noexcept = default;  // moving a vector keeps its elements, and so the views
  Vocabulary& operator=(Vocabulary&&) noexcept = default;
  Vocabulary(const Vocabulary& other) : Vocabulary(other.genes_) {}
  Vocabulary& operator=(const Vocabulary& other) { return *this = Vocabulary(other); }
  ~Vocabulary() = default;
  /// Reads vocabulary.tsv. Throws DataError naming the file, the line and the column.
  static Vocabulary load(const std::filesystem::path& path);
  static Vocabulary parse(std::string_view text, std::string_view name_in_errors);

  void save(const std::filesystem::path& path) const;
  [[nodiscard]] std::string text() const;
  /// SHA-256 of text(), hexadecimal: what checkpoints remember.
  [[nodiscard]] std::string hash() const;

  /// Tokens, special ones included: V, the width of the model's output.
  [[nodiscard]] int32_t size() const { return kNumSpecial + static_cast<int32_t>(genes_.size()); }
  [[nodiscard]] const std::vector<Gene>& genes() const { return genes_; }
  /// Throws InternalError for a special or unknown token.
  [[nodiscard]] const Gene& gene(int32_t token) const;
  /// "<mask>", or the gene's id.
  [[nodiscard]] std::string_view name(int32_t token) const;
  /// Token of a gene id, or kUnk.
  [[nodiscard]] int32_t find(std::string_view id) const;

 private:
  std::vector<Gene> genes_;
  std::unordered_map<std::string_view, int32_t> tokens_;  // views into genes_
};

}  // namespace scrna::data
