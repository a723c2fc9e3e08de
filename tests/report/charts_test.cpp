// Scales, thinning, and that figures and pages are well-formed and stand alone. How they look is for eyes.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/files.h"
#include "lib/report/bars.h"
#include "lib/report/heat_map.h"
#include "lib/report/line_chart.h"
#include "lib/report/page.h"
#include "lib/report/scale.h"
#include "lib/report/square_matrix.h"
#include "tests/support/temp_dir.h"

namespace scrna::report {
namespace {

const double kNaN = std::nan("");

// Elements are closed in the order in which they were opened; `void_tags` need no closing.
void expect_balanced(const std::string& text, const std::vector<std::string>& void_tags) {
  std::vector<std::string> open;
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const std::size_t end = text.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string inside = text.substr(at + 1, end - at - 1);
    if (inside[0] == '!' || inside.back() == '/') continue;
    const bool closes = inside[0] == '/';
    const std::string name =
        inside.substr(closes ? 1 : 0, inside.find_first_of(" \n", closes ? 1 : 0) - (closes ? 1 : 0));
    if (std::ranges::find(void_tags, name) != void_tags.end()) continue;
    if (!closes) {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << name;
    EXPECT_EQ(open.back(), name);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
}

TEST(Scale, PutsValuesInPlaceAndRefusesWhatAnAxisCannotShow) {
  const Scale linear(ScaleKind::kLinear, 0, 10, 100, 200), log(ScaleKind::kLog, 1, 100, 0, 1);
  EXPECT_EQ(linear(5), 150);
  EXPECT_EQ(linear(20), 300);
  EXPECT_EQ(linear.clamped(20), 200);
  EXPECT_NEAR(log(10), 0.5, 1e-12);
  EXPECT_TRUE(std::isnan(log(0)));
  EXPECT_TRUE(std::isnan(linear(kNaN)));
}

TEST(Scale, TicksAreRoundAndWithinTheRange) {
  EXPECT_EQ(Scale(ScaleKind::kLinear, 0, 10, 0, 1).ticks(5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(Scale(ScaleKind::kLog, 0.5, 2e4, 0, 1).ticks(6), (std::vector<double>{1, 10, 100, 1000, 10000}));
  EXPECT_EQ(Scale(ScaleKind::kLog, 9, 45, 0, 1).ticks(5), (std::vector<double>{10, 20}));
  for (const auto& [low, high] :
       {std::pair{1.0, 1.0}, std::pair{0.0, 0.0}, std::pair{1e-30, 1e30}, std::pair{3.3, 3.4}}) {
    for (const ScaleKind kind : {ScaleKind::kLinear, ScaleKind::kLog}) {
      const Scale scale(kind, low, high, 0, 1);
      const std::vector<double> ticks = scale.ticks(5);
      EXPECT_GE(ticks.size(), 2U) << low << " " << high;
      EXPECT_LE(ticks.size(), 14U);
      for (const double tick : ticks) EXPECT_TRUE(scale(tick) >= -1e-6 && scale(tick) <= 1 + 1e-6) << tick;
    }
  }
}

TEST(Scale, NumbersAreShort) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(1200), "1,200");
  EXPECT_EQ(short_number(55600), "55,600");
  EXPECT_EQ(short_number(1e-4), "10⁻⁴");
  EXPECT_EQ(short_number(3e-5), "3×10⁻⁵");
  EXPECT_EQ(short_number(2.3e8), "2.3×10⁸");
  EXPECT_EQ(short_number(999999999), "10⁹");
  EXPECT_EQ(short_number(-0.5), "−0.5");
  EXPECT_EQ(short_number(kNaN), "nan");
}

TEST(LineChart, ThinningKeepsTheHighestAndTheLowestAndGaps) {
  Series series{.label = {}, .x = {}, .y = {}, .style = {}, .tooltip = {}};
  for (int i = 0; i < 100000; ++i) series.x.push_back(i), series.y.push_back(std::sin(i * 0.01));
  series.y[54321] = 1e6;
  series.y[54322] = -1e6;
  series.y[77777] = kNaN;
  const Series thin = thinned(series, 300);
  EXPECT_LE(thin.x.size(), 4 * 300U + 1);
  EXPECT_EQ(std::ranges::count(thin.y, 1e6), 1);
  EXPECT_EQ(std::ranges::count(thin.y, -1e6), 1);
  EXPECT_EQ(std::ranges::count_if(thin.y, [](double y) { return std::isnan(y); }), 1);
  EXPECT_TRUE(std::ranges::is_sorted(thin.x));
}

TEST(LineChart, BinsAreMeans) {
  Series series{.label = {}, .x = {0, 1, 2, 3}, .y = {1, 3, 5, kNaN}, .style = {}, .tooltip = {}};
  const Series two = binned(series, 2);
  EXPECT_EQ(two.x, (std::vector<double>{0.5, 2.5}));
  EXPECT_EQ(two.y[0], 2);
  EXPECT_TRUE(std::isnan(two.y[1]));
}

TEST(LineChart, DrawsGapsCrossesAndLabelsApart) {
  LineChart chart{.title = "a < b & c",
                  .y_kind = ScaleKind::kLog,
                  .y_low = {},
                  .y_high = {},
                  .series = {},
                  .references = {{5, "limit"}}};
  for (int i = 0; i < 6; ++i) {
    chart.series.push_back({.label = "run " + std::to_string(i),
                            .colour = i,
                            .x = {1, 2, 3, 4},
                            .y = {1, kNaN, 0, 10},
                            .style = {},
                            .ends_in_cross = i == 0,
                            .tooltip = {}});
  }
  const Svg svg = draw(chart);
  const std::string text = svg.file_text("a label");
  expect_balanced(text, {});
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_NE(text.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_NE(text.find("diverged"), std::string::npos);
  EXPECT_EQ(text.find("var("), std::string::npos) << "programs that are no browsers draw such a colour black";
  EXPECT_NE(text.find(".figure .curve.s0{stroke:#1f6fd6}"), std::string::npos);
  // All six labels end at one place; none covers another.
  std::vector<double> heights;
  for (std::size_t at = text.find(">run "); at != std::string::npos; at = text.find(">run ", at + 1)) {
    const std::size_t tag = text.rfind('<', at);
    if (text.compare(tag, 5, "<text") != 0) continue;
    const std::size_t y = text.find(" y=\"", tag) + 4;
    heights.push_back(std::stod(text.substr(y)));
  }
  ASSERT_EQ(heights.size(), 6U);
  std::ranges::sort(heights);
  for (std::size_t i = 1; i < heights.size(); ++i) EXPECT_GE(heights[i] - heights[i - 1], 12);
}

TEST(SquareMatrix, NamesRowsAndLeavesOutWhatIsNotThere) {
  SquareMatrix matrix{.title = "t", .note = {}, .names = {"B", "T & NK"}, .cells = {}};
  matrix.cells = {{std::nullopt, MatrixCell{.part = 0.9, .text = "0.90", .tooltip = "far"}},
                  {MatrixCell{.part = 0.1, .text = "0.10", .tooltip = "near"}, std::nullopt}};
  const std::string text = draw(matrix).file_text("m");
  expect_balanced(text, {});
  EXPECT_NE(text.find(">T &amp; NK 2</text>"), std::string::npos);
  EXPECT_NE(text.find("class=\"inside bright small\""), std::string::npos) << "dark text on the bright cell";
  EXPECT_NE(text.find("class=\"inside small\""), std::string::npos);
  const auto count = [&](const std::string& words) {
    int times = 0;
    for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++times;
    return times;
  };
  EXPECT_EQ(count("class=\"cell\""), 2);

  const std::size_t many = 40;  // too small for numbers
  matrix.names.assign(many, "x");
  matrix.cells.assign(many, std::vector<std::optional<MatrixCell>>(many, MatrixCell{.part = 0, .text = "0.00", .tooltip = {}}));
  EXPECT_EQ(draw(matrix).file_text("m").find("0.00"), std::string::npos);
}

TEST(LineChart, DrawsABandWhereBothItsEdgesAreNumbers) {
  Series series{
      .label = "a", .colour = ramp_colour(1, 2), .x = {1, 2, 3}, .y = {2, 2, 2}, .style = {}, .tooltip = {}};
  series.low = {1, kNaN, 1}, series.high = {3, 3, 4};
  const std::string text =
      draw(LineChart{.title = "t", .y_low = {}, .y_high = {}, .series = {series}, .references = {}})
          .file_text("l");
  expect_balanced(text, {});
  const std::size_t band = text.find("class=\"band r7\" d=\"");
  ASSERT_NE(band, std::string::npos) << text;
  const std::string d = text.substr(band, text.find("/>", band) - band);
  EXPECT_EQ(std::ranges::count(d, 'L'), 3) << d << ": two corners above and two below";
  EXPECT_NE(text.find(".figure .band.r7,"), std::string::npos) << "a colour without a rule";
  series.low.clear();
  EXPECT_EQ(draw(LineChart{.title = "t", .y_low = {}, .y_high = {}, .series = {series}, .references = {}})
                .inline_text("l")
                .find("band"),
            std::string::npos);
}

TEST(Colours, OfARampGoFromItsFirstToItsLast) {
  EXPECT_EQ(colour_class(ramp_colour(0, 6)), "r0");
  EXPECT_EQ(colour_class(ramp_colour(5, 6)), "r7");
  EXPECT_EQ(colour_class(ramp_colour(0, 1)), "r4");
  EXPECT_EQ(colour_class(kNumColours + 1), "s1");
}

TEST(HeatMap, MarksWhatIsNotFiniteAndSurvivesNothing) {
  const HeatMap map{.title = "norms",
                    .rows = {"layer_00", "layer_01"},
                    .x = {1, 2, 3},
                    .values = {{1, 10, 100}, {1, kNaN, 0}}};
  const std::string text = draw(map).file_text("map");
  expect_balanced(text, {});
  EXPECT_NE(text.find("not finite"), std::string::npos);
  EXPECT_NE(text.find(heat_colour(1)), std::string::npos);
  expect_balanced(draw(HeatMap{.title = "empty", .rows = {}, .x = {}, .values = {}}).file_text("none"), {});
  EXPECT_EQ(heat_colour(-1), heat_colour(0));
}

TEST(Bars, SharesAddUpAndEmptyRowsDrawNothing) {
  const std::string text =
      draw(StackedBars{
               .title = "t", .parts = {"forward", "backward"}, .rows = {{"run", {1, 3}}, {"none", {0, 0}}}})
          .file_text("bars");
  expect_balanced(text, {});
  EXPECT_NE(text.find("run: forward 25.0 %"), std::string::npos);
  EXPECT_NE(text.find("run: backward 75.0 %"), std::string::npos);
  EXPECT_EQ(text.find("none: "), std::string::npos);
}

TEST(Page, StandsAloneAndWritesEachFigureBesideIt) {
  const test::TempDir folder;
  Page page("A <title>", "of & about");
  page.heading("Figures");
  std::vector<Figure> figures;
  figures.push_back(
      {"loss", "The \"loss\"",
       draw(LineChart{.title = "loss",
                      .y_low = {},
                      .y_high = {},
                      .series = {{.label = "a", .x = {1, 2}, .y = {3, 2}, .style = {}, .tooltip = {}}},
                      .references = {}})});
  page.figures(std::move(figures));
  page.table({.head = {"run", "loss"}, .rows = {{{"<a>", ""}, {"1.5", "bad"}}}});
  page.verdict("Mixed", "claim", "reason", "open");
  page.table({.head = {"run", "loss"}, .rows = {{{"a < heading", ""}}, {{"a", ""}, {"2.5", "warn"}}}});
  page.fold("folded", [&] { page.table({.head = {"inside"}, .rows = {}}); });
  page.details("more", "x < y");
  std::filesystem::create_directories(folder / "sub/report-figures");
  std::ofstream(folder / "sub/report-figures/earlier.svg") << "<svg/>";
  std::ofstream(folder / "sub/report-figures/notes.txt") << "a reader's";
  page.write(folder / "sub/report.html");
  EXPECT_FALSE(std::filesystem::exists(folder / "sub/report-figures/earlier.svg"));
  EXPECT_TRUE(std::filesystem::exists(folder / "sub/report-figures/notes.txt"));
  const std::string html = read_file(folder / "sub/report.html");
  expect_balanced(html, {"meta"});
  // Nothing is fetched: no address but the name space of SVG, no scripts.
  std::string rest = html;
  for (std::size_t at; (at = rest.find("http://www.w3.org/2000/svg")) != std::string::npos;)
    rest.erase(at, 26);
  for (const char* outside : {"http", "//", "<script", "@import", "url(", "src="})
    EXPECT_EQ(rest.find(outside), std::string::npos) << outside;
  EXPECT_EQ(html.find("<a>"), std::string::npos);
  const std::size_t folded = html.find("<summary>folded</summary>"), inside = html.find(">inside<");
  EXPECT_LT(folded, inside);
  EXPECT_LT(inside, html.find("</details>"));
  for (const char* part : {"prefers-color-scheme:dark", "@media print", "width=device-width",
                           "<tr><th class=\"text section\" colspan=\"2\">a &lt; heading</th></tr>"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  expect_balanced(read_file(folder / "sub/report-figures/loss.svg"), {});
}

}  // namespace
}  // namespace scrna::report
