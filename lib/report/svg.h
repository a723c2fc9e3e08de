// The elements that our figures are made of, as text. Colours are names ("s0" ... "s7" for series, "ink",
// "muted", "grid") that a style sheet turns into values for light, dark and print; a figure in a file of its
// own carries that sheet with it. Rejected: a plotting library, which would be larger than the figures, and
// scripts, which a printed page does not run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scrna::report {

/// & < > " made harmless.
std::string escape(std::string_view text);

/// One figure, width x height units (pixels at full size); text is 12 units high.
class Svg {
 public:
  enum class Anchor { kStart, kMiddle, kEnd };
  Svg(double width, double height) : width_(width), height_(height) {}

  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void rectangle(double x, double y, double width, double height, std::string_view css_class,
                 std::string_view fill = {}, std::string_view tooltip = {});
  void text(double x, double y, std::string_view words, std::string_view css_class,
            Anchor anchor = Anchor::kStart, double rotate_degrees = 0);
  /// Points as (x, y); those with a y that is no number break the line. css_class: "s0" or "s0 faint" ...
  void path(const std::vector<std::pair<double, double>>& points, std::string_view css_class,
            std::string_view tooltip = {});
  /// The area between two curves over the same x, where both are numbers: a band. css_class: "s0".
  void band(const std::vector<std::pair<double, double>>& low,
            const std::vector<std::pair<double, double>>& high, std::string_view css_class);
  /// A small cross: where a run diverged.
  void cross(double x, double y, std::string_view css_class, std::string_view tooltip = {});
  void dot(double x, double y, double radius, std::string_view css_class, std::string_view tooltip = {});

  [[nodiscard]] double width() const { return width_; }
  [[nodiscard]] double height() const { return height_; }
  /// For a page that has the style sheet. label: what it shows, for those who cannot see it.
  [[nodiscard]] std::string inline_text(std::string_view label) const;
  /// A file of its own, for slides and papers: in light colours, which programs that are no browsers show, too.
  [[nodiscard]] std::string file_text(std::string_view label) const;

 private:
  [[nodiscard]] std::string element(std::string_view label, std::string_view attributes,
                                    std::string_view inside) const;
  double width_, height_;
  std::string body_;
};

/// Number of series colours; a series of a higher index takes the colour of index mod this.
inline constexpr int kNumColours = 16;
/// Colours of an ordered quantity (learning rates), from cold to hot: indices from kRamp on.
inline constexpr int kRamp = 1000, kNumRampColours = 8;
/// Index of the colour of the `index`-th of `count` ordered values, spread over the whole ramp.
int ramp_colour(std::size_t index, std::size_t count);
/// The style sheet's name of a colour: "s3", or "r5" of the ramp.
std::string colour_class(int colour);
/// Rules for the classes above, in variables of `selector`; with dark and print.
std::string figure_style(std::string_view selector);

}  // namespace scrna::report
