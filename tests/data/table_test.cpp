// obs and var tables in the encodings of all AnnData versions, and what damaged ones end in.
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/anndata.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using test::write_small_file;
using Texts = std::vector<std::string>;

// The small file with obs columns added by `add`; "column-order" lists `columns`.
class ObsFile {
 public:
  template <class Add>
  ObsFile(const Texts& columns, const Add& add) {
    write_small_file(folder_ / "f.h5ad", [&](H5Builder& h5) {
      h5.attribute("obs", "column-order", columns);
      add(h5);
    });
    file_.emplace(folder_ / "f.h5ad");
  }
  const AnnDataFile* operator->() const { return &*file_; }

 private:
  test::TempDir folder_;
  std::optional<AnnDataFile> file_;
};

void add_categorical(H5Builder& h5, const std::string& path, const std::vector<int8_t>& codes,
                     const Texts& categories) {
  h5.group(path);
  h5.attribute(path, "encoding-type", std::string("categorical"));
  h5.numbers<int8_t>(path + "/codes", codes);
  h5.texts(path + "/categories", categories);
}

template <class Add>
std::string problem_with_column(const Add& add) {
  const ObsFile file({"c"}, add);
  return test::message_of<DataError>([&] { return file->obs_categories("c"); });
}

TEST(Table, CategoricalColumnsKeepCodesAndTheOrderOfCategories) {
  const ObsFile file({"c"}, [](H5Builder& h5) {
    add_categorical(h5, "obs/c", {1, -1, 0, 1}, {"z", "a", "unused"});
  });
  EXPECT_EQ(file->obs_kind("c"), ColumnKind::kCategorical);
  EXPECT_EQ(file->obs_categories("c").codes, (std::vector<int32_t>{1, -1, 0, 1}));
  EXPECT_EQ(file->obs_categories("c").categories, (Texts{"z", "a", "unused"}));
  EXPECT_THROW(static_cast<void>(file->obs_numbers("c")), DataError);
}

TEST(Table, CodesOutsideTheirCategoriesAreRefused) {
  const auto with_codes = [](const std::vector<int8_t>& codes) {
    return problem_with_column([&](H5Builder& h5) { add_categorical(h5, "obs/c", codes, {"a", "b"}); });
  };
  EXPECT_CONTAINS(with_codes({0, 1, 2, 0}), "obs/c/codes: code 2 is outside -1..1 (there are 2 categories)");
  EXPECT_CONTAINS(with_codes({0, 1, -2, 0}), "code -2 is outside -1..1");
  EXPECT_CONTAINS(with_codes({0, 1, 0}),
                  "obs/c/codes: expected one value for each of the table's 4 rows, got 3");
  EXPECT_CONTAINS(problem_with_column([](H5Builder& h5) {
                    add_categorical(h5, "obs/c", {0, 0, 0, 0}, {"a"});
                    h5.numbers<float>("obs/c/codes", {0, 0, std::nanf(""), 0});
                  }),
                  "obs/c/codes: expected the integer codes of categories, got float32");
  EXPECT_CONTAINS(problem_with_column([](H5Builder& h5) {
                    add_categorical(h5, "obs/c", {0, 0, 0, 0}, {"a"});
                    h5.numbers<uint64_t>("obs/c/codes", {0, 0, std::numeric_limits<uint64_t>::max(), 0});
                  }),
                  "is outside -1..0");
  EXPECT_CONTAINS(problem_with_column([](H5Builder& h5) {
                    add_categorical(h5, "obs/c", {0, 0, 0, 0}, {"a"});
                    h5.remove("obs/c/categories");
                  }),
                  "obs/c/categories: expected a data set, found nothing");
}

