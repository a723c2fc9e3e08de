#include "lib/report/svg.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace scrna::report {
namespace {

// Short coordinates: a tenth of a pixel is finer than any screen.
std::string number(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string titled(std::string_view tooltip) {
  return tooltip.empty() ? std::string() : fmt::format("<title>{}</title>", escape(tooltip));
}

struct Colour {
  std::string_view name, light, dark;
};
constexpr std::array<Colour, 29> kPalette = {{
    {"paper", "#fff", "#14171b"},
    {"ink", "#1b1f24", "#e8eaed"},
    {"muted", "#5b6470", "#a0a8b3"},
    {"grid", "#e4e7eb", "#2a2f36"},
    {"axis", "#9aa3ae", "#6b7480"},
    {"s0", "#1f6fd6", "#6aa8ff"},
    {"s1", "#c8500a", "#ff9a57"},
    {"s2", "#0f8a5f", "#4cc79a"},
    {"s3", "#8a3fb0", "#c48ae6"},
    {"s4", "#a87800", "#e0b341"},
    {"s5", "#c2255c", "#ff7aa5"},
    {"s6", "#0b7f92", "#4cc3d6"},
    {"s7", "#6b5b4d", "#b9a692"},
    {"s8", "#6fb1f2", "#2f7fd0"},
    {"s9", "#f2a36b", "#b8672c"},
    {"s10", "#6cc9a1", "#2c8f66"},
    {"s11", "#c9a2e0", "#8d5cb0"},
    {"s12", "#d9c24a", "#9c8420"},
    {"s13", "#f08cab", "#b84a6c"},
    {"s14", "#5a5f66", "#9aa0a8"},
    {"s15", "#3b3fa0", "#8c90ff"},
    {"r0", "#7aa7d8", "#56779b"},
    {"r1", "#3f83c9", "#4f93d6"},
    {"r2", "#2462b0", "#6fb0ff"},
    {"r3", "#4f4fb3", "#9c9cff"},
    {"r4", "#8a3fb0", "#c48ae6"},
    {"r5", "#c2307f", "#ff7ac0"},
    {"r6", "#d8442f", "#ff7d66"},
    {"r7", "#b05a00", "#ffc04d"}}};

/// The palette as variables of a style sheet.
std::string variables(std::string_view Colour::*shade) {
  std::string text;
  for (const Colour& colour : kPalette) text += fmt::format("--{}:{};", colour.name, colour.*shade);
  return text;
}

/// What the classes of figures look like, in those variables.
std::string rules() {
  std::string style =
      ".figure text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica "
      "Neue',Arial,sans-serif;fill:var(--ink);"
      "font-variant-numeric:tabular-nums}\n"
      ".figure text.title{font-weight:600;font-size:13px}.figure text.muted{fill:var(--muted)}.figure "
      "text.small{font-size:11px}.figure "
      "text.halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}\n"
      ".figure .paper{fill:var(--paper)}.figure .grid{stroke:var(--grid);stroke-width:1}.figure "
      ".axis{stroke:var(--axis);stroke-width:1}\n"
      ".figure .reference{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3}\n"
      ".figure .curve{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.figure "
      ".faint{opacity:.28;stroke-width:1}\n"
      ".figure .dashed{stroke-dasharray:5 3}.figure .dotted{stroke-dasharray:1.5 3}.figure "
      ".thin{stroke-width:1.1;opacity:.8}\n"
      ".figure .band{stroke:none;fill-opacity:.16}\n"
      ".figure text.inside{fill:#fff}.figure text.inside.bright{fill:#16181d}\n";
  const auto add_colour = [&](const std::string& name) {
    style += fmt::format(
        ".figure .curve.{0}{{stroke:var(--{0})}}.figure .fill.{0},.figure .dot.{0},.figure .band.{0},.figure "
        "text.{0}{{fill:var(--{0})}}\n",
        name);
  };
  for (int i = 0; i < kNumColours; ++i) add_colour(colour_class(i));
  for (int i = 0; i < kNumRampColours; ++i) add_colour(colour_class(kRamp + i));
  return style;
}

/// The same in the light colours themselves: librsvg, for one, knows no variables and draws black.
std::string plain_rules() {
  std::string style = rules();
  for (const Colour& colour : kPalette) {
    const std::string variable = fmt::format("var(--{})", colour.name);
    for (std::size_t at = style.find(variable); at != std::string::npos; at = style.find(variable, at))
      style.replace(at, variable.size(), colour.light);
  }
  return style;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += letter;
    }
  }
  return out;
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  body_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", css_class,
                       number(x1), number(y1), number(x2), number(y2));
}

