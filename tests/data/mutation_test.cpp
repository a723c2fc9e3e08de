// Thousands of damaged inputs, the same in every run: whatever they hold, reading ends in data or in one of
// the errors that are the user's, never in a crash, another exception, or an InternalError (which says that
// it is our mistake). The damage is done to what our own layer interprets: contents of data sets, shapes,
// attributes, texts. Damage to HDF5's own structures is another matter: libhdf5 itself may crash on it
// (tests/fuzz/README.md).
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/loader.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using Texts = std::vector<std::string>;
using Random = std::mt19937_64;

constexpr int64_t kCells = 40, kGenes = 12;

struct Quiet {  // warnings about damage are what this test is made of
  Quiet() { log::set_console_level(log::Level::kError); }
  ~Quiet() { log::set_console_level(log::Level::kInfo); }
};

void write_valid(const std::filesystem::path& path, Random& random) {
  H5Builder h5(path);
  Texts cells, genes;
  for (int64_t i = 0; i < kCells; ++i) cells.push_back(fmt::format("c{}", i));
  for (int64_t i = 0; i < kGenes; ++i) genes.push_back(fmt::format("GENE{}", i));
  h5.table("obs", cells, {"donor", "n", "maybe"});
  h5.table("var", genes, {"gene_ids"});
  h5.texts("var/gene_ids", genes);
  std::vector<int8_t> codes;
  std::vector<int64_t> numbers;
  std::vector<uint8_t> mask;
  for (int64_t i = 0; i < kCells; ++i) {
    codes.push_back(static_cast<int8_t>(i % 4 - 1));
    numbers.push_back(i * 3);
    mask.push_back(static_cast<uint8_t>(i % 2));
  }
  h5.numbers("obs/donor/codes", codes);
  h5.texts("obs/donor/categories", {"x", "y", "z"});
  h5.numbers("obs/n", numbers);
  h5.numbers("obs/maybe/values", numbers);
  h5.numbers("obs/maybe/mask", mask);
  const bool is_csc = random() % 3 == 0;
  const int64_t lines = is_csc ? kGenes : kCells, length = is_csc ? kCells : kGenes;
  std::vector<float> data;
  std::vector<int32_t> indices;
  std::vector<int64_t> indptr{0};
  for (int64_t line = 0; line < lines; ++line) {
    for (int64_t i = 0; i < length; ++i) {
      if ((line * 5 + i * 3) % 4 == 0) continue;
      data.push_back(static_cast<float>(1 + (line + i) % 9));
      indices.push_back(static_cast<int32_t>(i));
    }
    indptr.push_back(std::ssize(data));
  }
  const test::Storage storage =
      random() % 2 == 0 ? test::Storage{} : test::Storage{.chunk = {64}, .gzip = 1, .shuffle = true};
  h5.sparse("X", is_csc ? "csc_matrix" : "csr_matrix", kCells, kGenes, data, indices, indptr, storage);
  if (random() % 3 == 0) {
    std::vector<float> dense(kCells * kGenes);
    for (std::size_t i = 0; i < dense.size(); ++i) dense[i] = static_cast<float>(i % 5);
    h5.numbers<float>("layers/counts", dense, {kCells, kGenes});
  }
}

const Texts kNumeric = {"X/data", "X/indices",        "X/indptr",       "obs/donor/codes",
                        "obs/n",  "obs/maybe/values", "obs/maybe/mask", "layers/counts"};

// Bytes of a data set of numbers or texts of fixed length, changed in place through HDF5.
void damage_bytes(H5Builder& h5, const std::string& path, Random& random) {
  const hid_t dataset = H5Dopen2(h5.file(), path.c_str(), H5P_DEFAULT);
  if (dataset < 0) return;
  const hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
  // Texts of variable length are pointers in memory: to damage those would be our own crash.
  const bool holds_pointers = H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tis_variable_str(type) > 0;
  std::string bytes(
      holds_pointers ? 0 : H5Tget_size(type) * static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)),
      '\0');
  if (!bytes.empty()) {
    test::must(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()));
    for (uint64_t i = 0; i < 1 + random() % 4; ++i) {
      char& byte = bytes[random() % bytes.size()];
      byte = random() % 2 == 0 ? static_cast<char>(byte ^ (1 << random() % 8)) : static_cast<char>(random());
    }
    test::must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()));
  }
  H5Sclose(space);
  H5Tclose(type);
  H5Dclose(dataset);
}