TEST(Table, CategoriesMayBeNumbersOrTruthValues) {
  const ObsFile file({"whole", "fraction"}, [](H5Builder& h5) {
    add_categorical(h5, "obs/whole", {0, 1, 1, 0}, {});
    h5.numbers<int64_t>("obs/whole/categories", {10, -3});
    add_categorical(h5, "obs/fraction", {0, 1, 2, 0}, {});
    h5.numbers<double>("obs/fraction/categories", {0.5, 2, std::nan("")});
  });
  EXPECT_EQ(file->obs_categories("whole").categories, (Texts{"10", "-3"}));
  EXPECT_EQ(file->obs_categories("fraction").categories, (Texts{"0.5", "2.0", ""}));
}

TEST(Table, PlainColumnsBecomeCategoriesInOrderOfAppearance) {
  const ObsFile file({"text", "number"}, [](H5Builder& h5) {
    h5.texts("obs/text", {"b", "a", "b", "ü"});
    h5.numbers<int16_t>("obs/number", {7, -7, 7, 7});
  });
  EXPECT_EQ(file->obs_kind("text"), ColumnKind::kText);
  EXPECT_EQ(file->obs_categories("text").categories, (Texts{"b", "a", "ü"}));
  EXPECT_EQ(file->obs_categories("text").codes, (std::vector<int32_t>{0, 1, 0, 2}));
  EXPECT_EQ(file->obs_categories("number").categories, (Texts{"7", "-7"}));
  EXPECT_EQ(file->obs_numbers("number"), (std::vector<double>{7, -7, 7, 7}));
}

TEST(Table, NullableColumnsKnowWhatIsMissing) {
  const ObsFile file({"n"}, [](H5Builder& h5) {
    h5.group("obs/n");
    h5.attribute("obs/n", "encoding-type", std::string("nullable-integer"));
    h5.numbers<int64_t>("obs/n/values", {1, 2, 3, 1});
    h5.numbers<uint8_t>("obs/n/mask", {0, 1, 0, 0});
  });
  EXPECT_EQ(file->obs_kind("n"), ColumnKind::kInteger);
  EXPECT_TRUE(std::isnan(file->obs_numbers("n")[1]));
  EXPECT_EQ(file->obs_categories("n").codes, (std::vector<int32_t>{0, -1, 1, 0}));
}

TEST(Table, AMaskOfAnotherLengthIsRefused) {
  EXPECT_CONTAINS(problem_with_column([](H5Builder& h5) {
                    h5.group("obs/c");
                    h5.numbers<int64_t>("obs/c/values", {1, 2, 3, 1});
                    h5.numbers<uint8_t>("obs/c/mask", {0, 1});
                  }),
                  "obs/c/mask: expected one value for each of the 4 values it masks, got 2");
}

TEST(Table, CategoriesOfAnnData07LieInAGroupOfTheirOwn) {
  const ObsFile file({"c"}, [](H5Builder& h5) {
    h5.numbers<int8_t>("obs/c", {0, 1, 0, -1});
    h5.texts("obs/__categories/c", {"x", "y"});
  });
  EXPECT_EQ(file->obs_kind("c"), ColumnKind::kCategorical);
  EXPECT_EQ(file->obs_categories("c").categories, (Texts{"x", "y"}));
  EXPECT_EQ(file->obs_columns(), Texts{"c"});
}

TEST(Table, RecordsOfAnnDataBefore07AreRead) {
  struct Record {
    char name[8];
    float score;
    int8_t cluster;
  };
  const std::vector<Record> records = {{"a", 0.5F, 0}, {"b", 1.5F, 1}, {"c", 2, 1}, {"d", 3, 0}};
  const ObsFile file({}, [&](H5Builder& h5) {
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 8);
    const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(Record));
    H5Tinsert(type, "index", offsetof(Record, name), text);
    H5Tinsert(type, "score", offsetof(Record, score), H5T_NATIVE_FLOAT);
    H5Tinsert(type, "cluster", offsetof(Record, cluster), H5T_NATIVE_INT8);
    h5.remove("obs");
    const hid_t dataset = h5.declare("obs", type, {4});
    test::must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, records.data()));
    H5Dclose(dataset);
    H5Tclose(type);
    H5Tclose(text);
    h5.texts("uns/cluster_categories", {"big", "small"});
  });
  EXPECT_EQ(file->obs_index(), (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(file->obs_columns(), (Texts{"score", "cluster"}));
  EXPECT_EQ(file->obs_numbers("score"), (std::vector<double>{0.5, 1.5, 2, 3}));
  EXPECT_EQ(file->obs_categories("cluster").categories, (Texts{"big", "small"}));
  EXPECT_EQ(file->obs_kind("cluster"), ColumnKind::kCategorical);
}

TEST(Table, AColumnOfAnUnknownEncodingIsKnownButNotRead) {
  const ObsFile file({"c"}, [](H5Builder& h5) {
    h5.group("obs/c");
    h5.attribute("obs/c", "encoding-type", std::string("awkward-array"));
  });
  EXPECT_EQ(file->obs_kind("c"), ColumnKind::kOther);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file->obs_categories("c"); }),
                  "obs/c: the encoding 'awkward-array' is not supported");
}

