// A page: one HTML file without scripts, fonts or images from elsewhere, readable in light and dark, on a
// phone and in print.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lib/report/svg.h"

namespace scrna::report {

/// A figure with the name of its own file ("loss" -> loss.svg) and a sentence under it.
struct Figure {
  std::string name;
  std::string caption;
  Svg svg;
};

struct Table {
  struct Cell {
    std::string text;
    std::string css_class;  // "", "good", "bad", "warn", "muted"; "wrap" and "tight": may take several lines
  };
  std::vector<std::string> head;
  std::vector<std::vector<Cell>> rows;  // a row of a single cell is a heading over those that follow
  std::size_t num_text_columns = 1;     // left-aligned; the others are numbers
};

class Page {
 public:
  Page(std::string title, std::string subtitle) : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

  void heading(const std::string& words);
  /// Plain text; escaped here.
  void paragraph(const std::string& words, const std::string& css_class = {});
  /// A box that stands out: a verdict and what it rests on. css_class: "good", "bad" or "open".
  void verdict(const std::string& word, const std::string& claim, const std::string& reason,
               const std::string& css_class);
  enum class Width { kWhole, kHalf, kThird };
  /// Side by side where there is room, on a wide screen so many in a row.
  void figures(std::vector<Figure> figures, Width width = Width::kHalf);
  void table(const Table& table);
  /// Folded away, open in print.
  void details(const std::string& summary, const std::string& text);

  /// The same for whatever `content` adds to this page.
  void fold(const std::string& summary, const std::function<void()>& content);

  /// The page, whole.
  [[nodiscard]] std::string html() const;
  /// Writes the page, and each figure into the folder FILE-figures beside it, in place of the SVG files that are there.
  /// Throws DataError.
  void write(const std::filesystem::path& file) const;

 private:
  std::string title_, subtitle_, body_;
  std::vector<Figure> figures_;
};

}  // namespace scrna::report
