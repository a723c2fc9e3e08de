#include "lib/report/scale.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace scrna::report {
namespace {

std::string superscript(int exponent) {
  static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = exponent < 0 ? "⁻" : "";
  for (const char digit : std::to_string(std::abs(exponent))) text += kDigits[digit - '0'];
  return text;
}

std::string with_thousands(int64_t value) {
  std::string digits = std::to_string(std::abs(value)), text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return value < 0 ? "−" + text : text;
}

}  // namespace

Scale::Scale(ScaleKind kind, double low, double high, double from, double to)
    : kind_(kind), low_(low), high_(high), from_(from), to_(to) {
  if (kind_ == ScaleKind::kLog) {
    low_ = std::max(low_, 1e-300);
    if (!(high_ > low_)) low_ /= 2, high_ = low_ * 4;
  } else if (!(high_ > low_)) {
    const double half = low_ == 0 ? 1 : std::abs(low_) / 10;
    low_ -= half, high_ = low_ + 2 * half;
  }
}

double Scale::operator()(double value) const {
  if (!std::isfinite(value) || (kind_ == ScaleKind::kLog && value <= 0)) return std::numeric_limits<double>::quiet_NaN();
  const double part = kind_ == ScaleKind::kLog ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  return from_ + part * (to_ - from_);
}

double Scale::clamped(double value) const {
  const double at = (*this)(value);
  return std::isnan(at) ? at : std::clamp(at, std::min(from_, to_), std::max(from_, to_));
}

std::vector<double> Scale::ticks(int count) const {
  std::vector<double> result;
  const double slack = 1e-9;
  if (kind_ == ScaleKind::kLog) {
    const double decades = std::log10(high_ / low_);
    if (decades >= 1.5) {
      const int step = std::max(1, static_cast<int>(std::ceil(decades / count)));
      for (int power = static_cast<int>(std::ceil(std::log10(low_) - slack)); power <= std::log10(high_) + slack; ++power) {
        if (power % step == 0) result.push_back(std::pow(10.0, power));
      }
      if (result.size() >= 2) return result;
      result.clear();
    }
    for (int power = static_cast<int>(std::floor(std::log10(low_))) - 1; power <= std::log10(high_) + 1; ++power) {
      for (const int factor : {1, 2, 5}) {
        const double value = factor * std::pow(10.0, power);
        if (value >= low_ * (1 - slack) && value <= high_ * (1 + slack)) result.push_back(value);
      }
    }
    if (result.size() >= 2) return result;
    result.clear();
  }
  const double raw = (high_ - low_) / std::max(1, count);
  const double magnitude = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = magnitude * (raw / magnitude <= 1 ? 1 : raw / magnitude <= 2 ? 2 : raw / magnitude <= 5 ? 5 : 10);
  for (double index = std::ceil(low_ / step - slack); index * step <= high_ + slack * step; ++index) {
    result.push_back(index * step == 0 ? 0 : index * step);
  }
  return result;
}

std::pair<double, double> range_of(std::span<const std::vector<double>> values, ScaleKind kind) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const std::vector<double>& series : values) {
    for (const double value : series) {
      if (!std::isfinite(value) || (kind == ScaleKind::kLog && value <= 0)) continue;
      low = std::min(low, value), high = std::max(high, value);
    }
  }
  if (low <= high) return {low, high};
  return kind == ScaleKind::kLog ? std::pair{1.0, 10.0} : std::pair{0.0, 1.0};
}

std::string short_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "∞" : "−∞";
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size >= 1e5 || size < 1e-3) {
    int exponent = static_cast<int>(std::floor(std::log10(size) + 1e-12));
    std::string factor = fmt::format("{:.3g}", value / std::pow(10.0, exponent));
    if (factor == "10") factor = "1", ++exponent;
    if (size >= 1e5 && size < 1e6 && std::fmod(value, 1000.0) == 0) return with_thousands(static_cast<int64_t>(value));
    const std::string power = "10" + superscript(exponent);
    return factor == "1" ? power : factor + "×" + power;
  }
  if (size >= 1000) return with_thousands(std::llround(value));
  std::string text = fmt::format("{:.4g}", size);
  return value < 0 ? "−" + text : text;
}

}  // namespace scrna::report
