// Which cells are trained on: labels, what is left out, splits.
#include "lib/finetune/labelled_cells.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::finetune {
namespace {

class ReadLabels : public testing::Test {
 protected:
  [[nodiscard]] std::string write(const std::string& name, const std::vector<std::string>& labels,
                                  const std::vector<std::string>& donors = {}) const {
    std::vector<std::string> cells;
    std::vector<int64_t> indptr{0};
    std::vector<double> scores;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      cells.push_back("cell" + std::to_string(i));
      indptr.push_back(0);
      scores.push_back(0.5);
    }
    const std::string path = (folder_ / name).string();
    test::H5Builder file(path);
    file.attribute("/", "encoding-type", std::string("anndata"));
    file.table("obs", cells, {"type", "donor", "score"});
    file.texts("obs/type", labels);
    file.texts("obs/donor", donors.empty() ? labels : donors);
    file.numbers("obs/score", scores);
    file.table("var", {"G0"});
    file.sparse("X", "csr_matrix", std::ssize(labels), 1, std::vector<float>{}, std::vector<int32_t>{}, indptr);
    return path;
  }
  test::TempDir folder_;
};

TEST_F(ReadLabels, ClassesAreSortedOverFilesAndWhatIsNoLabelIsCounted) {
  const FinetuneConfig config{.label = "type",
                              .files = {write("a.h5ad", {"T", "", "B", "unknown"}, {"d1", "d1", "", "d1"}),
                                        write("b.h5ad", {"A", "nan", "B", "T"}, {"d2", "d2", "d2", "d1"})},
                              .ignored_labels = {"unknown"},
                              .split_by = "donor"};
  const Labelling labelling = read_labels(config);
  EXPECT_EQ(labelling.classes, (std::vector<std::string>{"A", "B", "T"}));
  EXPECT_EQ(labelling.files[0].classes, (std::vector<int32_t>{2, -1, -1, -1}));
  EXPECT_EQ(labelling.files[1].classes, (std::vector<int32_t>{0, -1, 1, 2}));
  EXPECT_EQ(labelling.groups, (std::vector<std::string>{"d1", "d2"}));
  EXPECT_EQ(labelling.files[1].groups, (std::vector<int32_t>{1, -1, 1, 0}));
  EXPECT_EQ(labelling.file_cells, 8);
  EXPECT_EQ(labelling.unlabelled, 2);
  EXPECT_EQ(labelling.ignored, 1);
  EXPECT_EQ(labelling.without_group, 1);
}

TEST_F(ReadLabels, WhatCannotBeUsedIsNamed) {
  const std::string file = write("a.h5ad", {"T", "T", ""}), two = write("b.h5ad", {"T", "B", "B\n"});
  const auto message = [&](FinetuneConfig config) {
    return test::message_of<DataError>([&] { read_labels(config); });
  };
  EXPECT_CONTAINS(message({.label = "typ", .files = {file}}), "has no column 'typ'; did you mean 'type'? columns: type, donor, score");
  EXPECT_CONTAINS(message({.label = "score", .files = {file}}), "expected a column of categories");
  EXPECT_CONTAINS(message({.label = "type", .files = {file}}), "a single label, 'T'");
  EXPECT_CONTAINS(message({.label = "type", .files = {file}, .ignored_labels = {"T"}}), "no label");
  EXPECT_CONTAINS(message({.label = "type", .files = {two}}), "not one line of UTF-8 text");
  EXPECT_CONTAINS(message({.label = "type", .files = {file, two}, .ignored_labels = {"Tt"}}), "--ignore-label Tt");
  EXPECT_CONTAINS(message({.label = "type", .files = {two}, .split_by = "dono"}), "did you mean 'donor'?");
}

/// Cells of classes of these sizes, groups in turn.
LabelledCells cells_of(const std::vector<int64_t>& sizes, int32_t num_groups) {
  LabelledCells cells;
  for (std::size_t label = 0; label < sizes.size(); ++label) {
    cells.classes.push_back(std::string(1, static_cast<char>('a' + label)));
    for (int64_t i = 0; i < sizes[label]; ++i) {
      const auto row = std::ssize(cells.cells);
      cells.cells.push_back({.row = row,
                             .label = static_cast<int32_t>(label),
                             .group = num_groups > 0 ? static_cast<int32_t>(i % num_groups) : -1,
                             .id = mix64(static_cast<uint64_t>(row))});
    }
  }
  return cells;
}

std::vector<int64_t> sizes_of(const LabelledCells& cells, const std::vector<int64_t>& part) {
  std::vector<int64_t> sizes(cells.classes.size());
  for (const int64_t cell : part) ++sizes.at(static_cast<std::size_t>(cells.cells[static_cast<std::size_t>(cell)].label));
  return sizes;
}

TEST(SplitCells, EveryClassIsHeldOutInTheSamePartAndNoCellTwice) {
  LabelledCells cells = cells_of({100, 50, 4, 5}, 0);
  const FinetuneConfig config{.label = "type"};
  const Split split = split_cells(cells, {}, config);
  EXPECT_EQ(sizes_of(cells, split.heldout), (std::vector<int64_t>{20, 10, 2, 2}));
  EXPECT_EQ(sizes_of(cells, split.training), (std::vector<int64_t>{80, 40, 2, 3}));
  std::set<int64_t> all(split.training.begin(), split.training.end());
  all.insert(split.heldout.begin(), split.heldout.end());
  EXPECT_EQ(all.size(), 159);
}