TEST(Table, AnUnknownColumnIsNamedWithTheNearestOne) {
  const ObsFile file({"donor"}, [](H5Builder& h5) { add_categorical(h5, "obs/donor", {0, 0, 0, 0}, {"a"}); });
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file->obs_categories("doner"); }),
                  "has no column 'doner'; did you mean 'donor'?");
}

TEST(Table, AColumnOfFractionsIsNoCategory) {
  const ObsFile file({"f"}, [](H5Builder& h5) { h5.numbers<float>("obs/f", {1, 2, 3, 4}); });
  EXPECT_EQ(file->obs_kind("f"), ColumnKind::kFloat);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file->obs_categories("f"); }),
                  "obs/f: is float32; expected a column of categories");
}

TEST(Table, ATableWithoutIndexOrNoTableAtAllIsNamed) {
  const auto problem = [](auto damage) {
    const test::TempDir folder;
    write_small_file(folder / "f.h5ad", damage);
    return test::message_of<DataError>([&] { return AnnDataFile(folder / "f.h5ad"); });
  };
  EXPECT_CONTAINS(problem([](H5Builder& h5) { h5.remove("obs"); }), "it lacks the table 'obs'");
  EXPECT_CONTAINS(problem([](H5Builder& h5) { h5.remove("var"); }), "it lacks the table 'var'");
  EXPECT_CONTAINS(problem([](H5Builder& h5) { h5.remove("obs/_index"); }), "obs: has no index column");
  EXPECT_CONTAINS(problem([](H5Builder& h5) {
                    h5.numbers<float>("obs", {1, 2, 3, 4});
                  }),
                  "obs: expected a table");
  EXPECT_CONTAINS(problem([](H5Builder& h5) {
                    h5.remove("obs/_index");
                    h5.numbers<int64_t>("obs/_index", {1, 2, 3, 4}, {2, 2});
                  }),
                  "obs/_index: expected a list");
}

TEST(Table, AnIndexUnderAnotherNameIsFound) {
  const ObsFile file({}, [](H5Builder& h5) {
    h5.remove("obs/_index");
    h5.attribute("obs", "_index", std::string("barcode"));
    h5.texts("obs/barcode", {"w", "x", "y", "z"});
  });
  EXPECT_EQ(file->obs_index(), (Texts{"w", "x", "y", "z"}));
}

TEST(Table, WithoutAColumnOrderAllMembersAreColumns) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) { h5.texts("obs/b", {"1", "2", "3", "4"}); });
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").obs_columns(), Texts{"b"});
}

TEST(Table, NullableColumnsWithoutAMaskMissNothing) {
  const ObsFile file({"n"}, [](H5Builder& h5) {
    h5.group("obs/n");
    h5.attribute("obs/n", "encoding-type", std::string("nullable-integer"));
    h5.numbers<int64_t>("obs/n/values", {1, 2, 3, 1});
  });
  EXPECT_EQ(file->obs_kind("n"), ColumnKind::kInteger);
  EXPECT_EQ(file->obs_numbers("n"), (std::vector<double>{1, 2, 3, 1}));
  EXPECT_EQ(file->obs_categories("n").codes, (std::vector<int32_t>{0, 1, 2, 0}));
}