int64_t odd_number(Random& random) {
  constexpr int64_t kOdd[] = {0,  1,   -1,    2,          11,         12,          13,         39,        40,
                              41, 255, 65536, 2147483647, 2147483648, -2147483648, 4294967295, 4294967296};
  const uint64_t choice = random() % (std::size(kOdd) + 2);
  return choice < std::size(kOdd)    ? kOdd[choice]
         : choice == std::size(kOdd) ? std::numeric_limits<int64_t>::max()
                                     : std::numeric_limits<int64_t>::min();
}

std::string odd_text(Random& random) {
  const Texts texts = {
      "",           "_index", "/",    "X/data",    "/X/data", ".",        "..",     "csr_matrix",
      "csc_matrix", "array",  "null", "dataframe", "donor",   "\xff\xfe", "a\tb\n", std::string(3000, 'x')};
  return texts[random() % texts.size()];
}

template <class T>
std::vector<T> odd_numbers(Random& random) {
  std::vector<T> values(random() % 3 == 0 ? random() % 5 : random() % 2 == 0 ? kCells : kCells + 1);
  for (T& value : values)
    value = static_cast<T>(random() % 3 == 0 ? static_cast<T>(odd_number(random))
                                             : static_cast<T>(random() % 13));
  return values;
}

void damage(H5Builder& h5, Random& random) {
  const std::string path = kNumeric[random() % kNumeric.size()];
  const Texts objects = {"X",
                         "X/data",
                         "X/indices",
                         "X/indptr",
                         "obs",
                         "var",
                         "obs/_index",
                         "var/_index",
                         "obs/donor",
                         "obs/donor/codes",
                         "obs/donor/categories",
                         "obs/maybe/mask",
                         "layers"};
  const std::string object = objects[random() % objects.size()];
  switch (random() % 10) {
    case 0:
    case 1:
    case 2:
    case 3:
      damage_bytes(h5, path, random);
      break;
    case 4:
      h5.attribute("X", "shape",
                   std::vector<int64_t>{random() % 2 == 0 ? kCells : odd_number(random),
                                        random() % 2 == 0 ? kGenes : odd_number(random)});
      break;
    case 5: {
      const Texts groups = {"X", "obs", "var", "/"},
                  names = {"encoding-type", "_index", "column-order", "h5sparse_format"};
      const std::string group = groups[random() % groups.size()];
      if (!h5.exists(group) && group != "/") return;
      if (random() % 2 == 0)
        h5.attribute(group, names[random() % names.size()], odd_text(random));
      else
        h5.attribute(group, names[random() % names.size()], Texts{odd_text(random), odd_text(random)});
      break;
    }
    case 6:  // another type, another length
      switch (random() % 4) {
        case 0:
          h5.numbers(path, odd_numbers<int64_t>(random));
          break;
        case 1:
          h5.numbers(path, odd_numbers<uint64_t>(random));
          break;
        case 2:
          h5.numbers(path, odd_numbers<double>(random));
          break;
        default:
          h5.numbers(path, odd_numbers<int8_t>(random));
          break;
      }
      break;
    case 7: {
      Texts texts(random() % 2 == 0 ? kCells : random() % 50, odd_text(random));
      h5.texts(random() % 2 == 0   ? "obs/_index"
               : random() % 2 == 0 ? "var/_index"
                                   : "var/gene_ids",
               texts, random() % 3 == 0 ? 7 : 0);
      break;
    }
    case 8:
      h5.remove(object);
      break;
    default:
      h5.remove(object);
      if (random() % 2 == 0)
        h5.soft_link("/" + objects[random() % objects.size()], object);
      else
        h5.group(object);
  }
}

