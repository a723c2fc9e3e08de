#include "lib/data/vocabulary.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::data {
namespace {

constexpr std::array<std::string_view, Vocabulary::kNumSpecial> kSpecialNames = {"<pad>", "<mask>", "<cls>",
                                                                                 "<unk>"};
constexpr std::array<std::string_view, 5> kColumns = {"token", "gene", "median", "cells", "counts"};

template <class T>
std::string shortest(T value) {
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return {buffer.data(), end};
}

std::string header() {
  std::string line(kColumns[0]);
  for (std::size_t i = 1; i < kColumns.size(); ++i) line += fmt::format("\t{}", kColumns[i]);
  return line;
}

/// One line of the table, with what errors need to name the place.
struct Line {
  std::string_view file;
  int64_t number = 0;
  std::array<std::string_view, kColumns.size()> cells;

  [[noreturn]] void fail(std::size_t column, std::string_view expected) const {
    throw DataError(
        "{}: line {}, column {}: expected {}, got '{}'; the file must have the format of the vocabulary.tsv "
        "that a run writes",
        file, number, kColumns[column], expected, cells[column]);
  }
  template <class T>
  T number_at(std::size_t column, std::string_view expected) const {
    T value{};
    const std::string_view text = cells[column];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) fail(column, expected);
    return value;
  }
};

Line split_line(std::string_view file, int64_t number, std::string_view text) {
  Line line{.file = file, .number = number, .cells = {}};
  std::size_t column = 0;
  for (std::size_t begin = 0;; ++column) {
    const std::size_t end = text.find('\t', begin);
    if (column < kColumns.size())
      line.cells[column] = text.substr(begin, end == text.npos ? text.npos : end - begin);
    if (end == text.npos) break;
    begin = end + 1;
  }
  if (column + 1 != kColumns.size()) {
    throw DataError("{}: line {}: expected {} columns separated by tabs ({}), got {}", file, number,
                    kColumns.size(), fmt::join(kColumns, ", "), column + 1);
  }
  return line;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<Gene> genes) : genes_(std::move(genes)) {
  if (genes_.empty()) throw DataError("the vocabulary holds no gene");
  if (genes_.size() > kMaxGenes)
    throw DataError("the vocabulary holds {} genes; at most {} can be handled", genes_.size(), kMaxGenes);
  tokens_.reserve(genes_.size());
  int32_t token = kNumSpecial;
  for (const Gene& gene : genes_) {
    if (gene.id.empty() || gene.id.find_first_of("\t\n\r") != gene.id.npos) {
      throw DataError("gene '{}' of the vocabulary: an id must not be empty nor hold a tab or line break",
                      gene.id);
    }
    if (!(gene.median > 0) || !std::isfinite(gene.median)) {
      throw DataError("gene '{}' of the vocabulary: the median must be above 0 and finite, got {}", gene.id,
                      gene.median);
    }
    if (!tokens_.emplace(gene.id, token++).second)
      throw DataError("gene '{}' is in the vocabulary twice", gene.id);
  }
  for (const std::string_view name : kSpecialNames) {
    if (tokens_.contains(name)) throw DataError("'{}' is a special token and cannot be a gene", name);
  }
}

Vocabulary Vocabulary::load(const std::filesystem::path& path) {
  return parse(read_file(path), path.string());
}

Vocabulary Vocabulary::parse(std::string_view text, std::string_view name) {
  std::vector<Gene> genes;
  std::unordered_map<std::string_view, int64_t> line_of;
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == text.npos) end = text.size();
    std::string_view content = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (content.ends_with('\r')) content.remove_suffix(1);
    if (number == 1) {
      if (content != header()) {
        throw DataError("{}: line 1: expected the column names '{}' separated by tabs, got '{}'", name,
                        fmt::join(kColumns, " "), content);
      }
      continue;
    }
    const Line line = split_line(name, number, content);
    const int64_t token = number - 2;
    if (line.number_at<int64_t>(0, "an integer") != token)
      line.fail(0, fmt::format("token {} (they count up)", token));
    if (token < kNumSpecial) {
      const std::string_view special = kSpecialNames[static_cast<std::size_t>(token)];
      if (line.cells[1] != special) line.fail(1, fmt::format("the special token {}", special));
      continue;
    }
    if (line.cells[1].empty()) line.fail(1, "a gene id");
    const auto [earlier, is_new] = line_of.emplace(line.cells[1], number);
    if (!is_new) line.fail(1, fmt::format("a gene id that is not already on line {}", earlier->second));
    Gene gene{.id = std::string(line.cells[1]),
              .median = line.number_at<float>(2, "a number"),
              .cells = line.number_at<int64_t>(3, "an integer"),
              .counts = line.number_at<double>(4, "a number")};
    if (!(gene.median > 0) || !std::isfinite(gene.median)) line.fail(2, "a finite number above 0");
    if (gene.cells < 0) line.fail(3, "a number of cells, 0 or more");
    if (!(gene.counts >= 0) || !std::isfinite(gene.counts)) line.fail(4, "a finite sum of counts, 0 or more");
    genes.push_back(std::move(gene));
  }
  if (number == 0) throw DataError("{}: the file is empty; expected a vocabulary table", name);
  if (genes.empty()) {
    throw DataError(
        "{}: {} lines and no gene; expected a header line, four special tokens and one line per gene", name,
        number);
  }
  try {
    return Vocabulary(std::move(genes));
  } catch (const DataError& error) {
    throw DataError("{}: {}", name, error.what());
  }
}

void Vocabulary::save(const std::filesystem::path& path) const { write_file_atomically(path, text()); }

std::string Vocabulary::text() const {
  std::string out = header() + "\n";
  int32_t token = 0;
  for (const std::string_view name : kSpecialNames) out += fmt::format("{}\t{}\t0\t0\t0\n", token++, name);
  for (const Gene& gene : genes_) {
    out += fmt::format("{}\t{}\t{}\t{}\t{}\n", token++, gene.id, shortest(gene.median), gene.cells,
                       shortest(gene.counts));
  }
  return out;
}

std::string Vocabulary::hash() const { return sha256(text()); }

const Gene& Vocabulary::gene(int32_t token) const {
  SCRNA_CHECK(token >= kNumSpecial && token < size(), "token {} is not a gene of {} tokens", token, size());
  return genes_[static_cast<std::size_t>(token - kNumSpecial)];
}

std::string_view Vocabulary::name(int32_t token) const {
  if (token >= 0 && token < kNumSpecial) return kSpecialNames[static_cast<std::size_t>(token)];
  return gene(token).id;
}

int32_t Vocabulary::find(std::string_view id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? kUnk : found->second;
}

}  // namespace scrna::data