TEST(Table, CategoriesMayBeNullableTexts) {
  const ObsFile file({"c"}, [](H5Builder& h5) {
    add_categorical(h5, "obs/c", {1, -1, 0, 1}, {});
    h5.remove("obs/c/categories");
    h5.group("obs/c/categories");
    h5.attribute("obs/c/categories", "encoding-type", std::string("nullable-string-array"));
    h5.texts("obs/c/categories/values", {"a", "b"});
    h5.numbers<uint8_t>("obs/c/categories/mask", {0, 0});
  });
  EXPECT_EQ(file->obs_kind("c"), ColumnKind::kCategorical);
  EXPECT_EQ(file->obs_categories("c").categories, (Texts{"a", "b"}));
  EXPECT_EQ(file->obs_categories("c").codes, (std::vector<int32_t>{1, -1, 0, 1}));
}

TEST(Table, TheIndexMayBeNullableTexts) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.remove("obs/_index");
    h5.group("obs/_index");
    h5.texts("obs/_index/values", {"p", "q", "r", "s"});
    h5.numbers<uint8_t>("obs/_index/mask", {0, 0, 0, 0});
  });
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").obs_index(), (Texts{"p", "q", "r", "s"}));
}

TEST(Table, EnumerationsOfMoreThanTwoNamesAreTheirNumbers) {
  const ObsFile file({"e"}, [](H5Builder& h5) {
    const hid_t type = test::must(H5Tenum_create(H5T_NATIVE_INT16));
    int16_t value = 0;
    for (const char* name : {"FALSE", "TRUE", "NA"}) {
      test::must(H5Tenum_insert(type, name, &value));
      value = static_cast<int16_t>(value + 1);
    }
    const std::vector<int16_t> values{0, 2, 1, 1};
    const hid_t dataset = h5.declare("obs/e", type, {4});
    test::must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
    H5Dclose(dataset);
    H5Tclose(type);
  });
  EXPECT_EQ(file->obs_kind("e"), ColumnKind::kInteger);
  EXPECT_EQ(file->obs_numbers("e"), (std::vector<double>{0, 2, 1, 1}));
  EXPECT_EQ(file->obs_categories("e").categories, (Texts{"0", "2", "1"}));
}

TEST(Table, ASingleCategoryOfRecordsMayBeAScalar) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.remove("obs");
    struct Record {
      char index[2];
      int8_t code;
    };
    const hid_t text = test::must(H5Tcopy(H5T_C_S1));
    H5Tset_size(text, 2);
    const hid_t type = test::must(H5Tcreate(H5T_COMPOUND, sizeof(Record)));
    H5Tinsert(type, "index", offsetof(Record, index), text);
    H5Tinsert(type, "sex", offsetof(Record, code), H5T_NATIVE_INT8);
    const std::vector<Record> records{{"a", 0}, {"b", -1}, {"c", 0}, {"d", 0}};
    const hid_t dataset = h5.declare("obs", type, {4});
    test::must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, records.data()));
    const hid_t scalar = test::must(H5Screate(H5S_SCALAR));
    H5Tset_size(text, 6);
    h5.group("uns");
    const hid_t category = test::must(
        H5Dcreate2(h5.file(), "uns/sex_categories", text, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    test::must(H5Dwrite(category, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, "female"));
    for (const hid_t each : {dataset, category}) H5Dclose(each);
    for (const hid_t each : {type, text}) H5Tclose(each);
    H5Sclose(scalar);
  });
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_EQ(file.obs_kind("sex"), ColumnKind::kCategorical);
  EXPECT_EQ(file.obs_categories("sex").codes, (std::vector<int32_t>{0, -1, 0, 0}));
  EXPECT_EQ(file.obs_categories("sex").categories, Texts{"female"});
}

}  // namespace
}  // namespace scrna::data