// Everything the program does with a file, up to the first batches.
void use(const std::filesystem::path& path, bool hold_out_donors) {
  {
    const AnnDataFile file(path);
    for (const std::string& column : file.obs_columns()) {
      const ColumnKind kind = file.obs_kind(column);
      try {
        if (kind == ColumnKind::kCategorical || kind == ColumnKind::kText)
          static_cast<void>(file.obs_categories(column));
        else
          static_cast<void>(file.obs_numbers(column));
      } catch (const DataError&) {  // the columns after it must be readable all the same
      }
    }
    static_cast<void>(file.obs_index());
  }
  DataConfig config;
  config.files = {path.string()};
  config.min_genes = 1;
  config.min_gene_hit_rate = 0;
  config.num_workers = 1;
  config.heldout_column = hold_out_donors ? "donor" : "";
  std::vector<CellSource> sources = open_sources(config);
  Vocabulary vocabulary = build_vocabulary(sources, 1);
  const Corpus corpus(std::move(sources), std::move(vocabulary), config, {});
  const LoaderOptions options = loader_options(config, {}, 1, 16);
  TrainLoader loader(corpus, options);
  for (int step = 0; step < 2; ++step) loader.next();
  HeldoutLoader heldout(corpus, options);
  for (PackedMicroBatch pack; heldout.next(pack);) {
  }
}

TEST(Mutation, DamagedH5adFilesEndInDataOrInAnErrorOfTheUser) {
  const Quiet quiet;
  const test::TempDir folder;
  const char* wanted = std::getenv("SCRNA_MUTATIONS");
  const int num_rounds = wanted != nullptr ? std::atoi(wanted) : 600;
  int num_read = 0, num_refused = 0;
  for (int round = 0; round < num_rounds; ++round) {
    Random random(static_cast<uint64_t>(round));
    const std::filesystem::path path = folder / "f.h5ad";
    write_valid(path, random);
    {
      H5Builder h5(path, false);
      for (uint64_t i = 0; i < 1 + random() % 2; ++i) {
        try {
          damage(h5, random);
        } catch (const std::runtime_error&) {  // cannot be done to what earlier damage left
        }
      }
    }
    try {
      use(path, round % 2 == 0);
      ++num_read;
    } catch (const Error& error) {
      ++num_refused;
      EXPECT_NE(error.code(), ExitCode::kBug) << "round " << round << ": " << error.what();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "round " << round << ": " << error.what();
    }
  }
  EXPECT_GT(num_read, num_rounds / 10) << "the damage should not be so great that nothing is left to read";
  EXPECT_GT(num_refused, num_rounds / 10);
}

TEST(Mutation, DamagedVocabulariesEndInAVocabularyOrInADataError) {
  const std::string good = Vocabulary({{.id = "ENSG00000000001", .median = 1.5F, .cells = 3, .counts = 17},
                                       {.id = "ENSG00000000002", .median = 0.25F, .cells = 1, .counts = 1},
                                       {.id = "ENSG00000000003", .median = 2, .cells = 9, .counts = 1e6}})
                               .text();
  constexpr std::string_view alphabet("\t\n\r 0123456789.eE+-naifNxX<>\0\xff", 30);
  int num_read = 0, num_refused = 0;
  for (int round = 0; round < 20000; ++round) {
    Random random(static_cast<uint64_t>(round));
    std::string text = good;
    for (uint64_t edit = 0; edit < 1 + random() % 3 && !text.empty(); ++edit) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.resize(at);
      }
    }
    try {
      const Vocabulary vocabulary = Vocabulary::parse(text, "v.tsv");
      EXPECT_EQ(Vocabulary::parse(vocabulary.text(), "again").genes(), vocabulary.genes())
          << "round " << round;
      ++num_read;
    } catch (const DataError&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_read, 1000);
  EXPECT_GT(num_refused, 1000);
}

}  // namespace
}  // namespace scrna::data