void Svg::rectangle(double x, double y, double width, double height, std::string_view css_class,
                    std::string_view fill, std::string_view tooltip) {
  body_ += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}>{}</rect>\n",
                       css_class, number(x), number(y), number(width), number(height),
                       fill.empty() ? "" : fmt::format(" fill=\"{}\"", fill), titled(tooltip));
}

void Svg::text(double x, double y, std::string_view words, std::string_view css_class, Anchor anchor,
               double rotate_degrees) {
  const char* where = anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
  const std::string turn = rotate_degrees == 0 ? ""
                                               : fmt::format(" transform=\"rotate({} {} {})\"",
                                                             rotate_degrees, number(x), number(y));
  body_ += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", css_class,
                       number(x), number(y), where, turn, escape(words));
}

void Svg::path(const std::vector<std::pair<double, double>>& points, std::string_view css_class,
               std::string_view tooltip) {
  std::string d;
  bool is_down = false;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(x) || !std::isfinite(y)) {
      is_down = false;
      continue;
    }
    d += fmt::format("{}{} {}", is_down ? "L" : "M", number(x), number(y));
    is_down = true;
  }
  if (d.empty()) return;
  body_ += fmt::format("<path class=\"curve {}\" d=\"{}\">{}</path>\n", css_class, d, titled(tooltip));
}

void Svg::band(const std::vector<std::pair<double, double>>& low,
               const std::vector<std::pair<double, double>>& high, std::string_view css_class) {
  std::string there, back;
  for (std::size_t i = 0; i < std::min(low.size(), high.size()); ++i) {
    if (!std::isfinite(low[i].second) || !std::isfinite(high[i].second)) continue;
    there += fmt::format("{}{} {}", there.empty() ? "M" : "L", number(high[i].first), number(high[i].second));
    back.insert(0, fmt::format("L{} {}", number(low[i].first), number(low[i].second)));
  }
  if (!there.empty()) body_ += fmt::format("<path class=\"band {}\" d=\"{}{}Z\"/>\n", css_class, there, back);
}

void Svg::cross(double x, double y, std::string_view css_class, std::string_view tooltip) {
  constexpr double kHalf = 4;
  body_ += fmt::format("<path class=\"curve {}\" d=\"M{} {}L{} {}M{} {}L{} {}\">{}</path>\n", css_class,
                       number(x - kHalf), number(y - kHalf), number(x + kHalf), number(y + kHalf),
                       number(x - kHalf), number(y + kHalf), number(x + kHalf), number(y - kHalf),
                       titled(tooltip));
}

void Svg::dot(double x, double y, double radius, std::string_view css_class, std::string_view tooltip) {
  body_ += fmt::format("<circle class=\"dot {}\" cx=\"{}\" cy=\"{}\" r=\"{}\">{}</circle>\n", css_class,
                       number(x), number(y), number(radius), titled(tooltip));
}

std::string Svg::element(std::string_view label, std::string_view attributes, std::string_view inside) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" viewBox=\"0 0 {} {}\"{} role=\"img\" "
      "aria-label=\"{}\">\n{}{}</svg>\n",
      number(width_), number(height_), attributes, escape(label), inside, body_);
}

std::string Svg::inline_text(std::string_view label) const { return element(label, {}, {}); }

std::string Svg::file_text(std::string_view label) const {
  return element(label, fmt::format(" width=\"{}\" height=\"{}\"", number(width_), number(height_)),
                 fmt::format("<style>{}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
                             plain_rules()));
}

int ramp_colour(std::size_t index, std::size_t count) {
  if (count < 2) return kRamp + kNumRampColours / 2;
  const double place = static_cast<double>(index) / static_cast<double>(count - 1);
  return kRamp + static_cast<int>(std::lround(place * (kNumRampColours - 1)));
}

std::string colour_class(int colour) {
  return colour >= kRamp ? fmt::format("r{}", std::min(colour - kRamp, kNumRampColours - 1))
                         : fmt::format("s{}", colour % kNumColours);
}

std::string figure_style(std::string_view selector) {
  const std::string light = variables(&Colour::light);
  return fmt::format(
             "{0}{{color-scheme:light dark;{1}}}\n@media (prefers-color-scheme:dark){{{0}{{{2}}}}}\n@media "
             "print{{{0}{{{1}}}}}\n",
             selector, light, variables(&Colour::dark)) +
         rules();
}

}  // namespace scrna::report
