#include "lib/report/svg.h"

#include <algorithm>
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

std::string Svg::element(std::string_view label, std::string_view inside) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n{}{}</svg>\n",
      number(width_), number(height_), escape(label), inside, body_);
}

std::string Svg::inline_text(std::string_view label) const { return element(label, {}); }

std::string Svg::file_text(std::string_view label) const {
  return element(label,
                 fmt::format("<style>{}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
                             figure_style("svg")));
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
  constexpr std::string_view kLight =
      "--paper:#fff;--ink:#1b1f24;--muted:#5b6470;--grid:#e4e7eb;--axis:#9aa3ae;"
      "--s0:#1f6fd6;--s1:#c8500a;--s2:#0f8a5f;--s3:#8a3fb0;--s4:#a87800;--s5:#c2255c;--s6:#0b7f92;--s7:#"
      "6b5b4d;"
      "--r0:#7aa7d8;--r1:#3f83c9;--r2:#2462b0;--r3:#4f4fb3;--r4:#8a3fb0;--r5:#c2307f;--r6:#d8442f;--r7:#b05a00;";
  constexpr std::string_view kDark =
      "--paper:#14171b;--ink:#e8eaed;--muted:#a0a8b3;--grid:#2a2f36;--axis:#6b7480;"
      "--s0:#6aa8ff;--s1:#ff9a57;--s2:#4cc79a;--s3:#c48ae6;--s4:#e0b341;--s5:#ff7aa5;--s6:#4cc3d6;--s7:#"
      "b9a692;"
      "--r0:#56779b;--r1:#4f93d6;--r2:#6fb0ff;--r3:#9c9cff;--r4:#c48ae6;--r5:#ff7ac0;--r6:#ff7d66;--r7:#ffc04d;";
  std::string style = fmt::format(
      "{}{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{{}{{{}}}}}\n@media "
      "print{{{}{{{}}}}}\n",
      selector, kLight, selector, kDark, selector, kLight);
  style +=
      ".figure text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica "
      "Neue',Arial,sans-serif;fill:var(--ink);"
      "font-variant-numeric:tabular-nums}\n"
      ".figure text.title{font-weight:600;font-size:13px}.figure text.muted{fill:var(--muted)}.figure "
      "text.small{font-size:11px}\n"
      ".figure .paper{fill:var(--paper)}.figure .grid{stroke:var(--grid);stroke-width:1}.figure "
      ".axis{stroke:var(--axis);stroke-width:1}\n"
      ".figure .reference{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3}\n"
      ".figure .curve{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.figure "
      ".faint{opacity:.28;stroke-width:1}\n"
      ".figure .dashed{stroke-dasharray:5 3}.figure .dotted{stroke-dasharray:1.5 3}.figure "
      ".thin{stroke-width:1.1;opacity:.8}\n"
      ".figure .band{stroke:none;fill-opacity:.16}\n";
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

}  // namespace scrna::report
