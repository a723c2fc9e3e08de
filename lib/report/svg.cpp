#include "lib/report/svg.h"

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
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += letter;
    }
  }
  return out;
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  body_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", css_class, number(x1), number(y1),
                       number(x2), number(y2));
}

void Svg::rectangle(double x, double y, double width, double height, std::string_view css_class, std::string_view fill,
                    std::string_view tooltip) {
  body_ += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}>{}</rect>\n", css_class, number(x),
                       number(y), number(width), number(height), fill.empty() ? "" : fmt::format(" fill=\"{}\"", fill),
                       titled(tooltip));
}

void Svg::text(double x, double y, std::string_view words, std::string_view css_class, Anchor anchor, double rotate_degrees) {
  const char* where = anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
  const std::string turn =
      rotate_degrees == 0 ? "" : fmt::format(" transform=\"rotate({} {} {})\"", rotate_degrees, number(x), number(y));
  body_ += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", css_class, number(x), number(y),
                       where, turn, escape(words));
}

void Svg::path(const std::vector<std::pair<double, double>>& points, std::string_view css_class, std::string_view tooltip) {
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

void Svg::cross(double x, double y, std::string_view css_class, std::string_view tooltip) {
  constexpr double kHalf = 4;
  body_ += fmt::format("<path class=\"curve {}\" d=\"M{} {}L{} {}M{} {}L{} {}\">{}</path>\n", css_class, number(x - kHalf),
                       number(y - kHalf), number(x + kHalf), number(y + kHalf), number(x - kHalf), number(y + kHalf),
                       number(x + kHalf), number(y - kHalf), titled(tooltip));
}

void Svg::dot(double x, double y, double radius, std::string_view css_class, std::string_view tooltip) {
  body_ += fmt::format("<circle class=\"dot {}\" cx=\"{}\" cy=\"{}\" r=\"{}\">{}</circle>\n", css_class, number(x), number(y),
                       number(radius), titled(tooltip));
}

std::string Svg::element(std::string_view label, std::string_view inside) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}{}</svg>\n",
      number(width_), number(height_), escape(label), inside, body_);
}

std::string Svg::inline_text(std::string_view label) const { return element(label, {}); }

std::string Svg::file_text(std::string_view label) const {
  return element(label, fmt::format("<style>{}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n", figure_style("svg")));
}

std::string figure_style(std::string_view selector) {
  constexpr std::string_view kLight =
      "--paper:#fff;--ink:#1b1f24;--muted:#5b6470;--grid:#e4e7eb;--axis:#9aa3ae;"
      "--s0:#1f6fd6;--s1:#c8500a;--s2:#0f8a5f;--s3:#8a3fb0;--s4:#a87800;--s5:#c2255c;--s6:#0b7f92;--s7:#6b5b4d;";
  constexpr std::string_view kDark =
      "--paper:#14171b;--ink:#e8eaed;--muted:#a0a8b3;--grid:#2a2f36;--axis:#6b7480;"
      "--s0:#6aa8ff;--s1:#ff9a57;--s2:#4cc79a;--s3:#c48ae6;--s4:#e0b341;--s5:#ff7aa5;--s6:#4cc3d6;--s7:#b9a692;";
  std::string style = fmt::format("{}{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{{}{{{}}}}}\n@media print{{{}{{{}}}}}\n",
                                  selector, kLight, selector, kDark, selector, kLight);
  style +=
      ".figure text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;fill:var(--ink);"
      "font-variant-numeric:tabular-nums}\n"
      ".figure text.title{font-weight:600;font-size:13px}.figure text.muted{fill:var(--muted)}.figure text.small{font-size:11px}\n"
      ".figure .paper{fill:var(--paper)}.figure .grid{stroke:var(--grid);stroke-width:1}.figure .axis{stroke:var(--axis);stroke-width:1}\n"
      ".figure .reference{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3}\n"
      ".figure .curve{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.figure .faint{opacity:.28;stroke-width:1}\n"
      ".figure .dashed{stroke-dasharray:5 3}.figure .thin{stroke-width:1.1;opacity:.8}\n";
  for (int i = 0; i < kNumColours; ++i) {
    style += fmt::format(".figure .curve.s{0}{{stroke:var(--s{0})}}.figure .fill.s{0},.figure .dot.s{0},.figure text.s{0}{{fill:var(--s{0})}}\n", i);
  }
  return style;
}

}  // namespace scrna::report