TEST(SplitCells, DependsOnSeedAndCellsAndNotOnTheirOrder) {
  LabelledCells cells = cells_of({100, 50}, 0);
  FinetuneConfig config{.label = "type"};
  const auto held_ids = [](const LabelledCells& of, const Split& split) {
    std::set<uint64_t> ids;
    for (const int64_t cell : split.heldout) ids.insert(of.cells[static_cast<std::size_t>(cell)].id);
    return ids;
  };
  const auto ids = held_ids(cells, split_cells(cells, {}, config));
  LabelledCells reversed = cells;
  std::ranges::reverse(reversed.cells);
  EXPECT_EQ(held_ids(reversed, split_cells(reversed, {}, config)), ids);
  config.training.seed = 1;
  EXPECT_NE(held_ids(cells, split_cells(cells, {}, config)), ids);
}

TEST(SplitCells, CellsWithTheSameTokensStandTogetherOrAreCounted) {
  // Every cell twice, as of a file and its copy; and a class that is a single cell six times.
  LabelledCells cells = cells_of({60, 40}, 0);
  const std::vector<LabelledCell> once = cells.cells;
  cells.cells.insert(cells.cells.end(), once.begin(), once.end());
  const Split split = split_cells(cells, {}, {.label = "type"});
  EXPECT_EQ(split.heldout_twins, 0);
  EXPECT_EQ(sizes_of(cells, split.heldout), (std::vector<int64_t>{24, 16}));
  for (int copy = 0; copy < 6; ++copy) cells.cells.push_back({.label = 2, .id = 7});
  cells.classes.emplace_back("c");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { split_cells(cells, {}, {.label = "type"}); }), "'c' (6 to train on, 0 held out)");
  // Groups may part them.
  LabelledCells grouped = cells_of({60, 40}, 0);
  for (LabelledCell& cell : grouped.cells) cell.group = 0;
  grouped.cells.insert(grouped.cells.end(), once.begin(), once.end());
  for (std::size_t i = once.size(); i < grouped.cells.size(); ++i) grouped.cells[i].group = 1;
  const Split by_group = split_cells(grouped, {.groups = {"first", "copy"}}, {.label = "type", .split_by = "donor"});
  EXPECT_EQ(by_group.heldout_twins, 100);
}

TEST(SplitCells, RareClassesAreAnErrorOrLeftOutAndNamed) {
  LabelledCells cells = cells_of({100, 3, 50}, 0);
  FinetuneConfig config{.label = "type"};
  const std::string message = test::message_of<DataError>([&] { split_cells(cells, {}, config); });
  EXPECT_CONTAINS(message, "1 of 3 classes have fewer than 2 cells");
  EXPECT_CONTAINS(message, "'b' (2 to train on, 1 held out)");
  EXPECT_CONTAINS(message, "--drop-rare-classes");
  config.drop_rare_classes = true;
  const Split split = split_cells(cells, {}, config);
  EXPECT_EQ(cells.classes, (std::vector<std::string>{"a", "c"}));
  EXPECT_EQ(split.rare_cells, 3);
  EXPECT_EQ(split.rare_classes.size(), 1);
  EXPECT_EQ(sizes_of(cells, split.heldout), (std::vector<int64_t>{20, 10}));
  LabelledCells few = cells_of({100, 3}, 0);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { split_cells(few, {}, config); }), "fewer than two are left");
}

TEST(SplitCells, MessagesNameEightOfMany) {
  std::vector<std::string> names(8, "x");
  EXPECT_EQ(first_of(names), "x, x, x, x, x, x, x, x");
  names.insert(names.end(), 12, "y");
  EXPECT_EQ(first_of(names), "x, x, x, x, x, x, x, x and 12 more");
}

TEST(SplitCells, GroupsAreHeldOutWhole) {
  LabelledCells cells = cells_of({100, 50}, 5);
  const Labelling labelling{.groups = {"d0", "d1", "d2", "d3", "d4"}};
  FinetuneConfig config{.label = "type", .split_by = "donor"};
  const Split split = split_cells(cells, labelling, config);
  ASSERT_EQ(split.held_groups.size(), 1);  // a fifth of the cells
  for (const int64_t cell : split.heldout)
    EXPECT_EQ(labelling.groups[static_cast<std::size_t>(cells.cells[static_cast<std::size_t>(cell)].group)], split.held_groups[0]);
  EXPECT_EQ(split.heldout.size(), 30);
  EXPECT_EQ(split.training.size(), 120);
  // A class of one donor is in one part only.
  LabelledCells lonely = cells_of({100, 50}, 5);
  for (LabelledCell& cell : lonely.cells)
    if (cell.label == 1) cell.group = 0;
  EXPECT_CONTAINS(test::message_of<DataError>([&] { split_cells(lonely, labelling, config); }), "hold out other groups");
  LabelledCells one = cells_of({100, 50}, 1);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { split_cells(one, labelling, config); }), "--split-by donor");
}

}  // namespace
}  // namespace scrna::finetune
